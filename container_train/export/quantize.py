"""int8: the exported graph quantised on training images by NNCF, and served if it is as accurate as fp32.

The validation accuracy through the serving code decides. int8 has to prove itself: the images of which it loses the
right answer may be at most MAX_DROP more than those of which it gains it, and a paired test has to exclude that it
loses more than MAX_LOSS: the upper end of the one-sided 95 % interval of the drop, by McNemar's standard error of the
difference of two classifiers on the same images. With fewer than FEWEST_TO_DECIDE images no result could exclude that
(no difference on 150 images allows for a true one of 2 %): fp32 is served, and nothing is quantised. The test images
take no part in it, so that the accuracy on them stays unbiased.
"""

import contextlib
import ctypes
import io
import logging
import random
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from container_serve import artifact, scratch
from container_serve.artifact import Artifact
from container_serve.errors import RequestError
from container_serve.predictor import core, load_openvino
from container_serve.preprocess import Preprocessing, preprocess
from container_train.data import dataset
from container_train.data.files import Split, why
from container_train.data.unreadable import check_share
from container_train.errors import TrainError
from container_train.export import evaluation, exporter
from container_train.export.evaluation import Answers
from container_train.paths import replace_file
from container_train.progress import track
from container_train.training import metrics

log = logging.getLogger(__name__)

IMAGES = 300  # that the ranges of activations are taken from
# Of small data a quarter is as good (each image costs two forward passes), but hardly fewer than this.
FEWEST = 60
MAX_DROP = 0.005  # of the validation accuracy as counted, a share of the images
MAX_LOSS = 0.02  # of the accuracy, which the paired test has to exclude
Z = 1.644854  # of a normal distribution 95 % lies below so many standard deviations
FEWEST_TO_DECIDE = 200  # validation images


@dataclass(frozen=True)
class Choice:
    """The graph to be served: the artifact in its folder, and its answers to the images of each split.

    `splits` has the images that were evaluated, and `bad` names those that could not be read, with the reason.
    """

    artifact: Artifact
    served: Mapping[str, Answers]
    accuracy: Mapping[str, Mapping[str, float]]  # by precision and split, a share of the images
    splits: Mapping[str, Split]
    bad: Mapping[str, str]


def calibration(split: Split, seed: int) -> Split:
    """Return some images of `split`, equally many of each class as far as there are, drawn by `seed`."""
    wanted = min(IMAGES, max(FEWEST, len(split) // 4), len(split))
    drawn = np.array(random.Random(f"calibration {seed}").sample(range(len(split)), len(split)), dtype=np.int64)
    # The first image of each class comes before the second of any.
    drawn = drawn[np.argsort(split.turns(drawn), kind="stable")]
    return split.subset(split.name, drawn[:wanted])


def choose(
    exported: Artifact,
    splits: Mapping[str, Split],
    *,
    precision: str,
    train: Split | None,
    seed: int = 0,
) -> Choice:
    """Evaluate the exported fp32 graph on `splits`, and int8 beside it, made from images of `train`; keep one of them.

    `precision` is auto (int8 if it is as accurate, see above), fp32, or int8 (in any case, with a warning). All
    figures, and why that graph is served, go into model.json. Raises TrainError.
    """
    graphs, served = {"fp32": exported}, "fp32"
    notes: dict[str, Any] = {"reason": _why_not(precision, train, len(splits["valid"]))}
    with scratch.folder("byoc-int8-") as folder:
        if train is not None and not notes["reason"]:
            images = calibration(train, seed)
            used = {"images": len(images), "split": train.name, "seed": seed}
            notes = {"calibration": used, "max_drop": MAX_DROP}
            try:
                graphs["int8"] = _quantize(exported, folder, images)
            except TrainError:
                raise
            except Exception as error:  # NNCF's, for an architecture that it cannot handle
                words = " ".join(str(error).split())[:200]
                notes["reason"] = f"the graph cannot be quantised ({type(error).__name__}: {words})"
                if precision == "int8":
                    raise TrainError(
                        f"hyperparameter precision has value 'int8', but {notes['reason']}; say auto or fp32"
                    ) from None
                log.warning("int8: %s", notes["reason"])
        answers: dict[str, dict[str, Answers]] = {kind: {} for kind in graphs}
        bad: dict[str, str] = {}
        read: dict[str, Split] = {}
        for name, split in splits.items():
            evaluated = evaluation.evaluate(list(graphs.values()), split)
            read[name] = evaluated.split
            bad |= evaluated.bad
            for kind, row in zip(graphs, evaluated.answers, strict=True):
                answers[kind][name] = row
        splits, valid = read, read["valid"]
        if "int8" in graphs:
            too_few = _why_not(precision, train, len(valid))  # some may not have been readable
            compared = _compare(valid, answers["fp32"]["valid"], answers["int8"]["valid"])
            notes |= compared
            bound = compared["drop"] + Z * compared["standard_error"]
            notes["reason"] = too_few or (
                f"int8 is {0 - 100 * compared['drop']:+.2f} points from fp32 on {len(valid)} validation images,"
                f" at worst {0 - 100 * bound:+.2f} (paired test, 95 %); {-100 * MAX_DROP:+.1f} and"
                f" {-100 * MAX_LOSS:+.1f} are allowed"
            )
            enough = not too_few and compared["drop"] <= MAX_DROP and bound <= MAX_LOSS
            if not enough and precision == "int8":
                log.warning("%s, but it was asked for", notes["reason"])
                notes["reason"] += ", but it was asked for"
            if enough or precision == "int8":
                served = "int8"
                exporter.withdraw(exported.directory)
                for name in (artifact.GRAPH_WEIGHTS, artifact.GRAPH):
                    replace_file(exported.directory / name, (graphs["int8"].directory / name).read_bytes())
    for name, row in answers[served].items():
        if odd := int((~row.finite).sum()):
            raise TrainError(
                f"the exported model's answers ({served}) to {odd} of {len(row)} images of {name} are not numbers:"
                f" lower lr{', or use precision fp32' if served != 'fp32' else ''}"
            )
    accuracy = {
        kind: {name: rows[name].accuracy(split.targets) for name, split in splits.items()}
        for kind, rows in answers.items()
    }
    sizes = {name: len(split) for name, split in splits.items()}
    for kind, shares in accuracy.items():
        said = [f"{name} {metrics.with_interval(share, sizes[name])}" for name, share in shares.items()]
        log.info("%s: %s", kind, ", ".join(said))
    log.info("served: %s, %s", served, notes["reason"])
    interval = {
        kind: {name: metrics.interval(share, sizes[name]) for name, share in shares.items()}
        for kind, shares in accuracy.items()
    }
    details = {**exported.details, "accuracy": accuracy, "accuracy_interval": interval, "quantization": notes}
    if bad and "data" in details:
        details["data"] = dataset.with_skipped(details["data"], bad, sizes)
    made = _write(replace(exported, precision=served), exported.directory, details)
    return Choice(made, answers[served], accuracy, splits, bad)


def _why_not(precision: str, train: Split | None, images: int) -> str:
    """Return why int8 is not tried, empty if it is; `images` of validation."""
    if precision == "fp32":
        return "asked for"
    if train is None:
        return "there are no images to calibrate with"
    if precision == "int8" or images >= FEWEST_TO_DECIDE:
        return ""
    return (
        f"{images} validation images are too few to tell whether int8 is as accurate ({FEWEST_TO_DECIDE} are needed);"
        " with precision int8 it would be served all the same"
    )


def _compare(split: Split, fp32: Answers, int8: Answers) -> dict[str, float]:
    """Return shares of the images: int8's loss (negative: gain), its standard error, and changes of class."""
    before, after = fp32.correct(split.targets), int8.correct(split.targets)
    lost_images, gained = int((before & ~after).sum()), int((after & ~before).sum())
    return {
        "drop": (lost_images - gained) / len(split),
        "standard_error": float(np.sqrt(lost_images + gained)) / len(split),
        "differ": float((fp32.predicted != int8.predicted).mean()),
    }


@dataclass(frozen=True)
class _Tensors:
    """The images as tensors float32 (1, 3, H, W), decoded again each time that NNCF iterates over them."""

    images: Split
    spec: Preprocessing

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        bad: dict[str, str] = {}
        for index in track(range(len(self.images)), "calibrating int8", len(self.images)):
            try:
                tensor = preprocess(self.images.paths[index].read_bytes(), self.spec)[None]
            except (OSError, RequestError) as error:
                bad[self.images.shown(index)] = why(error)
                check_share(bad, len(self.images))
                continue
            yield tensor
        for file, reason in bad.items():
            log.warning("not used to calibrate: %s: %s", file, reason)


def _quantize(exported: Artifact, folder: Path, images: Split) -> Artifact:
    """Return the int8 graph as an artifact of its own in `folder`, which the serving code can load."""
    started = time.monotonic()
    nncf = load_nncf()
    log.info("int8: calibrating on %d images", len(images))
    with _quiet():
        graph = nncf.quantize(
            core().read_model(exported.directory / artifact.GRAPH),
            nncf.Dataset(_Tensors(images, exported.preprocessing)),
            subset_size=len(images),
        )
    log.info("int8: quantised on %d images in %.1f s", len(images), time.monotonic() - started)
    exporter.save_graph(graph, folder / artifact.GRAPH)
    return _write(replace(exported, precision="int8"), folder, {})


def _write(described: Artifact, folder: Path, details: Mapping[str, Any]) -> Artifact:
    """Write model.json for the files in `folder`."""
    return artifact.write(
        folder,
        classes=described.classes,
        architecture=described.architecture,
        preprocessing=described.preprocessing,
        precision=described.precision,
        details=details,
    )


def load_nncf() -> Any:
    """Import nncf without its telemetry, its log lines, and its changes to everybody's logging."""
    load_openvino()
    if "nncf" in sys.modules:
        return sys.modules["nncf"]
    kept, logger_class = sys.modules.get("openvino_telemetry"), logging.getLoggerClass()
    # It complains, when NNCF imports it, that there is no CUDA compiler.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # makes the import fail, which nncf allows for
    try:
        import nncf
    finally:
        logging.setLoggerClass(logger_class)
        if kept is not None:
            sys.modules["openvino_telemetry"] = kept
    nncf.set_log_level(logging.ERROR)
    return nncf


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws its progress bars on standard output; our own log lines go to the stream that they were given.

    It also starts and ends cores of OpenVINO, which would leave a freed signal stack behind (predictor.core).
    """
    core()  # the first, so that the stack that is kept is one that stays
    libc, before = ctypes.CDLL(None), _SignalStack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)


class _SignalStack(ctypes.Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))
