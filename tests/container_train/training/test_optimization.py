"""Learning rates by layer and by step, and what of the weights decays."""

import math

import pytest
import torch
import torchvision
from torch import nn

from container_train import hyperparameters
from container_train.model import builder
from container_train.training import optimization


def hp(words: str) -> hyperparameters.Hyperparameters:
    return hyperparameters.parse(words.split())


def meta(arch: str) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = torchvision.models.get_model(arch, weights=None)
    return model


def test_the_rates_of_a_resnet_halve_from_stage_to_stage() -> None:
    rates = optimization.learning_rates(meta("resnet50"), hp("--recipe finetune"))
    expected = {"conv1": 32, "bn1": 32, "layer1": 16, "layer2": 8, "layer3": 4, "layer4": 2, "fc": 1}
    assert {name: rates[name] for name in rates} == {
        name: pytest.approx(0.0006 / expected[name.partition(".")[0]]) for name in rates
    }


@pytest.mark.parametrize(
    ("arch", "count"),
    [("mobilenet_v3_small", 15), ("convnext_tiny", 9), ("vit_b_16", 16), ("swin_t", 9), ("densenet121", 9)],
)
def test_other_architectures_have_stages_in_their_order(arch: str, count: int) -> None:
    model = meta(arch)
    found = optimization.stages(model)
    assert [name for stage in found for name in stage] == [name for name, _ in model.named_parameters()]
    assert len(found) == count
    rates = optimization.learning_rates(model, hp("--recipe finetune"))
    by_stage = [rates[stage[0]] for stage in found]
    assert by_stage == sorted(by_stage)
    assert by_stage[0] == pytest.approx(by_stage[-1] * 0.5**5)  # however fine the stages are
    assert by_stage[-2] == pytest.approx(by_stage[-1] * 0.5)


def test_a_rate_of_the_backbone_takes_precedence() -> None:
    rates = optimization.learning_rates(meta("resnet18"), hp("--lr 0.01 --backbone-lr 0.0001"))
    assert set(rates.values()) == {0.01, 0.0001}
    assert [name for name, rate in rates.items() if rate == 0.01] == ["fc.weight", "fc.bias"]


def test_by_default_one_group_has_the_rate_and_decay_of_the_hyperparameters() -> None:
    network = builder.build("resnet18", 3, weights="none", weights_file=None, freeze_until="layer3", image_size=32)
    given = hp("--lr 0.01 --weight-decay 0.1 --optimizer adamw")
    (group,) = optimization.optimizer_for(network, given).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.1)
    assert {id(p) for p in group["params"]} == {id(p) for p in network.trainable()}


def test_norms_and_biases_do_not_decay_where_asked() -> None:
    network = builder.build("resnet18", 3, weights="none", weights_file=None, freeze_until="layer3", image_size=32)
    groups = optimization.parameter_groups(network.model, hp("--weight-decay 0.1 --norm-decay off"))
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
    network = builder.build("resnet18", 3, weights="none", weights_file=None, freeze_until="none", image_size=32)
    given = hp("--epochs 2 --lr-schedule cosine --layer-decay 0.5 --lr 0.8")
    optimizer = optimization.optimizer_for(network, given)
    schedule = optimization.schedule_for(optimizer, given, 4)
    rates = sorted(group["lr"] for group in optimizer.param_groups)
    for _ in range(4):
        optimizer.step()
        schedule.step()
    assert sorted(group["lr"] for group in optimizer.param_groups) == pytest.approx([rate / 2 for rate in rates])
