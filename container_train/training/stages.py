"""The stages of a training: the new layer alone on cached features, then all that is to be trained."""

import logging
from dataclasses import dataclass, replace

from container_train.hyperparameters import Hyperparameters

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """A stage with hyperparameters of its own; it begins with epoch `first`, counted from 0 through all stages."""

    number: int
    hp: Hyperparameters
    first: int = 0
    last: bool = True

    @property
    def end(self) -> int:
        """The epoch after its last one."""
        return self.first + self.hp.epochs

    @property
    def rate(self) -> str:
        """The hyperparameter that is its learning rate."""
        return "lr" if self.last else "head-lr"


def settled(hp: Hyperparameters) -> Hyperparameters:
    """Return the hyperparameters without a first stage that trains what the second does. Logs what comes of them."""
    if hp.freeze_until != "backbone" or not hp.head_epochs:
        return hp
    log.info("head-epochs 0 instead of %d: with freeze-until backbone the new layer is trained alone", hp.head_epochs)
    return replace(hp, head_epochs=0)


def stages_of(hp: Hyperparameters) -> list[Stage]:
    """Return the stages in order: one, or two with `head-epochs`."""
    if not hp.head_epochs:
        return [Stage(0, hp)]
    # A single layer on plain features: no rates by layer, no views, no average. MixUp of features is free.
    head = replace(
        hp, epochs=hp.head_epochs, lr=hp.head_lr, freeze_until="backbone",
        warmup_epochs=min(hp.warmup_epochs, hp.head_epochs / 4),
        augment="none", random_erasing=0.0, cutmix=0.0, ema=0.0, accumulate=1,
    )  # fmt: skip
    return [Stage(0, head, last=False), Stage(1, hp, first=hp.head_epochs)]
