"""MixUp and CutMix: what is mixed with what, alike in all processes that share a batch."""

import pytest
import torch

from container_train import command_line
from container_train.distributed.process_group import ProcessGroup
from container_train.training.mixing import Mixing

CLASSES = 5


def mixing(words: str) -> Mixing:
    return Mixing(command_line.parse(words.split()), CLASSES)


def batch(count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 16, 16, generator=generator), torch.arange(count) % CLASSES


def test_nothing_is_mixed_by_default() -> None:
    assert not mixing("")


def test_mixup_blends_each_image_with_the_one_before_it_as_their_labels() -> None:
    images, targets = batch()
    for step in range(4):
        (mixed,), labels = mixing("--mixup 0.5")((images,), targets, 1, step)
        share = float(labels[1, targets[1]])
        assert 0 < share < 1
        assert torch.allclose(mixed, share * images + (1 - share) * images.roll(1, 0), atol=1e-6)
        assert torch.allclose(labels.sum(1), torch.ones(8))
        assert type(mixed) is torch.Tensor


def test_cutmix_pastes_a_part_whose_area_is_its_share_of_the_label() -> None:
    images, targets = batch()
    for step in range(4):
        (mixed,), labels = mixing("--freeze-until none --cutmix 1")((images,), targets, 1, step)
        own = (mixed == images).all(1)
        assert torch.equal(own | (mixed == images.roll(1, 0)).all(1), torch.ones_like(own))
        assert float(own[1].float().mean()) == pytest.approx(float(labels[1, targets[1]]), abs=1e-6)


def test_both_take_turns_at_random() -> None:
    images, targets = batch()
    both = mixing("--freeze-until none --cutmix 1 --mixup 1")
    kept = [bool((both((images,), targets, 0, step)[0][0] == images).any()) for step in range(12)]
    assert set(kept) == {True, False}  # MixUp leaves no pixel as it was


def test_features_of_any_shape_are_mixed_and_keep_it() -> None:
    targets = batch()[1]
    features = torch.rand(8, 6), torch.rand(8, 4, 3)
    mixed, labels = mixing("--mixup 0.5")(features, targets, 0, 1)
    share = float(labels[1, targets[1]])
    for new, old in zip(mixed, features, strict=True):
        assert torch.allclose(new, share * old + (1 - share) * old.roll(1, 0), atol=1e-6)


def test_what_is_drawn_depends_on_seed_epoch_and_step_alone() -> None:
    images, targets = batch()
    first = mixing("--mixup 0.5")((images,), targets, 2, 3)[1]
    state = torch.get_rng_state()
    assert torch.equal(mixing("--mixup 0.5")((images,), targets, 2, 3)[1], first)
    assert torch.equal(torch.get_rng_state(), state)  # dropout sees the same numbers with it and without
    for words, epoch, step in (("--seed 1 --mixup 0.5", 2, 3), ("--mixup 0.5", 1, 3), ("--mixup 0.5", 2, 4)):
        assert not torch.equal(mixing(words)((images,), targets, epoch, step)[1], first)


@pytest.mark.parametrize("count", [7, 2, 1])
@pytest.mark.parametrize("words", ["--mixup 0.5", "--freeze-until none --cutmix 1"])
def test_processes_mix_the_pairs_of_the_whole_batch(words: str, count: int) -> None:
    images, targets = batch(count)
    whole, labels = mixing(words)((images,), targets, 0, 5)
    parts, part_labels = [], []
    for rank in range(3):
        rows = ProcessGroup(rank, 3).shard(torch.arange(count), mixes=True)
        if len(rows):
            (mixed,), own = mixing(words)((images[rows],), targets[rows], 0, 5)
            parts.append(mixed[1:])
            part_labels.append(own[1:])
    assert torch.allclose(torch.cat(parts), whole[0])
    assert torch.allclose(torch.cat(part_labels), labels)
