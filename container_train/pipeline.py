"""The phases of a training job, top to bottom."""

import logging
import os
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from container_train import job, no_effect
from container_train.compute import device
from container_train.compute.precision import Precision
from container_train.compute.runtime import Runtime
from container_train.data import channels, dataset
from container_train.data.unreadable import check_share
from container_train.debugger.hook import trained
from container_train.distributed.process_group import ProcessGroup
from container_train.export import exporter, quantize
from container_train.hyperparameters import Hyperparameters
from container_train.model import batch_norm, builder
from container_train.monitoring.monitor import Monitor
from container_train.monitoring.phases import Phases
from container_train.paths import SageMakerPaths, replace_file
from container_train.reporting import training_report as reporting
from container_train.reporting.mistakes import Tested
from container_train.signals import StopFlag
from container_train.training import checkpoint, course, estimate, metrics
from container_train.training.course import TRAINED
from container_train.training.stages import stages_of

log = logging.getLogger("container_train")

RANDOM_BACKBONE = "NO IMAGENET WEIGHTS: the backbone is random, the accuracies say nothing about real training"


def train(hp: Hyperparameters, tree: SageMakerPaths, monitor: Monitor, group: ProcessGroup) -> None:
    """The job's phases, top to bottom."""
    stop = StopFlag().install()
    if hp.workers < 0:
        hp = replace(hp, workers=max(1, min(12, len(os.sched_getaffinity(0)) // group.local_size)))
    given = job.hyperparameters(tree, hp)
    log.info("hyperparameters: %s", " ".join(f"{key}={value}" for key, value in given.items()))
    for notice in no_effect.notices(hp):
        log.warning("%s", notice)
    where = device.choose(hp.device)
    monitor.note(
        device=str(where),
        gpus=[torch.cuda.get_device_name(0)] if where.type == "cuda" else [],
        versions={"python": sys.version.split()[0], "torch": torch.__version__},
    )
    phases = Phases(monitor, stop)
    if group.size > 1:
        with phases.run("processes"):
            group.start(where)
        log.info("processes: %d, %d a host; they share each batch of %d", group.size, group.local_size, hp.batch_size)
    with phases.run("data"):
        data = dataset.read(tree, group)
        images = {name: len(split) for name, split in data.splits.items()}
        if group.rank == 0:
            data.tell()
        log.info("data: %d classes, %s", len(data.classes), ", ".join(f"{n} {k}" for k, n in images.items()))
        counts = np.bincount(data.splits["train"].targets, minlength=len(data.classes)).tolist()
        monitor.note(
            classes=len(data.classes),
            images=images,
            class_counts=dict(zip(data.classes, counts, strict=True)),
            steps_per_epoch=-(-images["train"] // hp.batch_size),
        )
    runtime = Runtime(where, Precision.choose(hp.amp, where), stop, group)
    runtime.precision.prepare()
    stages = stages_of(hp)
    with phases.run("model"):
        network = builder.build(
            hp.arch, len(data.classes), weights=hp.weights, weights_file=channels.weights(tree),
            freeze_until=hp.freeze_until, resize_size=hp.resize_size, image_size=hp.image_size, seed=hp.seed,
            freeze_statistics=hp.batch_norm == "frozen",
        )  # fmt: skip
        batch_norm.check(network, hp.batch_size, images["train"], group, accumulate=hp.accumulate)
        monitor.describe(trained=trained(network.model), pretrained=network.weights != "none")
        some = hp.recipe == "finetune" and hp.freeze_until != "backbone"
        if where.type == "cpu" and (some or hp.freeze_until == "none"):
            log.info(estimate.words(network, hp, runtime.precision, images["train"] / group.size))
        if len(stages) > 1:
            network = builder.refrozen(network, stages[0].hp.freeze_until)
        network.to(where)
        group.broadcast_parameters(network.model)
    identity = {
        "data": data.fingerprint,
        "classes": list(data.classes),
        **hp.identity(),
        "frozen layers": checkpoint.frozen_digest(network.model),  # last: what differs before explains it better
    }
    resumed = group.broadcast_object(checkpoint.load(tree.checkpoints, identity) if group.rank == 0 else None)
    trainer = course.run(network, data, hp, runtime, tree, identity, phases, resumed)
    network = trainer.network
    group.shutdown()
    if group.rank:
        return  # what follows is work for one

    details = {
        "weights": network.weights,
        **({"warning": RANDOM_BACKBONE} if network.weights == "none" else {}),
        **({"stopped_by": f"rule {trainer.state.stopped_by}"} if trainer.state.stopped_by else {}),
        "hyperparameters": hp.to_dict(),
        "data": data.describe(),
        "best_epoch": trainer.state.best["epoch"],
        "training": {
            "job": os.environ.get("TRAINING_JOB_NAME", ""),
            "image": os.environ.get("BYOC_IMAGE", ""),
            "device": str(where),
            "torch": torch.__version__,
        },
    }
    summary: dict[str, Any] = {
        "test_accuracy": None,
        "valid_accuracy": trainer.state.best["accuracy"],
        "precision": None,
        "job": {**details["training"], "ended": round(time.time(), 3), "data": data.fingerprint},
        "classes": list(data.classes),
        "images": {name: data.unreadable.count(name) for name in images},
        "skipped": len(data.unreadable.files),
        "near_duplicates": [leak.to_dict() for leak in data.leaks],
        "weights": network.weights,
        "hyperparameters": hp.to_dict(),
        "best_epoch": trainer.state.best["epoch"],
        "epochs": trainer.state.history,
        "per_class": [],
        "calibration": None,
        "seconds": phases.seconds,
    }
    tested = None
    if hp.measure == "none":
        log.info("measure none: no model is exported; accuracies are those of the training")
    else:
        with phases.run("export", told=f"in export; {TRAINED}"):
            made = exporter.export(
                network.model, tree.model, arch=hp.arch, classes=data.classes, preprocessing=network.preprocessing,
                details=details,
            )  # fmt: skip
        with phases.run("evaluate", "measure", told=f"in evaluate; {TRAINED}"), exporter.withdrawn_on_error(tree.model):
            choice = quantize.choose(
                made, {name: data.unreadable.readable(name) for name in ("valid", "test")},
                precision=hp.precision, train=data.unreadable.readable("train"), seed=hp.seed,
            )  # fmt: skip
            bad = {**data.unreadable.files, **choice.bad}
            summary["images"] |= {name: len(split) for name, split in choice.splits.items()}
            check_share(bad, sum(summary["images"].values()) + len(bad))
            log.info(metrics.line("test_accuracy", choice.accuracy[choice.artifact.precision]["test"]))
        tested = Tested.of(choice, "test", network.model)
        summary |= {**tested.figures(choice), "skipped": len(bad)}
    judged = tested.split if tested else data.unreadable.readable("valid")
    accuracy = summary[f"{judged.name}_accuracy"]
    summary["chance"] = metrics.no_better_than_chance(accuracy, np.bincount(judged.targets).tolist())
    if summary["chance"]:
        log.warning("%s", summary["chance"])
    with phases.run("report", last=True):
        reporting.write(tree.output, summary, tested)
    reporting.write_metrics(tree.output, summary)
    if tested:
        matrix = reporting.matrix_csv(tested.confusion, data.classes)
        replace_file(tree.output / "confusion_matrix.csv", matrix.encode())
    log.info("seconds: %s", " ".join(f"{name}={value:.1f}" for name, value in phases.seconds.items()))
