"""The loss: smoothing and class weights in training, over parts of a batch as over all of it."""

import pytest
import torch
from torch.nn import functional

from container_train import command_line
from container_train.training.loss import divisors, loss_for

TARGETS = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 2])


def test_balanced_classes_count_alike() -> None:
    loss = loss_for(command_line.parse(["--class-weights", "balanced"]), TARGETS, 3)
    assert loss.weight is not None
    assert (torch.bincount(TARGETS) * loss.weight).tolist() == pytest.approx([3, 3, 3])
    assert loss_for(command_line.parse([]), TARGETS, 3).weight is None


def test_evaluation_is_the_plain_loss() -> None:
    words = ["--class-weights", "balanced", "--label-smoothing", "0.1"]
    loss = loss_for(command_line.parse(words), TARGETS, 3)
    logits = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    plain = functional.cross_entropy(logits, TARGETS)
    assert not torch.isclose(loss.train()(logits, TARGETS), plain)
    assert torch.equal(loss.eval()(logits, TARGETS), plain)


@pytest.mark.parametrize("weights", ["none", "balanced"])
@pytest.mark.parametrize("mixed", [False, True])
def test_parts_of_a_batch_add_up_to_all_of_it(weights: str, mixed: bool) -> None:
    loss = loss_for(command_line.parse(["--class-weights", weights, "--label-smoothing", "0.1"]), TARGETS, 3)
    logits = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    hard = functional.one_hot(TARGETS, 3).float()
    targets = 0.7 * hard + 0.3 * hard.roll(1, 0) if mixed else TARGETS
    (divisor,) = divisors(loss, TARGETS, 9)
    whole = float(loss(logits, targets) * loss.divisor(targets)) / divisor
    parts = zip(logits.split(4), targets.split(4), strict=True)
    assert sum(float(loss(x, y) * loss.divisor(y)) for x, y in parts) / divisor == pytest.approx(whole)
    if not mixed:
        assert whole == pytest.approx(float(loss(logits, targets)))  # torch's own mean


def test_the_divisors_of_an_epoch_are_those_of_its_batches() -> None:
    loss = loss_for(command_line.parse(["--class-weights", "balanced"]), TARGETS, 3)
    assert divisors(loss, TARGETS, 4) == pytest.approx([float(loss.divisor(part)) for part in TARGETS.split(4)])
    assert divisors(loss_for(command_line.parse([]), TARGETS, 3), TARGETS, 4) == [4, 4, 1]
