"""Train an image classifier: `python -m container_train --epochs 10 --lr 0.001 ...` over an /opt/ml tree."""

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from container_serve.errors import ServeError
from container_serve.processes import die_with_parent
from container_train import channels, launch, pulse
from container_train.errors import PeerLost, Stopped, TrainError
from container_train.failure import reason
from container_train.layout import SCRATCH, Layout
from container_train.ranks import failure_file
from container_train.tree import Tree
from container_train.verdict import PEER_LOST, STOPPED

if TYPE_CHECKING:
    from container_train.distributed import World
    from container_train.hyperparameters import Hyperparameters
    from container_train.monitor import Monitor

# Rounds that torch's threads spin for while they wait for each other, before they sleep. libgomp's own 300,000 take the
# cores from whatever runs beside them, as decoding processes, trials and other hosts of the job on one machine do.
SPINS = "1000"
TRAINED = "the checkpoint holds the whole training"
RANDOM_BACKBONE = "NO IMAGENET WEIGHTS: the backbone is random, the accuracies say nothing about real training"


def writable(tree: Tree) -> None:
    """Raises TrainError now rather than after the training."""
    for folder in (tree.model, tree.output, tree.checkpoints):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise TrainError(
                f"{folder} cannot be written ({error.strerror}): the job's user needs a folder there with some space"
            ) from None


def run(arguments: list[str], tree: Tree) -> None:
    """The job. Raises TrainError, or Stopped when the platform asked for it."""
    # Imported here: a wrong hyperparameter is answered before seconds are spent on importing torch.
    from container_train import hyperparameters

    hp = hyperparameters.parse(arguments)
    channels.splits(tree)
    writable(tree)
    from container_train import monitor
    from container_train.distributed import World

    world = World.from_environment()
    # Only the first process writes: it is its host that is watched.
    with monitor.Monitor() if world.rank else monitor.Monitor.start(tree, hp) as watching:
        train(hp, tree, watching, world)


def train(hp: "Hyperparameters", tree: Tree, monitor: "Monitor", world: "World") -> None:
    """The job's phases, top to bottom."""
    from dataclasses import replace

    import numpy as np
    import torch

    from container_train import (
        batch_norm,
        checkpoint,
        data,
        device,
        engine,
        export,
        features,
        hyperparameters,
        metrics,
        model,
    )
    from container_train import quantize as quantization
    from container_train import report as reporting
    from container_train.debugger.hook import trained
    from container_train.known import Known
    from container_train.precision import Precision
    from container_train.signals import StopFlag
    from container_train.store import Store
    from container_train.tree import replace_file

    log = logging.getLogger("container_train")
    stop = StopFlag().install()
    given = hp.to_dict()
    if hp.workers < 0:
        hp = replace(hp, workers=max(1, min(12, len(os.sched_getaffinity(0)) // world.local_size)))
    log.info("hyperparameters: %s", " ".join(f"{key}={value}" for key, value in hp.to_dict().items()))
    where = device.choose(hp.device, device.probe())
    monitor.note(
        device=str(where),
        gpus=[torch.cuda.get_device_name(0)] if where.type == "cuda" else [],
        versions={"python": sys.version.split()[0], "torch": torch.__version__},
    )
    seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(name: str, shown: str = "", *, told: str = "", keeps: bool = False, last: bool = False) -> Iterator[None]:
        """A stop ends it at once, and says `told`.

        One that `keeps` what it has done looks for a stop by itself, and `told` is said at its end. After the `last`
        one the job is done: a stop changes nothing any more.
        """
        started, words = time.monotonic(), told or f"in {name}; nothing is lost but that phase"
        with monitor.phase(shown or name), contextlib.nullcontext() if keeps or last else stop.at_once(words):
            yield
        seconds[name] = round(time.monotonic() - started, 3)
        if stop.asked and not last:
            raise Stopped(words)

    if world.size > 1:
        with phase("processes"):
            world.start(where)
            _same_hyperparameters(world.gather(json.dumps(given)))
        log.info("processes: %d, %d a host; they share each batch of %d", world.size, world.local_size, hp.batch_size)
    with phase("data"):
        if world.local_rank:
            world.meet()  # the first of each host checks the pictures for all of them
        known = Known.of_search(world.scratch)
        pictures = data.read(tree, known=known)
        known.save()
        if not world.local_rank:
            world.meet()
        _same_pictures(world.gather(pictures.fingerprint))
        images = {name: len(split) for name, split in pictures.splits.items()}
        if world.rank == 0:
            pictures.tell()
        log.info("data: %d classes, %s", len(pictures.classes), ", ".join(f"{n} {k}" for k, n in images.items()))
        counts = np.bincount(data.targets(pictures.splits["train"]), minlength=len(pictures.classes)).tolist()
        monitor.note(
            classes=len(pictures.classes),
            images=images,
            class_counts=dict(zip(pictures.classes, counts, strict=True)),
            steps_per_epoch=-(-images["train"] // hp.batch_size),
        )
    with phase("model"):
        network = model.build(
            hp.arch, len(pictures.classes), weights=hp.weights, weights_file=channels.weights(tree),
            freeze_until=hp.freeze_until, resize_size=hp.resize_size, image_size=hp.image_size, seed=hp.seed,
        )  # fmt: skip
        batch_norm.check(network, hp.batch_size, images["train"], world)
        network.to(where)
        world.same(network.model)
        network = replace(network, rest=world.synced(network.rest, where))
        monitor.describe(trained=trained(network.model), pretrained=network.weights != "none")
    precision = Precision.choose(hp.amp, where)
    precision.prepare()
    identity = {
        "data": pictures.fingerprint,
        "classes": list(pictures.classes),
        **{k: v for k, v in hp.to_dict().items() if k not in hyperparameters.INCIDENTAL},
        "frozen layers": checkpoint.frozen_digest(network.model),  # last: what differs before explains it better
    }
    resumed = world.from_first(checkpoint.load(tree.checkpoints, identity, engine.KEYS) if world.rank == 0 else None)
    with phase(
        "features", keeps=True, told="after the frozen layers ran; nothing was trained since the last checkpoint"
    ):
        source = features.Source(pictures, network, hp, where, precision, stop, Store.of(tree), world)
        monitor.note(feature_cache=bool(source.cache), workers=source.workers)
    with phase("train", keeps=True, told=f"after the last epoch; {TRAINED}"):
        trainer = engine.Trainer(
            network, source, hp, precision, tree.checkpoints, identity, stop, resumed, monitor, world
        )
        history = trainer.fit()
        _same_weights(world.gather(checkpoint.digest(network.model)))
        world.leave()
    if world.rank:
        return  # what follows is work for one

    details = {
        "weights": network.weights,
        **({"warning": RANDOM_BACKBONE} if network.weights == "none" else {}),
        **({"stopped_by": f"rule {trainer.state.stopped_by}"} if trainer.state.stopped_by else {}),
        "hyperparameters": hp.to_dict(),
        "data": pictures.describe(),
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
        "classes": list(pictures.classes),
        "images": images,
        "skipped": len(pictures.bad),
        "near_duplicates": [leak.to_dict() for leak in pictures.leaks],
        "weights": network.weights,
        "hyperparameters": hp.to_dict(),
        "best_epoch": trainer.state.best["epoch"],
        "epochs": history,
        "per_class": [],
        "seconds": seconds,
    }
    if hp.measure == "none":
        log.info("measure none: no model is exported; accuracies are those of the training")
        with phase("report", last=True):
            reporting.write(tree.output, summary)
        reporting.write_metrics(tree.output, summary)
        return
    with phase("export", told=f"in export; {TRAINED}"):
        made = export.export(
            network.model, tree.model, arch=hp.arch, classes=pictures.classes, preprocessing=network.preprocessing,
            details=details,
        )  # fmt: skip
    with phase("evaluate", "measure", told=f"in evaluate; {TRAINED}"), export.withdrawn_on_error(tree.model):
        choice = quantization.choose(
            made, {name: pictures.splits[name] for name in ("valid", "test")},
            precision=hp.precision, train=pictures.splits["train"], seed=hp.seed,
        )  # fmt: skip
        made, served = choice.artifact, choice.served
        accuracies = choice.accuracy[made.precision]
        log.info(metrics.line("test_accuracy", accuracies["test"]))
    true, test = data.targets(pictures.splits["test"]), served["test"]
    matrix = metrics.confusion_matrix(true, test.argmax(1), len(pictures.classes))
    summary |= {
        "test_accuracy": accuracies["test"],
        "valid_accuracy": accuracies["valid"],
        "precision": made.precision,
        "accuracy": choice.accuracy,
        "quantization": made.document["quantization"],
        "per_class": metrics.per_class(matrix, pictures.classes),
    }
    with phase("report", last=True):
        reporting.write(tree.output, summary, reporting.Tested(matrix, pictures.splits["test"], np.asarray(test)))
    reporting.write_metrics(tree.output, summary)
    replace_file(tree.output / "confusion_matrix.csv", reporting.matrix_csv(matrix, pictures.classes).encode())
    log.info("seconds: %s", " ".join(f"{name}={value:.1f}" for name, value in seconds.items()))


def _same_hyperparameters(given: list[str]) -> None:
    """By rank, as JSON: processes that do not agree would wait for each other for ever."""
    first: dict[str, Any] = json.loads(given[0])
    for rank, text in enumerate(given):
        for name, value in json.loads(text).items():
            if value != first[name]:
                raise TrainError(
                    f"hyperparameter {name} has value {value!r} in process {rank} of {len(given)} and {first[name]!r}"
                    " in the first: give every host the same hyperparameters"
                )


def _same_pictures(fingerprints: list[str]) -> None:
    """By rank."""
    other = [rank for rank, fingerprint in enumerate(fingerprints) if fingerprint != fingerprints[0]]
    if other:
        raise TrainError(
            f"process {other[0]} of {len(fingerprints)} has other pictures than the first: every host needs all of"
            " them, give the channels the distribution type FullyReplicated"
        )


def _same_weights(digests: list[str]) -> None:
    if len(set(digests)) > 1:
        raise TrainError(
            f"the {len(digests)} processes have trained different weights: this is an error of the program"
        )


def main() -> int:
    # Whatever ends what has started this program ends it, too. By hand it may well outlive the shell.
    if SCRATCH in os.environ or os.environ.get("SAGEMAKER_PROGRAM") == __file__:
        die_with_parent(os.getppid())
    if "OMP_WAIT_POLICY" not in os.environ:  # read when torch is loaded, later than this
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    # The hyperparameter sagemaker_container_log_level. Never above INFO: the platform reads the metrics from the log.
    asked = os.environ.get("SM_LOG_LEVEL", "")
    level = min(int(asked), logging.INFO) if asked.isdecimal() else logging.INFO
    if not (number := os.environ.get("RANK", "0")).isdecimal():
        sys.exit(f"error: the environment variable RANK has value {number!r}: expected a number; unset it")
    rank = int(number)
    if rank:  # the first process speaks for all, but where something is wrong
        level = logging.WARNING
    logging.basicConfig(
        level=level, stream=sys.stdout, format=f"[{rank}] %(message)s" if rank else "%(message)s", force=True
    )
    logging.captureWarnings(True)
    tree = Tree.from_environment()
    layout = Layout.of(tree, sys.argv[1:])
    if "RANK" not in os.environ and layout.size > 1:
        return launch.run(layout, sys.argv[1:], tree)
    scratch = os.environ.get(SCRATCH)
    if scratch:
        pulse.start(pulse.path(Path(scratch), rank))

    def fail(message: str, detail: str = "") -> None:
        """To the failure file, or to who started this process as one of several."""
        with contextlib.suppress(OSError):  # a full disk: the line stands in the log
            if scratch:
                failure_file(Path(scratch), rank).write_text(message)
            else:
                tree.write_failure(message, detail)

    try:
        run(sys.argv[1:], tree)
        return 0
    except (TrainError, ServeError) as error:
        print(f"error: {error}", file=sys.stderr)
        fail(str(error))
        return 1
    except PeerLost as error:
        fail(str(error))
        return PEER_LOST
    except Stopped as stopped:
        if not rank:
            print(f"stopped {stopped}", file=sys.stderr)
        fail(f"stopped {stopped}")
        return STOPPED
    except Exception as error:
        trace, message = traceback.format_exc(), reason(error)
        if message.startswith(type(error).__name__):  # nobody foresaw it
            print(trace, file=sys.stderr)
        print(f"error: {message}", file=sys.stderr)
        fail(message, trace)
        return 1


if __name__ == "__main__":
    code = main()
    # Python gives up its handlers some time before the process is gone: a wish to stop that comes in between must not
    # turn the end of a job that is done, or that has stopped and told what it saved, into a death by SIGTERM.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)
