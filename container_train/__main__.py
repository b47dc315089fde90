"""Train an image classifier: `python -m container_train --epochs 10 --lr 0.001 ...` over an /opt/ml tree."""

import contextlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from container_serve.errors import ServeError
from container_train.errors import Stopped, TrainError
from container_train.tree import Tree

if TYPE_CHECKING:
    from container_train.hyperparameters import Hyperparameters
    from container_train.monitor import Monitor

STOPPED = 143  # 128 + SIGTERM, as a shell would say it
RANDOM_BACKBONE = "NO IMAGENET WEIGHTS: the backbone is random, the accuracies say nothing about real training"


def weights_file(tree: Tree) -> Path | None:
    """The one file of the channel `weights`, where the job has that channel."""
    folder = tree.channels / "weights"
    if not folder.is_dir():
        return None
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    if len(files) != 1:
        names = ", ".join(p.name for p in files[:5]) or "none"
        raise TrainError(f"channel weights: {folder} holds {len(files)} files ({names}); expected one state_dict file")
    return files[0]


def run(arguments: list[str], tree: Tree) -> None:
    """The job. Raises TrainError, or Stopped when the platform asked for it."""
    # Imported here: a wrong hyperparameter is answered before seconds are spent on importing torch.
    from container_train import hyperparameters, monitor

    hp = hyperparameters.parse(arguments)
    with monitor.Monitor.start(tree, hp) as watching:
        train(hp, tree, watching)


def train(hp: "Hyperparameters", tree: Tree, monitor: "Monitor") -> None:
    """The job's phases, top to bottom."""
    from dataclasses import replace

    import numpy as np
    import torch

    from container_train import checkpoint, data, device, engine, export, features, hyperparameters, metrics, model
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
    if hp.workers < 0:
        hp = replace(hp, workers=min(8, len(os.sched_getaffinity(0))))
    log.info("hyperparameters: %s", " ".join(f"{key}={value}" for key, value in hp.to_dict().items()))
    where = device.choose(hp.device, device.probe())
    monitor.note(
        device=str(where),
        gpus=[torch.cuda.get_device_name(0)] if where.type == "cuda" else [],
        versions={"python": sys.version.split()[0], "torch": torch.__version__},
    )
    seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(name: str, shown: str = "") -> Iterator[None]:
        started = time.monotonic()
        with monitor.phase(shown or name):
            yield
        seconds[name] = round(time.monotonic() - started, 3)
        if stop.asked:
            raise Stopped(f"after {name}; nothing is lost but that phase")

    with phase("data"):
        known = Known.of_search()
        pictures = data.read(tree, known=known)
        known.save()
        images = {name: len(split) for name, split in pictures.splits.items()}
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
            hp.arch, len(pictures.classes), weights=hp.weights, weights_file=weights_file(tree),
            freeze_until=hp.freeze_until, resize_size=hp.resize_size, image_size=hp.image_size, seed=hp.seed,
        )  # fmt: skip
        network.to(where)
        monitor.describe(trained=trained(network.model), pretrained=network.weights != "none")
    precision = Precision.choose(hp.amp, where)
    identity = {
        "data": pictures.fingerprint,
        "classes": list(pictures.classes),
        "frozen layers": checkpoint.frozen_digest(network.model),
        **{k: v for k, v in hp.to_dict().items() if k not in hyperparameters.INCIDENTAL},
    }
    resumed = checkpoint.load(tree.checkpoints, identity)
    with phase("features"):
        source = features.Source(pictures, network, hp, where, precision, stop, Store.of(tree))
        monitor.note(feature_cache=bool(source.cache), workers=source.workers)
    with phase("train"):
        trainer = engine.Trainer(network, source, hp, precision, tree.checkpoints, identity, stop, resumed, monitor)
        history = trainer.fit()

    details = {
        "weights": network.weights,
        **({"warning": RANDOM_BACKBONE} if network.weights == "none" else {}),
        **({"stopped_by": f"rule {trainer.stopped_by}"} if trainer.stopped_by else {}),
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
        "weights": network.weights,
        "hyperparameters": hp.to_dict(),
        "best_epoch": trainer.state.best["epoch"],
        "epochs": history,
        "per_class": [],
        "seconds": seconds,
    }
    if hp.measure == "none":
        log.info("measure none: no model is exported; accuracies are those of the training")
        with phase("report"):
            reporting.write(tree.output, summary)
        reporting.write_metrics(tree.output, summary)
        return
    with phase("export"):
        made = export.export(
            network.model, tree.model, arch=hp.arch, classes=pictures.classes, preprocessing=network.preprocessing,
            details=details,
        )  # fmt: skip
    with phase("evaluate", "measure"):
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
    with phase("report"):
        reporting.write(tree.output, summary, reporting.Tested(matrix, pictures.splits["test"], np.asarray(test)))
    reporting.write_metrics(tree.output, summary)
    replace_file(tree.output / "confusion_matrix.csv", reporting.matrix_csv(matrix, pictures.classes).encode())
    log.info("seconds: %s", " ".join(f"{name}={value:.1f}" for name, value in seconds.items()))


def main() -> int:
    # The hyperparameter sagemaker_container_log_level. Never above INFO: the platform reads the metrics from the log.
    asked = os.environ.get("SM_LOG_LEVEL", "")
    level = min(int(asked), logging.INFO) if asked.isdigit() else logging.INFO
    logging.basicConfig(level=level, stream=sys.stdout, format="%(message)s", force=True)
    logging.captureWarnings(True)
    tree = Tree.from_environment()
    try:
        run(sys.argv[1:], tree)
        return 0
    except (TrainError, ServeError) as error:
        print(f"error: {error}", file=sys.stderr)
        tree.write_failure(str(error))
        return 1
    except Stopped as stopped:
        print(f"stopped {stopped}", file=sys.stderr)
        tree.write_failure(f"stopped {stopped}")
        return STOPPED
    except Exception as error:
        trace = traceback.format_exc()
        print(trace, file=sys.stderr)
        message = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
        print(f"error: {message.splitlines()[0]}", file=sys.stderr)
        tree.write_failure(message.splitlines()[0], trace)
        return 1


if __name__ == "__main__":
    sys.exit(main())
