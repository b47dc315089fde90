"""int8: the exported graph quantised on training pictures by NNCF, and served where it is as accurate as fp32.

What decides is the validation accuracy through the serving code: int8 is kept when at most MAX_DROP of the pictures
are lost against fp32, as counted, whatever the number of pictures. With fewer than 1 / MAX_DROP = 200 of them that
means not one lost. Such a count is noisy (the recorded standard error, McNemar's, is of the difference between the two
on the same pictures), which at worst keeps a good int8 graph from being served, never the promise. Layers to keep in
floating point are looked for, for minutes, only where more is lost than that error explains. The test pictures take no
part in it, so that what is measured on them stays unbiased.
"""

import contextlib
import ctypes
import io
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from container_serve import artifact
from container_serve.artifact import Artifact
from container_serve.errors import RequestError, ServeError
from container_serve.predictor import core, load_openvino
from container_serve.preprocess import Preprocessing, preprocess
from container_train.data.dataset import ImageUnreadable, Split, lost
from container_train.errors import TrainError
from container_train.export import evaluation
from container_train.export import graph as graphs
from container_train.paths import replace_file
from container_train.progress import track

log = logging.getLogger(__name__)

PICTURES = 300  # that the ranges of activations are taken from
# Of small data a quarter is as good (each picture costs two forward passes), but hardly fewer than this.
FEWEST = 60
MAX_DROP = 0.005  # of the validation accuracy, a share of the pictures
MIN_TO_RESTORE = 200  # validation pictures: of fewer, layers are chosen by one or two that happen to turn
RESTORE_SECONDS = 300.0  # that accuracy-aware quantisation may take
RANKED_ON = 100  # pictures on which it finds the layers that lose the most

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Choice:
    """What will be served: the artifact in its folder, and its answers (N, C) to the pictures of each split."""

    artifact: Artifact
    served: Mapping[str, Probabilities]
    accuracy: Mapping[str, Mapping[str, float]]  # by precision and split, a share of the pictures


def calibration(split: Split, seed: int) -> tuple[Path, ...]:
    """Some pictures of `split`: as many of each class as there are, drawn by `seed`."""
    wanted = min(PICTURES, max(FEWEST, len(split) // 4), len(split))
    rng = random.Random(f"calibration {seed}")
    classes: dict[int, list[Path]] = {}
    for path, target in zip(split.paths, split.targets, strict=True):
        classes.setdefault(target, []).append(path)
    for paths in classes.values():
        rng.shuffle(paths)
    piles = list(classes.values())
    rng.shuffle(piles)
    chosen: list[Path] = []
    while len(chosen) < wanted:
        for pile in piles:
            if pile and len(chosen) < wanted:
                chosen.append(pile.pop())
    return tuple(chosen)


def choose(
    exported: Artifact,
    splits: Mapping[str, Split],
    *,
    precision: str,
    train: Split | None,
    seed: int = 0,
) -> Choice:
    """Measure the exported fp32 graph on `splits`, and int8 beside it, made from pictures of `train`; keep one of them.

    `precision` is auto (int8 where it is as accurate, see above), fp32, or int8 (whatever it loses, in which case it
    says so). All figures, and why that graph is served, go into model.json. Raises TrainError.
    """
    if precision == "fp32" or train is None:
        served = {name: evaluation.probabilities([exported], split.paths, name)[0] for name, split in splits.items()}
        reason = "asked for" if precision == "fp32" else "there are no pictures to calibrate int8 with"
        return _keep(exported, splits, {"fp32": served}, "fp32", {"reason": reason})
    pictures = calibration(train, seed)
    notes: dict[str, Any] = {
        "calibration": {"pictures": len(pictures), "split": train.name, "seed": seed},
        "max_drop": MAX_DROP,
        "attempts": [],
    }
    with tempfile.TemporaryDirectory(prefix="byoc-int8-") as folder:
        try:
            candidate = _quantize(exported, Path(folder), pictures)
        except ImageUnreadable:
            raise
        except Exception as error:  # of NNCF, for a network that it does not know its way about
            reason = f"the graph cannot be quantised ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            if precision == "int8":
                raise TrainError(f"hyperparameter precision has value 'int8', but {reason}; say auto or fp32") from None
            log.warning("int8: %s", reason)
            served = {
                name: evaluation.probabilities([exported], split.paths, name)[0] for name, split in splits.items()
            }
            return _keep(exported, splits, {"fp32": served}, "fp32", {**notes, "reason": reason})
        both = {
            name: evaluation.probabilities([exported, candidate], split.paths, name) for name, split in splits.items()
        }
        answers = {"fp32": {n: pair[0] for n, pair in both.items()}, "int8": {n: pair[1] for n, pair in both.items()}}
        compared = _compare(splits["valid"], answers["fp32"]["valid"], answers["int8"]["valid"])
        notes["attempts"].append({"method": "default", **compared})
        much = compared["drop"] - MAX_DROP > compared["standard_error"] and len(splits["valid"]) >= MIN_TO_RESTORE
        if much and precision == "auto":
            restored = _restore(exported, Path(folder), pictures, splits["valid"], answers, notes)
            if restored is not None:
                candidate, compared = restored
                for name in splits.keys() - {"valid"}:
                    answers["int8"][name] = evaluation.probabilities([candidate], splits[name].paths, name)[0]
        words = (
            f"int8 is {0 - 100 * compared['drop']:+.2f} points from fp32 on validation"
            f" (standard error {100 * compared['standard_error']:.2f}), at most {-100 * MAX_DROP:+.1f} allowed"
        )
        if compared["drop"] > MAX_DROP and precision == "auto":
            return _keep(exported, splits, answers, "fp32", {**notes, "reason": words})
        if compared["drop"] > MAX_DROP:
            log.warning("%s, but it was asked for", words)
            words += ", but it was asked for"
        (exported.directory / artifact.MODEL_JSON).unlink()
        for name in (artifact.GRAPH_WEIGHTS, artifact.GRAPH):
            replace_file(exported.directory / name, (candidate.directory / name).read_bytes())
        return _keep(exported, splits, answers, "int8", {**notes, "reason": words})


def _keep(
    exported: Artifact,
    splits: Mapping[str, Split],
    answers: Mapping[str, Mapping[str, Probabilities]],
    precision: str,
    notes: Mapping[str, Any],
) -> Choice:
    """Describe the graph that lies in the folder now. TrainError: its answers are not numbers."""
    for name, rows in answers[precision].items():
        if odd := int((~np.isfinite(rows)).any(1).sum()):
            raise TrainError(
                f"the exported model's answers ({precision}) to {odd} of {len(rows)} images of {name} are not numbers:"
                f" lower lr{', or use precision fp32' if precision != 'fp32' else ''}"
            )
    accuracy = {
        kind: {name: evaluation.accuracy(rows[name], split.targets) for name, split in splits.items()}
        for kind, rows in answers.items()
    }
    for kind, shares in accuracy.items():
        log.info("%s: %s", kind, ", ".join(f"{name} {100 * share:.2f} %" for name, share in shares.items()))
    log.info("served: %s, %s", precision, notes["reason"])
    decoding = evaluation.scaled_decoding(
        replace(exported, precision=precision), splits["valid"], answers[precision]["valid"]
    )
    if decoding["scaled"]:
        log.info(
            "decoding: large JPEGs are scaled in the decoder: %.2f %% right on %d of them, decoded in full %.2f %%",
            100 * decoding["fast"], decoding["compared"], 100 * decoding["plain"],
        )  # fmt: skip
    made = artifact.write(
        exported.directory,
        classes=exported.classes,
        architecture=exported.architecture,
        preprocessing=exported.preprocessing,
        precision=precision,
        details={**exported.details, "accuracy": accuracy, "quantization": dict(notes), "decoding": decoding},
    )
    return Choice(made, answers[precision], accuracy)


def _compare(split: Split, fp32: Probabilities, int8: Probabilities) -> dict[str, float]:
    """Shares of the pictures: what int8 loses (negative: gains), that difference's standard error, and where the most
    probable class differs."""
    right, still = evaluation.correct(fp32, split.targets), evaluation.correct(int8, split.targets)
    lost, gained = int((right & ~still).sum()), int((still & ~right).sum())
    return {
        "drop": (lost - gained) / len(split),
        "standard_error": float(np.sqrt(lost + gained)) / len(split),
        "differ": float((fp32.argmax(1) != int8.argmax(1)).mean()),
    }


class _Pictures:
    """Tensors float32 (1, 3, H, W) and targets of pictures, decoded as they are asked for, in NNCF's sense a source."""

    def __init__(
        self, paths: Sequence[Path], spec: Preprocessing, targets: Sequence[int] | None = None, what: str = "",
        check: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.paths, self.spec, self.targets, self.what, self.check = paths, spec, targets, what, check

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.float32], int]:
        self.check()
        target = self.targets[index] if self.targets else 0
        try:
            return preprocess(self.paths[index].read_bytes(), self.spec)[None], target
        except (OSError, RequestError) as error:
            raise lost(self.paths[index], error) from None

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.float32], int]]:
        items = (self[index] for index in range(len(self)))
        return iter(track(items, self.what, len(self)) if self.what else items)


def _quantize(exported: Artifact, folder: Path, pictures: Sequence[Path]) -> Artifact:
    started = time.monotonic()
    nncf = load_nncf()
    log.info("int8: calibrating on %d pictures", len(pictures))
    source = _Pictures(pictures, exported.preprocessing, what="calibrating int8")
    with _quiet():
        graph = nncf.quantize(
            core().read_model(exported.directory / artifact.GRAPH),
            nncf.Dataset(source, lambda item: item[0]),
            subset_size=len(pictures),
        )
    log.info("int8: quantised on %d pictures in %.1f s", len(pictures), time.monotonic() - started)
    return _describe(exported, graph, folder / "default")


def _restore(
    exported: Artifact,
    folder: Path,
    pictures: Sequence[Path],
    valid: Split,
    answers: dict[str, dict[str, Probabilities]],
    notes: dict[str, Any],
) -> tuple[Artifact, dict[str, float]] | None:
    """Accuracy-aware quantisation: the layers that lose the most stay floating point. None where that is not better."""
    nncf = load_nncf()
    deadline = time.monotonic() + RESTORE_SECONDS
    log.info("int8: too much is lost; trying accuracy-aware quantisation for at most %.0f s", RESTORE_SECONDS)

    def check() -> None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done within {RESTORE_SECONDS:.0f} s")

    def validate(model: Any, items: Any) -> tuple[float, list[list[Any]]]:
        rows, hits = [], []
        for tensor, target in items:
            logits = model(tensor)[0]
            rows.append([logits])
            hits.append(int(logits.argmax()) == target)
        return float(np.mean(hits)), rows

    calibrate = _Pictures(pictures, exported.preprocessing, what="calibrating again", check=check)
    validation = _Pictures(valid.paths, exported.preprocessing, valid.targets, check=check)
    attempt: dict[str, Any] = {"method": "accuracy-aware"}
    notes["attempts"].append(attempt)
    try:
        with _quiet():
            graph = nncf.quantize_with_accuracy_control(
                core().read_model(exported.directory / artifact.GRAPH),
                nncf.Dataset(calibrate, lambda item: item[0]),
                nncf.Dataset(validation, lambda item: item[0]),
                validation_fn=validate,
                max_drop=MAX_DROP,
                subset_size=len(pictures),
                advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                    ranking_subset_size=min(RANKED_ON, len(valid)), num_ranking_workers=1
                ),
            )
        made = _describe(exported, graph, folder / "restored")
    except (TimeoutError, ServeError) as error:
        attempt["failed"] = str(error)
        log.warning("int8: accuracy-aware quantisation: %s", error)
        return None
    except Exception as error:  # of NNCF's inside
        attempt["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        log.warning("int8: accuracy-aware quantisation: %s", attempt["failed"])
        return None
    rows = evaluation.probabilities([made], valid.paths, "valid")[0]
    compared = _compare(valid, answers["fp32"]["valid"], rows)
    attempt.update(compared)
    if compared["drop"] >= notes["attempts"][0]["drop"]:
        return None
    answers["int8"]["valid"] = rows
    return made, compared


def _describe(exported: Artifact, graph: Any, folder: Path) -> Artifact:
    """The graph as an artifact of its own in `folder`, which the serving code can load."""
    folder.mkdir()
    graphs.save(graph, folder / artifact.GRAPH)
    return artifact.write(
        folder,
        classes=exported.classes,
        architecture=exported.architecture,
        preprocessing=exported.preprocessing,
        precision="int8",
    )


def load_nncf() -> Any:
    """The nncf module, without its telemetry, its log lines and what it does to the logging of everybody else."""
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
    with contextlib.redirect_stdout(io.StringIO()), _signal_stack_kept():
        yield


class _SignalStack(ctypes.Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Leave this thread's alternate signal stack as it was."""
    libc, before = ctypes.CDLL(None), _SignalStack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)
