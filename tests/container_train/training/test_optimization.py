"""Learning rates by layer and by step, and what of the weights decays."""

import copy
import math
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from container_train import command_line, hyperparameters
from container_train.model import builder
from container_train.training import optimization


def hp(words: str) -> hyperparameters.Hyperparameters:
    return command_line.parse(words.split())


def network(arch: str, until: str = "none") -> builder.Network:
    return builder.build(arch, 3, weights="none", weights_file=None, freeze_until=until, image_size=64)


def test_the_rates_of_a_resnet_halve_from_stage_to_stage() -> None:
    rates = optimization.learning_rates(network("resnet18"), hp("--recipe finetune"))
    expected = {"conv1": 32, "bn1": 32, "layer1": 16, "layer2": 8, "layer3": 4, "layer4": 2, "fc": 1}
    assert {name: rates[name] for name in rates} == {
        name: pytest.approx(0.0006 / expected[name.partition(".")[0]]) for name in rates
    }


@pytest.mark.parametrize(
    "arch", ["mobilenet_v3_small", "squeezenet1_1", "timm/convnext_atto", "timm/vit_tiny_patch16_224"]
)
def test_other_architectures_have_as_many_rates(arch: str) -> None:
    found = network(arch)
    rates = optimization.learning_rates(found, hp("--recipe finetune"))
    assert rates.keys() == {name for name, _ in found.model.named_parameters()}
    assert sorted(set(rates.values())) == pytest.approx([0.0006 * 0.5**depth for depth in (5, 4, 3, 2, 1, 0)])
    assert {name for name, rate in rates.items() if rate == 0.0006} == found.new_layer


def test_a_rate_of_the_backbone_takes_precedence() -> None:
    rates = optimization.learning_rates(network("resnet18"), hp("--lr 0.01 --backbone-lr 0.0001"))
    assert set(rates.values()) == {0.01, 0.0001}
    assert [name for name, rate in rates.items() if rate == 0.01] == ["fc.weight", "fc.bias"]


def test_by_default_one_group_has_the_rate_and_decay_of_the_hyperparameters() -> None:
    frozen = network("resnet18", "layer3")
    given = hp("--lr 0.01 --weight-decay 0.1 --optimizer adamw")
    (group,) = optimization.optimizer_for(frozen, given).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.1)
    assert {id(p) for p in group["params"]} == {id(p) for p in frozen.trainable()}


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("adam", torch.optim.Adam, {}),
        ("adamw", torch.optim.AdamW, {}),
        ("sgd", torch.optim.SGD, {"momentum": hyperparameters.Hyperparameters().momentum}),
    ],
)
def test_fused_steps_are_those_of_torch_without_fusing(name: str, kind: Any, options: dict[str, float]) -> None:
    """The last one is that of a training which resumes from a checkpoint that was made without fusing."""
    own, plain = network("resnet18", "layer3"), network("resnet18", "layer3")
    plain.model.load_state_dict(own.model.state_dict())
    optimizer = optimization.optimizer_for(own, hp(f"--optimizer {name} --lr 0.01 --weight-decay 0.1"))
    reference = kind(plain.trainable(), lr=0.01, weight_decay=0.1, fused=False, **options)
    assert all(group["fused"] for group in optimizer.param_groups)
    for step in range(4):
        for a, b in zip(own.trainable(), plain.trainable(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        optimizer.step()
        reference.step()
        for a, b in zip(own.trainable(), plain.trainable(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
        if step == 2:
            optimizer.load_state_dict(copy.deepcopy(reference.state_dict()))  # it would share the tensors


def test_norms_and_biases_do_not_decay_where_asked() -> None:
    groups = optimization.parameter_groups(network("resnet18", "layer3"), hp("--weight-decay 0.1 --norm-decay off"))
    assert {(group["weight_decay"], p.ndim > 1) for group in groups for p in group["params"]} == {
        (0.1, True), (0.0, False),
    }  # fmt: skip


def test_the_rate_rises_and_then_falls_along_a_cosine() -> None:
    at = optimization.factor(hp("--epochs 5 --warmup-epochs 1 --lr-schedule cosine"), 10)
    assert [at(step) for step in range(10)] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert (at(10), at(30), at(50), at(60)) == pytest.approx((1, 0.5, 0, 0))
    assert at(20) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_a_constant_rate_is_constant() -> None:
    at = optimization.factor(hp("--epochs 5"), 10)
    assert {at(step) for step in range(60)} == {1.0}


def test_a_schedule_sets_the_rate_of_every_group() -> None:
    given = hp("--epochs 2 --lr-schedule cosine --layer-decay 0.5 --lr 0.8")
    optimizer = optimization.optimizer_for(network("resnet18"), given)
    schedule = LambdaLR(optimizer, optimization.factor(given, 4))
    rates = sorted(group["lr"] for group in optimizer.param_groups)
    for _ in range(4):
        optimizer.step()
        schedule.step()
    assert sorted(group["lr"] for group in optimizer.param_groups) == pytest.approx([rate / 2 for rate in rates])
