"""The course of a training: its stages, each on a source of batches of its own, from one to the weights of the best."""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
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


def run(
    network: Network, data: Data, hp: Hyperparameters, device: torch.device, precision: Precision, tree: SageMakerPaths,
    identity: dict[str, Any], stop: StopFlag, phase: Phase, monitor: Monitor = OFF, group: ProcessGroup = SINGLE,
    resumed: dict[str, Any] | None = None,
) -> engine.Trainer:  # fmt: skip
    """Train all stages, or those that a checkpoint leaves; return the last one's trainer. Raises Stopped.

    `network` is frozen as the first stage wants it, and on `device`; the trainer's has the best weights.
    """
    stages, state = stages_of(hp), None
    for record in resumed["history"] if resumed else ():
        monitor.track(record)
    for stage in stages[resumed["stage"] if resumed else 0 :]:
        words = "after the frozen layers ran; nothing was trained since the last checkpoint"
        with phase("features", keeps=True, told=words):
            if len(stages) > 1:
                log.info("stage %d of %d: epochs %d to %d", stage.number + 1, len(stages), stage.first + 1, stage.end)
            if stage.number:
                network = builder.refrozen(network, stage.hp.freeze_until)
                network.to(device)
            log.info("model: %s", network)
            network = replace(network, head=group.sync_batch_norm(network.head, device))
            store = Store.of(tree)
            source = Source(data, network, stage.hp, device, precision, stop, store, group, stage.end)
            monitor.note(feature_cache=bool(source.cache), workers=source.workers)
        ended = f"after epoch {stage.end}, before stage {stage.number + 2} of {len(stages)}; the checkpoint holds it"
        with phase("train", keeps=True, told=f"after the last epoch; {TRAINED}" if stage.last else ended):
            trainer = engine.Trainer(source, tree.checkpoints, identity, resumed, monitor, stage, state)
            trainer.fit()
            state = trainer.state
    return trainer
