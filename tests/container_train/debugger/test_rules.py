"""Every rule on a training that is ill in its way, and on one that is not. What is trained, saved and read is real."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from container_train.debugger import KNOWN
from container_train.debugger.evaluator import RULES, RuleEvaluator
from container_train.debugger.history import Evaluation, History, Mean
from container_train.hyperparameters import OPTIONS
from container_train.monitoring.findings import Finding, Rule, evaluate, parse_parameters
from container_train.profiler import rules as profiler
from tests.container_train.debugger.runs import (
    BATCH,
    CLASSES,
    FEATURES,
    Batch,
    batches,
    evaluated,
    judge,
    network,
    pictures,
    train,
)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers with ReLUs on pictures that can be told apart; the loss still falls at the end."""
    folder = tmp_path_factory.mktemp("healthy")
    hook = train(folder, network(32, 32), epochs=8, lr=0.01)
    assert (hook.state, hook.reason) == ("on", "")
    return folder


def fired(finding: Finding) -> Finding:
    """That it fired, and says all that it has to say."""
    assert finding.status == "fired", finding.reason
    assert finding.fired >= 1
    assert finding.checked >= finding.fired
    assert finding.first is not None
    assert finding.last is not None
    assert finding.first.mode in ("TRAIN", "EVAL")
    assert finding.first.tensor
    assert finding.reason
    assert finding.advice
    return finding


def test_a_healthy_training_is_healthy_by_every_rule(healthy: Path) -> None:
    findings = judge(healthy, {"class_counts": {"a": 160, "b": 160, "c": 160, "d": 160}})
    assert list(findings) == list(RULES) == list(KNOWN)
    for finding in findings.values():
        assert finding.status == "ok", f"{finding.rule}: {finding.reason}"
        assert finding.checked > 0
        assert finding.fired == 0
        assert finding.parameters == KNOWN[finding.rule]
        assert finding.kind == "debugger"


# vanishing_gradient


def test_gradients_vanish_through_many_saturated_sigmoids(tmp_path: Path) -> None:
    head = network(*[16] * 14, activation=nn.Sigmoid)
    train(tmp_path, head, epochs=1)
    finding = fired(judge(tmp_path)["vanishing_gradient"])
    assert finding.first is not None
    assert finding.first.tensor == "gradient/Sequential_0.weight"
    assert finding.first.value < finding.first.threshold == 1e-7


def test_gradients_do_not_vanish_through_as_many_relus(tmp_path: Path) -> None:
    train(tmp_path, network(*[16] * 14), epochs=1, lr=1e-3)
    assert judge(tmp_path)["vanishing_gradient"].status == "ok"


def test_the_threshold_of_a_vanished_gradient_can_be_set(healthy: Path) -> None:
    finding = fired(judge(healthy, vanishing_gradient={"threshold": 0.1})["vanishing_gradient"])
    assert finding.parameters["threshold"] == 0.1


# exploding_tensor


def test_tensors_explode_with_a_far_too_large_lr(tmp_path: Path) -> None:
    train(tmp_path, network(32, 32), epochs=1, lr=1e6)
    finding = fired(judge(tmp_path)["exploding_tensor"])
    assert "NaN" in finding.reason or "infinite" in finding.reason


def put(head: nn.Sequential, value: float, step: int) -> Any:
    def before(now: int) -> None:
        if now == step:
            head.state_dict()["0.weight"][0, 0] = value

    return before


def test_only_nan_passes_over_what_is_infinite(tmp_path: Path) -> None:
    head = network(8)
    train(tmp_path, head, epochs=1, before=put(head, float("inf"), 4))
    weight = [f for f in (judge(tmp_path)["exploding_tensor"],) if f.first is not None]
    assert weight
    assert judge(tmp_path, exploding_tensor={"only_nan": 1})["exploding_tensor"].fired < weight[0].fired


def test_one_nan_outside_the_sample_that_is_saved_is_seen(tmp_path: Path) -> None:
    head = nn.Sequential(nn.Linear(FEATURES, 4), nn.ReLU())
    big = nn.Parameter(torch.zeros(100_000))
    head.register_parameter("big", big)  # used by nothing, so that the loss stays finite
    with torch.no_grad():
        big[77_777] = float("nan")
    train(tmp_path, head, epochs=1, interval=5)
    assert "NaN" not in judge(tmp_path)["exploding_tensor"].reason  # of no collection: neither weight nor bias
    head = nn.Sequential(nn.Linear(FEATURES, 4), nn.ReLU())
    head.register_parameter("a_weight", nn.Parameter(big.detach().clone()))
    train(tmp_path, head, epochs=1, interval=5)
    finding = fired(judge(tmp_path)["exploding_tensor"])
    assert finding.first is not None
    assert (finding.first.step, finding.first.tensor) == (0, "Sequential_a_weight")


def test_gradients_that_overflow_under_a_loss_scale_are_how_it_works(tmp_path: Path) -> None:
    class Overflows(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.clone()

        @staticmethod
        def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
            return gradients[0] * float("inf")

    class Rest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network(8)

        def forward(self, inputs: torch.Tensor) -> Any:
            return Overflows.apply(self.inner(inputs))  # type: ignore[no-untyped-call]

    for scale, status in ((65536.0, "ok"), (1.0, "fired")):
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        train(tmp_path, Rest(), epochs=1, lr=0, valid_on=[], train_on=batches(pictures(BATCH, 1)), scaler=scaler)
        assert judge(tmp_path)["exploding_tensor"].status == status


# overfit, overtraining


def noise(count: int, seed: int) -> Batch:
    """Points and labels that have nothing to do with each other."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, FEATURES, generator=generator), torch.randint(0, 4, (count,), generator=generator)


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large network learns 64 points by heart, whose labels mean nothing; the validation loss rises."""
    folder = tmp_path_factory.mktemp("overfitted")
    train(folder, network(256), epochs=20, lr=0.3, train_on=batches(noise(64, 1), 16), valid_on=batches(noise(64, 2)))
    return folder


def test_what_is_learnt_by_heart_is_overfit(overfitted: Path) -> None:
    finding = fired(judge(overfitted)["overfit"])
    assert finding.first is not None
    assert finding.first.mode == "EVAL"
    assert finding.first.step is not None
    assert finding.first.step % 4 == 0  # training steps of whole epochs
    assert finding.first.value > finding.first.threshold == 0.1


def test_patience_and_start_of_overfit(overfitted: Path) -> None:
    at_once = judge(overfitted)["overfit"]
    patient = judge(overfitted, overfit={"patience": 5})["overfit"]
    late = judge(overfitted, overfit={"start_step": 60})["overfit"]
    assert at_once.fired - patient.fired == 4
    assert late.checked == 20 - 14  # 60 steps are 15 epochs
    assert judge(overfitted, overfit={"patience": 50})["overfit"].status == "ok"


def test_training_on_after_the_optimum_is_overtraining(tmp_path: Path) -> None:
    few, many = pictures(32, 1, apart=1.2), pictures(160, 2, apart=1.2)
    train(tmp_path, network(64), epochs=20, lr=0.2, train_on=batches(few, 16), valid_on=batches(many))
    finding = fired(judge(tmp_path)["overtraining"])
    assert finding.first is not None
    assert (finding.first.value, finding.first.threshold, finding.first.mode) == (10, 10, "EVAL")
    assert "the validation loss had not improved for 10 evaluations" in finding.reason
    sooner = judge(tmp_path, overtraining={"patience_validation": 4})["overtraining"]
    assert sooner.first is not None
    assert finding.first.step is not None
    assert sooner.first.step == finding.first.step - 2 * 6


def test_when_neither_loss_falls_any_more_it_is_overtraining(tmp_path: Path) -> None:
    head = network(32)

    def freeze(step: int) -> None:
        if step == 100:  # from the sixth epoch on nothing is learnt
            for parameter in head.parameters():
                parameter.register_hook(torch.zeros_like)

    train(tmp_path, head, epochs=12, lr=0.02, before=freeze)
    finding = fired(judge(tmp_path)["overtraining"])
    assert "neither loss had improved for 5 evaluations" in finding.reason


def test_overtraining_waits_for_enough_evaluations(tmp_path: Path) -> None:
    train(tmp_path, network(8), epochs=2)
    finding = judge(tmp_path)["overtraining"]
    assert finding.status == "not_applicable"
    assert "2 were made" in finding.reason
    assert judge(tmp_path, final=False)["overtraining"].status == "waiting"


def test_a_loss_that_never_fell_is_not_overtraining(tmp_path: Path) -> None:
    train(tmp_path, network(8), epochs=8, lr=0)
    assert judge(tmp_path)["overtraining"].status == "ok"


# loss_not_decreasing


def test_with_lr_0_no_loss_decreases(tmp_path: Path) -> None:
    train(tmp_path, network(32), epochs=3, lr=0)
    finding = fired(judge(tmp_path)["loss_not_decreasing"])
    assert finding.first is not None
    assert (finding.first.mode, finding.first.value, finding.first.threshold) == ("EVAL", 0.0, 0.1)
    assert (finding.first.step, finding.fired) == (40, 2)


def test_a_loss_that_rises_in_the_first_epoch_is_seen_before_its_end(tmp_path: Path) -> None:
    head = network(32)

    def climb(step: int) -> None:
        if step >= 20:
            with torch.no_grad():
                for parameter in head.parameters():
                    parameter.mul_(1.1)

    data = batches(pictures(BATCH * 60, 1, apart=0.5))
    train(tmp_path, head, epochs=1, lr=1e-4, train_on=data, valid_on=[], before=climb, interval=1)
    finding = fired(judge(tmp_path, final=False)["loss_not_decreasing"])
    assert finding.first is not None
    assert finding.first.mode == "TRAIN"
    assert finding.first.value < finding.first.threshold == -5
    assert "rose" in finding.reason


def test_one_step_is_one() -> None:
    history = History(10, 1.0)
    history.evaluations = [Evaluation(1, Mean(1.0, 1), Mean(2.0, 1))]
    (found,) = evaluate({"overfit": RULES["overfit"]}, "debugger", history, {}, final=True)
    assert found.reason == (
        "after 1 training step the validation loss was 2, the training loss 1: 100% more, up to 10% is allowed"
    )


@pytest.mark.parametrize(("mode", "found"), [("TRAIN", "TRAIN"), ("EVAL", "EVAL"), ("", "EVAL")])
def test_the_mode_of_loss_not_decreasing_is_given_as_users_write_it(healthy: Path, mode: str, found: str) -> None:
    parameters = parse_parameters(f"loss_not_decreasing:diff_percent=1000,mode={mode}", KNOWN)
    finding = fired(judge(healthy, loss_not_decreasing=parameters["loss_not_decreasing"])["loss_not_decreasing"])
    assert finding.last is not None
    assert finding.last.mode == found


def test_noise_between_batches_is_not_a_loss_that_stands_still(tmp_path: Path) -> None:
    data = batches(pictures(16 * 100, 1, apart=1.0), 16)
    train(tmp_path, network(32), epochs=1, lr=0.02, train_on=data, valid_on=[], interval=1)
    finding = judge(tmp_path, loss_not_decreasing={"mode": "TRAIN"})["loss_not_decreasing"]
    assert finding.status == "ok", finding.reason
    assert finding.checked >= 7


@pytest.mark.parametrize(("lr", "status"), [(1e4, "fired"), (0.05, "ok")])
def test_a_loss_that_was_thrown_up_at_once_has_diverged_though_it_falls_since(
    tmp_path: Path, lr: float, status: str
) -> None:
    train(tmp_path, network(), epochs=2, lr=lr, train_on=batches(pictures(640, 1, apart=0.5)))
    finding = judge(tmp_path, {"classes": CLASSES})["loss_not_decreasing"]
    assert (finding.status, finding.severity) == (status, "problem" if status == "fired" else None), finding.reason
    assert ("the training has diverged: after 40 steps" in finding.reason) == (status == "fired")


# what is known of the recipe, and how bad a finding is


def stale(step: int) -> Any:
    """From this step on nothing is learned."""

    def before(head: nn.Module, now: int) -> None:
        if now == step:
            for parameter in head.parameters():
                parameter.register_hook(torch.zeros_like)

    return before


def stands_still_from(folder: Path, step: int) -> Path:
    head = network(32)
    train(folder, head, epochs=10, lr=0.05, before=lambda now: stale(step)(head, now))
    return folder


@pytest.mark.parametrize(
    ("stands", "schedule", "status"),
    [(170, "cosine", "ok"), (170, "constant", "fired"), (100, "cosine", "fired")],
)
def test_a_loss_that_stands_still_at_the_end_of_a_cosine_is_no_finding(
    tmp_path: Path, stands: int, schedule: str, status: str
) -> None:
    """Of 200 steps: after 160 a cosine is below a tenth of where it began."""
    stands_still_from(tmp_path, stands)
    job = {"steps_per_epoch": 20, "hyperparameters": {"epochs": 10, "lr-schedule": schedule}}
    found = judge(tmp_path, job)["loss_not_decreasing"]
    assert found.status == status, found.reason
    assert found.severity == (None if status == "ok" else "information"), "it had learned before"


@pytest.mark.parametrize(("warmup", "step"), [(0, 161), (1.0, 165), (5, 181)])
def test_a_warm_up_comes_before_the_cosine(warmup: float, step: int) -> None:
    history = History(10, 1.0)
    history.job = {
        "steps_per_epoch": 20, "hyperparameters": {"epochs": 10, "lr-schedule": "cosine", "warmup-epochs": warmup}
    }  # fmt: skip
    assert [history.annealed(step - 1), history.annealed(step)] == [False, True]


def test_a_plan_that_is_over_is_not_overtraining(tmp_path: Path) -> None:
    stands_still_from(tmp_path, 100)
    parameters = {"patience_train": 4, "patience_validation": 4}
    recipes = {"constant": "fired", "cosine": "ok"}
    for schedule, status in recipes.items():
        job = {"steps_per_epoch": 20, "hyperparameters": {"epochs": 10, "lr-schedule": schedule}}
        found = judge(tmp_path, job, overtraining=parameters)["overtraining"]
        assert (found.status, found.severity) == (status, "information" if status == "fired" else None)


@pytest.mark.parametrize(
    ("name", "value", "off"),
    [("label-smoothing", 0.1, 0.0), ("mixup", 0.2, 0.0), ("cutmix", 1.0, 0.0), ("class-weights", "balanced", "none")],
)
def test_losses_that_are_not_the_same_are_not_compared(overfitted: Path, name: str, value: object, off: object) -> None:
    found = judge(overfitted, {"hyperparameters": {name: value, "lr": 0.3}})["overfit"]
    assert found.status == "not_applicable"
    assert found.reason == f"the training loss is not comparable with the validation loss: {name} {value}"
    assert judge(overfitted, {"hyperparameters": {name: off}})["overfit"].status == "fired"


def test_how_bad_it_is(overfitted: Path, healthy: Path, tmp_path: Path) -> None:
    assert judge(overfitted)["overfit"].severity == "information"
    assert judge(overfitted, {"classes": 4})["overfit"].severity == "warning", "guessing has a lower loss"
    assert judge(healthy, overfit={"ratio_threshold": -0.5})["overfit"].severity == "information"
    few, many = batches(pictures(64, 1, apart=1.5), 16), batches(pictures(160, 2, apart=1.5))
    train(tmp_path / "gap", network(64), epochs=6, lr=0.05, train_on=few, valid_on=many)
    gap = fired(judge(tmp_path / "gap")["overfit"])
    assert gap.severity == "information", "a gap, but the validation loss still falls"
    train(tmp_path / "still", network(32), epochs=3, lr=0)
    assert judge(tmp_path / "still")["loss_not_decreasing"].severity == "problem", "nothing was learned"
    head = network(32)
    train(tmp_path / "up", head, epochs=6, lr=0.05, before=lambda step: diverge(head, step))
    assert judge(tmp_path / "up")["loss_not_decreasing"].severity == "warning", "it had learned, and lost that again"


# The losses of each epoch of the project's own sample on a backbone of random weights; validated on 60 images.
VALID = [
    3.72, 3.87, 3.96, 2.43, 2.38, 2.19, 2.12, 1.93, 1.78, 1.7, 1.66, 1.64, 1.57, 1.54, 1.5, 1.49, 1.56, 1.53,
    1.59, 1.49, 1.46, 1.44, 1.36, 1.35, 1.3, 1.32, 1.28, 1.29, 1.27, 1.27, 1.22, 1.26, 1.19, 1.2, 1.18, 1.18,
    1.17, 1.13, 1.15, 1.11, 1.08, 1.06, 1.09, 1.05, 1.06, 1.05, 1.06, 1.07, 1.08, 1.12, 1.11, 1.04, 1.05, 1.06,
    1.13, 1.08, 1.08, 1.01, 1.02, 1.07,
]  # fmt: skip
TRAIN = [
    5.68, 4.8, 3.8, 3.38, 2.47, 2.15, 2.09, 1.8, 1.76, 1.63, 1.47, 1.44, 1.37, 1.34, 1.27, 1.25, 1.24, 1.27,
    1.17, 1.16, 1.09, 1.06, 1.06, 1.01, 1.06, 0.96, 0.94, 0.9, 0.82, 0.83, 0.8, 0.83, 0.77, 0.76, 0.77, 0.75,
    0.7, 0.7, 0.69, 0.65, 0.65, 0.61, 0.61, 0.59, 0.59, 0.57, 0.53, 0.51, 0.5, 0.51, 0.51, 0.53, 0.51, 0.54,
    0.52, 0.5, 0.46, 0.43, 0.45, 0.47,
]  # fmt: skip


def recorded(train_losses: list[float], valid_losses: list[float]) -> History:
    """Four steps per epoch, as the sample has them."""
    history = History(10, 1.0)
    for epoch, (train_loss, valid_loss) in enumerate(zip(train_losses, valid_losses, strict=True), 1):
        history.losses += [(4 * epoch + step - 4, train_loss) for step in range(4)]
        history.evaluations.append(Evaluation(4 * epoch, Mean(train_loss * 240, 240), Mean(valid_loss * 60, 60)))
    return history


@pytest.mark.parametrize(
    ("valid", "severity"),
    [
        (VALID, "information"),  # single evaluations are over 5 % worse than those before; all in all the loss falls
        (VALID[:40] + [loss + 0.02 * k for k, loss in enumerate([1.1] * 20)], "warning"),
    ],
)
def test_a_noisy_loss_that_falls_on_the_whole_is_no_fault(valid: list[float], severity: str) -> None:
    history = recorded(TRAIN, valid)
    for name in ("overfit", "loss_not_decreasing"):
        found = evaluate({name: RULES[name]}, "debugger", history, {}, final=True)[0]
        assert (found.status, found.severity) == ("fired", severity), name


def diverge(head: nn.Module, step: int) -> None:
    if step >= 80:
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.mul_(1.2)


def test_gradients_of_a_training_that_is_done_are_no_problem(tmp_path: Path) -> None:
    train(tmp_path / "done", network(32), epochs=20, lr=1.0, train_on=batches(pictures(64, 1, apart=20.0), 16))
    found = fired(judge(tmp_path / "done", vanishing_gradient={"threshold": 1e-5})["vanishing_gradient"])
    assert found.severity == "information", found.reason
    train(tmp_path / "ill", network(*[16] * 14, activation=nn.Sigmoid), epochs=1)
    assert judge(tmp_path / "ill")["vanishing_gradient"].severity == "problem"


def test_advice_names_hyperparameters_that_exist() -> None:
    advice = {**{name: rule.advice for name, rule in RULES.items()}, **{n: r.advice for n, r in profiler.RULES.items()}}
    for name, text in advice.items():
        for option, value in re.findall(r"--([a-z][a-z-]*)(?: ([a-z0-9.-]+))?", text):
            assert option in OPTIONS, f"{name} advises --{option}"
            if value and (value[0].isdigit() or value in ("crop", "trivial", "cosine", "balanced", "off", "none")):
                OPTIONS[option].parse(value)


# poor_weight_initialization


def started(deviation: float) -> nn.Sequential:
    head = network(32, 32, 32)
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=deviation)
    return head


def test_weights_that_start_too_large(tmp_path: Path) -> None:
    train(tmp_path, started(2.0), epochs=1, lr=1e-5)
    finding = fired(judge(tmp_path)["poor_weight_initialization"])
    assert finding.first is not None
    assert (finding.first.step, finding.first.threshold) == (0, 10)
    assert finding.first.tensor == "5.relu_input_0"


@pytest.mark.parametrize("deviation", [0.0, 1e-4])
def test_weights_that_start_alike_or_too_small(tmp_path: Path, deviation: float) -> None:
    train(tmp_path, started(deviation), epochs=1, lr=1e-3)
    assert fired(judge(tmp_path)["poor_weight_initialization"]).fired > 0


def test_a_layer_alone_that_starts_at_0_and_never_learns(tmp_path: Path) -> None:
    head = nn.Linear(FEATURES, 4)
    nn.init.zeros_(head.weight)
    blind = [(torch.full_like(inputs, 1e-5), targets) for inputs, targets in batches(pictures(640, 1))]
    train(tmp_path, head, epochs=1, train_on=blind, lr=0)
    finding = fired(judge(tmp_path)["poor_weight_initialization"])
    assert "loss had not fallen" in finding.reason
    assert finding.first is not None
    assert finding.first.tensor == "gradient/Linear_weight"


def test_of_a_pretrained_network_the_new_layer_is_judged(tmp_path: Path) -> None:
    # Activations that differ far more than ten times: those of pretrained layers may.
    train(tmp_path, started(2.0), epochs=1, lr=1e-5)
    finding = judge(tmp_path, {"debug": {"pretrained": True}})["poor_weight_initialization"]
    assert finding.status == "ok"
    assert "pretrained" in finding.reason
    assert finding.checked == 10


# dead_relu


@pytest.mark.parametrize("pushed", [True, False])
def test_relus_die_of_one_step_too_large(tmp_path: Path, pushed: bool) -> None:
    head = network(32, 32)

    def push(step: int) -> None:
        if step == 10 and pushed:
            head.state_dict()["2.bias"][: 32 * 3 // 4] = -1e3

    train(tmp_path, head, epochs=1, lr=1e-3, before=push)
    finding = judge(tmp_path)["dead_relu"]
    if not pushed:
        assert finding.status == "ok"
        return
    fired(finding)
    assert finding.first is not None
    assert finding.first.tensor == "3.relu_input_0"
    assert finding.first.step == 14  # the mean of five steps is below 1 % with the last of them
    assert finding.first.value == pytest.approx(75, abs=4)
    assert judge(tmp_path, dead_relu={"threshold_layer": 90.0})["dead_relu"].status == "ok"


def test_dead_channels_of_a_convolution(tmp_path: Path) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 8, 3)
    head = nn.Sequential(convolution, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 36, 4))
    nn.init.constant_(convolution.bias, -100.0)  # type: ignore[arg-type]
    data = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 4) for _ in range(8)]
    train(tmp_path, head, epochs=1, lr=1e-3, train_on=data, valid_on=[])
    finding = fired(judge(tmp_path)["dead_relu"])
    assert finding.first is not None
    assert finding.first.value == 100
    assert "100 % of the 8 ReLUs of 1.relu_input_0" in finding.reason


# class_imbalance


@pytest.mark.parametrize(("smallest", "status"), [(9, "fired"), (10, "ok")])
def test_ten_times_as_many_pictures_are_too_many(smallest: int, status: str) -> None:
    finding = RuleEvaluator({}).findings({"class_counts": {"Beagle": 100, "Pug": smallest}})[-1]
    assert (finding.rule, finding.status) == ("class_imbalance", status)
    if status == "fired":
        assert fired(finding).reason.startswith("class Beagle has 100 training images, class Pug 9: 11.1 times")


def few_of_one(count: int) -> Batch:
    inputs, targets = pictures(640, 1, apart=1.0)
    kept = (targets != 3) | (torch.arange(640) < 4 * count)
    return inputs[kept], targets[kept]


def test_a_small_class_that_is_mispredicted(tmp_path: Path) -> None:
    train(tmp_path, network(16), epochs=2, train_on=batches(few_of_one(18)), lr=0.01)
    counts = {"a": 160, "b": 160, "c": 160, "d": 18}
    finding = fired(judge(tmp_path, {"class_counts": counts})["class_imbalance"])
    assert "of class d, which has only 18 training images, were mispredicted" in finding.reason
    assert finding.first is not None
    assert (finding.first.mode, finding.first.threshold) == ("EVAL", 0.7)


# what all have in common


def test_losses_are_means_over_images_not_over_batches(tmp_path: Path) -> None:
    """As metrics.json has them: the last batch of an evaluation may be a small one."""
    head = network(8)
    inputs, targets = pictures(BATCH + 1, 2)
    targets[-1] = (targets[-1] + 1) % 4  # alone in its batch, and wrong
    train(tmp_path, head, epochs=2, lr=0, valid_on=batches((inputs, targets)))
    whole = float(nn.CrossEntropyLoss()(head(inputs), targets))
    assert (
        f"the validation loss was {whole:.4g}," in judge(tmp_path, overfit={"ratio_threshold": -1.0})["overfit"].reason
    )


def test_a_rule_that_fails_says_so_and_the_others_go_on(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Finding:
        raise KeyError("a mistake")

    monkeypatch.setitem(RULES, "overfit", Rule(broken, {}))
    findings = judge(healthy, {"class_counts": dict.fromkeys("abcd", 160)})
    assert (findings["overfit"].status, findings["overfit"].reason) == (
        "error",
        "the rule failed: KeyError: 'a mistake'",
    )
    assert {finding.status for name, finding in findings.items() if name != "overfit"} == {"ok"}


def test_without_tensors_every_rule_says_why(tmp_path: Path) -> None:
    assert {finding.status for finding in judge(tmp_path).values()} == {"not_applicable"}
    assert {finding.status for finding in judge(tmp_path, final=False).values()} == {"waiting"}


def test_figures_are_bounded_and_finite_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("container_train.debugger.evaluator.POINTS", 20)
    head = network(8)
    train(tmp_path, head, epochs=3, before=put(head, float("nan"), 50))
    content = evaluated(tmp_path).figures()
    json.dumps(content, allow_nan=False)
    assert sorted(content["gradients"]) == ["0", "2"]
    curve = content["gradients"]["0"]
    assert 10 <= len(curve["step"]) == len(curve["norm"]) <= 20
    assert len(content["losses"]["train"]["step"]) <= 20
