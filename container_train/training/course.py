"""The course of a training: its stages, each on a source of batches of its own, from one to the weights of the best."""

import logging
from dataclasses import replace
from typing import Any

from container_train.compute.runtime import Runtime
from container_train.data.dataset import Data
from container_train.features.location import Store
from container_train.features.sources import Source
from container_train.hyperparameters import Hyperparameters
from container_train.model import builder
from container_train.model.builder import Network
from container_train.monitoring.phases import Phases
from container_train.paths import SageMakerPaths
from container_train.training import checkpoint, engine
from container_train.training.stages import stages_of

log = logging.getLogger(__name__)

TRAINED = "the checkpoint holds the whole training"


def run(
    network: Network, data: Data, hp: Hyperparameters, runtime: Runtime, tree: SageMakerPaths,
    identity: dict[str, Any], phases: Phases, resumed: dict[str, Any] | None = None,
) -> engine.Trainer:  # fmt: skip
    """Train all stages, or those that a checkpoint leaves; return the last one's trainer. Raises Stopped.

    `network` is frozen as the first stage wants it, and on the device; the trainer's has the best weights.
    """
    stages, state, monitor = stages_of(hp), None, phases.monitor
    with checkpoint.fitting(tree.checkpoints):
        left, history = (stages[resumed["stage"] :], resumed["history"]) if resumed else (stages, [])
    for record in history:
        monitor.track(record)
    for stage in left:
        words = "after the frozen layers ran; nothing was trained since the last checkpoint"
        with phases.run("features", keeps=True, told=words):
            if len(stages) > 1:
                log.info("stage %d of %d: epochs %d to %d", stage.number + 1, len(stages), stage.first + 1, stage.end)
            if stage.number:
                network = builder.refrozen(network, stage.hp.freeze_until)
                network.to(runtime.device)
            log.info("model: %s", network)
            network = replace(network, head=runtime.group.sync_batch_norm(network.head, runtime.device))
            source = Source(data, network, stage.hp, runtime, Store.of(tree), stage.end)
            monitor.note(feature_cache=bool(source.cache), workers=source.workers)
        ended = f"after epoch {stage.end}, before stage {stage.number + 2} of {len(stages)}; the checkpoint holds it"
        with phases.run("train", keeps=True, told=f"after the last epoch; {TRAINED}" if stage.last else ended):
            trainer = engine.Trainer(source, tree.checkpoints, identity, resumed, monitor, stage, state)
            trainer.fit()
            state = trainer.state
    return trainer
