"""The course of a training: its stages, each on a source of batches of its own, from one to the weights of the best."""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from container_train.data.dataset import Data
from container_train.distributed.process_group import SINGLE, ProcessGroup
from container_train.features.location import Store
from container_train.features.sources import Source
from container_train.hyperparameters import Hyperparameters
from container_train.model import builder
from container_train.model.builder import Network
from container_train.monitoring.monitor import OFF, Monitor
from container_train.paths import SageMakerPaths
from container_train.signals import StopFlag
from container_train.training import engine
from container_train.training.precision import Precision
from container_train.training.stages import stages_of

log = logging.getLogger(__name__)

TRAINED = "the checkpoint holds the whole training"

Phase = Callable[..., contextlib.AbstractContextManager[None]]


def silently(_name: str, **_words: Any) -> contextlib.AbstractContextManager[None]:
    """A phase of which nothing is told."""
    return contextlib.nullcontext()


@dataclass
class Course:
    """Trains `network`, which is frozen as the first stage wants it and on `device`; leaves the best weights in it."""

    network: Network
    data: Data
    hp: Hyperparameters
    device: torch.device
    precision: Precision
    tree: SageMakerPaths
    identity: dict[str, Any]
    stop: StopFlag
    monitor: Monitor = OFF
    group: ProcessGroup = SINGLE

    def run(self, resumed: dict[str, Any] | None = None, phase: Phase = silently) -> engine.Trainer:
        """Train all stages, or those that a checkpoint leaves; return the last one's trainer. Raises Stopped."""
        stages, state = stages_of(self.hp), None
        for record in resumed["history"] if resumed else ():
            self.monitor.track(record)
        for stage in stages[resumed["stage"] if resumed else 0 :]:
            words = "after the frozen layers ran; nothing was trained since the last checkpoint"
            with phase("features", keeps=True, told=words):
                if len(stages) > 1:
                    log.info(
                        "stage %d of %d: epochs %d to %d", stage.number + 1, len(stages), stage.first + 1, stage.end
                    )
                if stage.number:
                    self._freeze(stage.hp.freeze_until)
                log.info("model: %s", self.network)
                head = self.group.sync_batch_norm(self.network.head, self.device)
                self.network = replace(self.network, head=head)
                source = Source(
                    self.data, self.network, stage.hp, self.device, self.precision, self.stop, Store.of(self.tree),
                    self.group, stage.end,
                )  # fmt: skip
                self.monitor.note(feature_cache=bool(source.cache), workers=source.workers)
            ended = (
                f"after epoch {stage.end}, before stage {stage.number + 2} of {len(stages)}; the checkpoint holds it"
            )
            with phase("train", keeps=True, told=f"after the last epoch; {TRAINED}" if stage.last else ended):
                trainer = engine.Trainer(
                    self.network, source, stage.hp, self.precision, self.tree.checkpoints, self.identity, self.stop,
                    resumed, self.monitor, self.group, stage, state,
                )  # fmt: skip
                trainer.fit()
                state = trainer.state
        return trainer

    def _freeze(self, until: str) -> None:
        self.network = builder.refrozen(self.network, until)
        self.network.to(self.device)
