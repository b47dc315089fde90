import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from smdebug import modes
from smdebug.trials import create_trial
from torch import nn

from container_train.debugger import config, recorder, reductions
from container_train.debugger.config import SaveSchedule
from container_train.debugger.hook import Hook, trained
from container_train.model import builder
from container_train.paths import SageMakerPaths
from tests.container_train.debugger.runs import BATCH, batches, judge, network, pictures, train


def trial(folder: Path) -> Any:
    return create_trial(str(config.folder(SageMakerPaths(folder))))


def test_smdebug_reads_losses_weights_gradients_and_inputs_of_relus(tmp_path: Path) -> None:
    head = network(32, 128)
    train(tmp_path, head, epochs=1)
    read = trial(tmp_path)
    assert read.steps(modes.TRAIN) == list(range(20))
    assert read.steps(modes.EVAL) == list(range(5))
    for collection, count in {"losses": 1, "weights": 3, "biases": 3, "gradients": 6, "relu_input": 2}.items():
        assert len(read.tensor_names(step=3, mode=modes.TRAIN, collection=collection)) == count, collection
    assert read.tensor_names(step=3, mode=modes.EVAL) == ["CrossEntropyLoss_output_0", "labels", "predictions"]
    assert read.collection("last_layer").include_regex == ["^(gradient/)?Sequential_4\\."]
    assert "Sequential_2.weight" in read.collection("layers").tensor_names
    labels = read.tensor("labels").value(0, mode=modes.TRAIN)
    np.testing.assert_array_equal(labels, pictures(640, seed=1)[1][:BATCH])


def test_of_a_large_tensor_a_sample_is_saved_and_sums_of_all_of_it(tmp_path: Path) -> None:
    head = network(512)
    first = head.state_dict()["0.weight"].clone()
    train(tmp_path, head, epochs=1)
    tensor = trial(tmp_path).tensor("Sequential_0.weight")
    values = tensor.value(0, mode=modes.TRAIN)
    assert len(values) <= reductions.VALUES < first.numel()
    assert set(values.tolist()) <= set(first.flatten().tolist())
    mean = tensor.reduction_value(0, "mean", mode=modes.TRAIN)
    assert float(mean) == pytest.approx(float(first.mean()), rel=1e-4)


@pytest.mark.parametrize("shape", [(40, 30, 7, 7), (2048, 133), (5000,), (64, 3, 7, 7)])
def test_one_nan_or_infinity_anywhere_is_seen_in_the_mean(shape: tuple[int, ...]) -> None:
    layouts = (torch.contiguous_format, torch.channels_last) if len(shape) == 4 else (torch.contiguous_format,)
    for layout in layouts:
        for value in (float("nan"), float("inf")):
            tensor = torch.zeros(shape).to(memory_format=layout)
            tensor[tuple(size - 2 for size in shape)] = value
            for mean in (float(reductions.mean_absolute(tensor)), float(reductions.mean(tensor))):
                assert np.isnan(mean) if np.isnan(value) else np.isinf(mean)
    ones = torch.full(shape, -2.0)
    assert float(reductions.mean_absolute(ones)) == pytest.approx(2)
    assert float(reductions.mean(ones)) == pytest.approx(-2)
    assert float(reductions.norm(ones)) == pytest.approx(float(ones.norm()), rel=1e-5)


def test_a_sample_reaches_from_end_to_end_and_into_every_channel() -> None:
    tensor = torch.arange(64 * 64 * 9, dtype=torch.float32).reshape(64, 64, 3, 3)
    values = reductions.values(tensor)
    assert reductions.VALUES * 0.9 < len(values) <= reductions.VALUES
    assert values.max() > 0.97 * tensor.max()
    assert len(set((values.long() % 9).tolist())) == 9


def test_the_activity_of_a_unit_is_the_share_of_its_positive_inputs() -> None:
    inputs = torch.ones(4, 3, 2, 2)
    inputs[:, 1] = -1
    inputs[:1, 2] = 0
    assert reductions.activity(inputs).tolist() == [1, 0, 0.75]
    assert reductions.activity(inputs[:, :, 0, 0]).tolist() == [1, 0, 0.75]
    tokens = torch.ones(4, 7, 3)
    tokens[..., 1] = -1
    assert reductions.activity(tokens).tolist() == [1, 0, 1]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_activity_of_more_than_is_looked_at_is_close(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(32, 64, 40, 40)
    inputs[:, 10] = -1
    inputs[:, 11, 20:, 20:] = 1
    inputs[:, 11, :20] = inputs[:, 11, :, :20] = -1
    assert inputs.numel() > 6 * reductions.ACTIVITY_VALUES
    activity = reductions.activity(inputs.to(memory_format=layout))
    assert activity[10] == 0
    assert float(activity[11]) == pytest.approx(0.25, abs=0.02)
    assert activity[12:].sub(0.5).abs().max() < 0.03


def test_the_input_of_an_in_place_relu_is_what_it_was_before(tmp_path: Path) -> None:
    train(tmp_path, network(32, 32), epochs=1)
    read = trial(tmp_path)
    for name in ("1.relu_input_0", "3.relu_input_0"):
        assert read.tensor(name).value(0, mode=modes.TRAIN).min() < 0
    activity = read.tensor("1.relu_activity_0").value(0, mode=modes.TRAIN)
    assert activity.shape == (32,)
    assert 0.2 < activity.mean() < 0.8


def test_mixed_precision_is_saved_as_float32(tmp_path: Path) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network(32)

        def forward(self, inputs: torch.Tensor) -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.inner(inputs)

    hook = train(tmp_path, Mixed(), epochs=1)
    assert (hook.state, hook.reason) == ("on", "")
    assert trial(tmp_path).tensor("inner.1.relu_input_0").value(0, mode=modes.TRAIN).dtype == np.float32


def test_gradients_are_those_of_the_loss_not_of_the_scaled_one(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=4096.0)
    train(tmp_path / "plain", network(16), epochs=1, lr=0)
    train(tmp_path / "scaled", network(16), epochs=1, lr=0, scaler=scaler)
    plain, scaled = trial(tmp_path / "plain"), trial(tmp_path / "scaled")
    for read in (plain, scaled):
        assert "gradient/Sequential_0.weight" in read.tensor_names()
    one, other = (t.tensor("gradient/Sequential_0.weight").value(5, mode=modes.TRAIN) for t in (plain, scaled))
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-7)
    one, other = (
        float(t.tensor("gradient/Sequential_0.weight").reduction_value(5, "l2", mode=modes.TRAIN))
        for t in (plain, scaled)
    )
    assert one == pytest.approx(other, rel=1e-3)
    assert float(scaled.tensor("loss_scale").value(5, mode=modes.TRAIN)) == 4096


def test_of_each_evaluation_every_batch_is_saved(tmp_path: Path) -> None:
    valid = batches(pictures(53 * BATCH, seed=2))
    train(tmp_path, network(8), epochs=2, valid_on=valid)
    read = trial(tmp_path)
    assert read.steps(modes.EVAL) == list(range(2 * 53))
    labels = [read.tensor("labels").value(step, mode=modes.EVAL) for step in read.steps(modes.EVAL)]
    for one, other in zip(labels[:53], labels[53:], strict=True):
        np.testing.assert_array_equal(one, other)
    # What the rules go by: the training steps before an evaluation.
    assert {read.global_step(modes.EVAL, step) - step for step in read.steps(modes.EVAL)} == {20, 40}


@pytest.mark.parametrize(
    ("steps", "epochs", "interval"), [(1, 10, 1), (20, 10, 1), (75, 10, 4), (105, 10, 5), (1000, 1, 50), (1000, 90, 90)]
)
def test_the_interval_follows_from_the_length_of_the_training(steps: int, epochs: int, interval: int) -> None:
    schedule = SaveSchedule(steps, epochs)
    assert schedule.interval() == interval
    assert schedule.interval(500) == 500


def test_steps_are_passed_over_where_the_hook_would_take_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "CHEAP", 0.0)
    monkeypatch.setattr(recorder, "SHARE", 1e-9)
    for interval, last in ((0, 9), (1, 19)):
        train(tmp_path, network(8), epochs=1, interval=interval)
        read = trial(tmp_path)
        assert read.tensor("gradient/Sequential_0.weight").steps(modes.TRAIN) == list(range(last + 1))
        assert read.tensor("CrossEntropyLoss_output_0").steps(modes.TRAIN) == list(range(20))


class Idle(Hook):
    """Does nothing."""

    def _guard(self, function: Callable[..., Any]) -> Callable[..., None]:
        return lambda *_: None


def test_a_training_is_the_same_with_and_without(tmp_path: Path) -> None:
    watched, alone = network(32, 32), network(32, 32)
    train(tmp_path, watched)
    train(tmp_path, alone, hook=Idle(SageMakerPaths(tmp_path), SaveSchedule(20, 3)))
    for one, other in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_parts_of_a_batch_are_one_step(tmp_path: Path) -> None:
    head, loss = network(32), nn.CrossEntropyLoss()
    hook = Hook(SageMakerPaths(tmp_path), SaveSchedule(3, 1))
    hook.register(head, loss)
    hook.mode("train")
    whole = []
    for inputs, targets in batches(pictures(96, seed=1))[:3]:
        head.zero_grad()
        for number, (part, labels) in enumerate(zip(inputs.chunk(2), targets.chunk(2), strict=True)):
            if number:
                hook.further_part()
            (loss(head(part), labels) / 2).backward()
        hook.gradients()
        gradient = head.get_parameter("0.weight").grad
        assert gradient is not None
        whole.append(gradient.clone())
    hook.close()
    assert hook.state == "on", hook.reason
    read = trial(tmp_path)
    assert read.steps(modes.TRAIN) == [0, 1, 2]
    assert len(read.tensor_names(step=1, mode=modes.TRAIN, collection="relu_input")) == 1
    saved = read.tensor("gradient/Sequential_0.weight")
    for step, expected in enumerate(whole):  # of the whole batch
        np.testing.assert_allclose(saved.value(step, mode=modes.TRAIN), reductions.values(expected), rtol=1e-5)


def test_a_step_that_is_not_saved_has_no_hooks_in_the_network(tmp_path: Path) -> None:
    head, loss = network(8), nn.CrossEntropyLoss()
    hook = Hook(SageMakerPaths(tmp_path), SaveSchedule(100, 1, done=50), interval=7)
    hook.register(head, loss)
    hook.mode("train")
    inputs, targets = batches(pictures(BATCH, seed=1))[0]
    for step in range(50, 65):
        assert hook.saves() == (step in (56, 63))
        loss(head(inputs), targets)
        assert bool(head[1]._forward_pre_hooks) == (step in (56, 63)), step
    hook.close()
    assert trial(tmp_path).steps(modes.TRAIN) == [56, 63]


def test_close_leaves_nothing_on_the_network(tmp_path: Path) -> None:
    head, loss = network(8), nn.CrossEntropyLoss()
    hook = Hook(SageMakerPaths(tmp_path), SaveSchedule(10, 1))
    hook.register(head, loss)
    loss(head(torch.rand(4, *pictures(1, seed=1)[0].shape[1:])), torch.arange(4) % 2)
    assert head._forward_pre_hooks
    assert head[1]._forward_pre_hooks
    assert loss._forward_hooks
    hook.close()
    for module in (*head.modules(), loss):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    hook.close()


def test_the_cut_network_of_a_single_new_layer(tmp_path: Path) -> None:
    network = builder.build("resnet18", 4, weights="none", weights_file=None, freeze_until="backbone", image_size=32)
    assert trained(network.model) == "the last layer"
    hook = Hook(SageMakerPaths(tmp_path), SaveSchedule(3, 1))
    loss = nn.CrossEntropyLoss()
    hook.register(network.head, loss)
    hook.mode("train")
    for _ in range(3):
        features = [torch.rand(8, 512)]
        loss(network.head(*features), torch.arange(8) % 4).backward()
        hook.gradients()
    hook.close()
    names = trial(tmp_path).tensor_names(step=0, mode=modes.TRAIN)
    of_fc = ["GraphModule_fc.bias", "GraphModule_fc.weight"]
    assert [name for name in names if "fc" in name] == [*of_fc, *(f"gradient/{name}" for name in of_fc)]
    findings = judge(tmp_path)
    assert findings["dead_relu"].status == "not_applicable"
    assert "no ReLU" in findings["dead_relu"].reason
    assert findings["poor_weight_initialization"].status == "ok"
    assert "no two ReLUs" in findings["poor_weight_initialization"].reason


def test_frozen_layers_are_not_saved(tmp_path: Path) -> None:
    head = network(8, 8)
    head[0].requires_grad_(False)
    assert trained(head) == "2 of 3 layers"
    train(tmp_path, head, epochs=1)
    assert trial(tmp_path).tensor_names(collection="weights") == ["Sequential_2.weight", "Sequential_4.weight"]


def test_a_step_whose_loss_is_not_finite_is_saved_though_the_interval_would_pass_over_it(tmp_path: Path) -> None:
    head = network(8)

    def break_it(step: int) -> None:
        if step == 13:
            with torch.no_grad():
                head.state_dict()["0.weight"][3, 3] = float("nan")

    train(tmp_path, head, before=break_it, interval=7)
    read = trial(tmp_path)
    assert read.steps(modes.TRAIN) == [*range(10), 13]
    found = judge(tmp_path)["exploding_tensor"]
    assert found.first is not None
    assert found.last is not None
    assert (found.status, found.first.step) == ("fired", 13)
    assert {found.first.tensor, found.last.tensor} <= {"CrossEntropyLoss_output_0", "Sequential_0.weight"}


def test_a_resumed_job_counts_its_steps_on(tmp_path: Path) -> None:
    hook = Hook(SageMakerPaths(tmp_path), SaveSchedule(20, 4, done=40))
    train(tmp_path, network(8), hook=hook, epochs=2)
    read = trial(tmp_path)
    assert read.steps(modes.TRAIN) == list(range(40, 80))
    # What the rules go by: the training steps before an evaluation.
    assert {read.global_step(modes.EVAL, step) - step for step in read.steps(modes.EVAL)} == {60, 80}
    assert judge(tmp_path)["poor_weight_initialization"].status == "not_applicable"


def test_an_earlier_training_makes_room(tmp_path: Path) -> None:
    train(tmp_path, network(8), epochs=2)
    train(tmp_path, network(8), epochs=1)
    assert len(trial(tmp_path).steps(modes.TRAIN)) == 20


def test_other_files_are_left_alone_and_the_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = config.folder(SageMakerPaths(tmp_path))
    folder.mkdir(parents=True)
    (folder / "thesis.tex").touch()
    hook = train(tmp_path, network(8), epochs=1)
    assert hook.state == "failed"
    assert "thesis.tex" in hook.reason
    assert (folder / "thesis.tex").exists()
    assert "the training continues without it" in caplog.text


def test_what_fails_in_the_middle_ends_the_debugging_not_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    head = network(8)

    def spoil(step: int) -> None:
        if step == 7:
            (config.folder(SageMakerPaths(tmp_path)) / "events" / f"{7:012d}").write_text("in the way")

    hook = train(tmp_path, head, epochs=2, before=spoil)
    assert hook.state == "failed"
    assert "Error" in hook.reason
    assert caplog.text.count("continues without it") == 1
    assert trial(tmp_path).steps(modes.TRAIN) == list(range(7))
    assert hook.describe()["state"] == "failed"


@pytest.mark.parametrize("limit", ["BUDGET", "LEAST_FREE"])
def test_when_room_runs_out_only_losses_are_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, limit: str
) -> None:
    monkeypatch.setattr(recorder, limit, 400_000 if limit == "BUDGET" else 1 << 60)
    hook = train(tmp_path, network(32, 32), epochs=1)
    assert hook.state == "on"
    assert "only losses are saved" in hook.describe()["reason"]
    assert caplog.text.count("only losses are saved") == 1
    read = trial(tmp_path)
    assert read.tensor_names(step=19, mode=modes.TRAIN) == ["CrossEntropyLoss_output_0", "labels", "predictions"]
    assert len(read.tensor_names(step=0, mode=modes.TRAIN)) > 10


def service(folder: Path, **content: Any) -> None:
    tree = SageMakerPaths(folder)
    tree.config.mkdir(parents=True)
    (tree.config / config.FILE).write_text(json.dumps(content))


def test_the_services_configuration_says_where_and_how_often_tensors_are_saved(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    service(
        tmp_path,
        LocalPath=str(elsewhere),
        HookParameters={"train.save_interval": "12"},
        CollectionConfigurations=[
            {"CollectionName": "losses"},
            {"CollectionName": "gradients", "CollectionParameters": {"save_interval": "6"}},
        ],
    )
    hook = train(tmp_path, network(32, 32), epochs=1, interval=0)
    assert (hook.state, hook.reason, hook.interval) == ("on", "", 6)
    read = create_trial(str(elsewhere))
    assert read.steps(modes.TRAIN) == [*range(10), 12, 18]
    assert read.steps(modes.EVAL) == list(range(5))


def test_tensors_go_where_the_service_says(tmp_path: Path) -> None:
    service(tmp_path, LocalPath="/opt/ml/output/elsewhere")
    assert config.folder(SageMakerPaths(tmp_path)) == Path("/opt/ml/output/elsewhere")
    (SageMakerPaths(tmp_path).config / config.FILE).write_text("[]")
    assert config.folder(SageMakerPaths(tmp_path)) == tmp_path / "output" / "tensors"


def test_an_interval_that_is_no_number_is_a_reason(tmp_path: Path) -> None:
    service(tmp_path, HookParameters={"save_interval": "often"})
    hook = train(tmp_path, network(8), epochs=1, interval=0)
    assert hook.state == "failed"
    assert "debughookconfig.json: a save_interval is 'often': expected an integer from 1" in hook.reason


def test_smdebug_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train(tmp_path, network(8), epochs=1)
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
    assert [record.name for record in caplog.records] == ["container_train.debugger.hook"]
