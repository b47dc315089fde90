"""From trained weights to the artifact that is served, checked through the code that will serve it.

As a program it makes an artifact of anybody's own checkpoint, quantised to int8 where there are pictures to do it with:
    python -m container_train.export --weights model.pth --classes classes.txt --out model --calibration data/dogs
"""

import argparse
import contextlib
import copy
import errno
import io
import logging
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from container_serve import __version__, artifact
from container_serve.artifact import Artifact
from container_serve.errors import RequestError, ServeError
from container_serve.picture import decode
from container_serve.predictor import Predictor, load_openvino
from container_serve.preprocess import Preprocessing
from container_train import graph as graphs
from container_train import listing, quantize
from container_train.data import Split
from container_train.errors import TrainError
from container_train.labels import SPLITS, class_of, labels
from container_train.tree import replace_file

log = logging.getLogger(__name__)

MAX_DIFFERENCE = 0.01  # of a probability, between torch and the exported graph


def export(
    model: nn.Module,
    folder: Path,
    *,
    arch: str,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    details: Mapping[str, Any],
) -> Artifact:
    """Write weights, graph and model.json into `folder`. Raises TrainError when the graph does not compute the same:
    then there is no model.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / artifact.MODEL_JSON).unlink(missing_ok=True)
    model = copy.deepcopy(model).cpu().eval()
    cast(Any, model).to(memory_format=torch.contiguous_format)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    replace_file(folder / artifact.WEIGHTS, buffer.getvalue())
    _save_graph(model, folder, preprocessing.crop)
    try:
        result = artifact.write(
            folder,
            classes=classes,
            architecture=arch,
            preprocessing=preprocessing,
            precision="fp32",
            details=details,
        )
        _compare(model, result)
    except BaseException:
        withdraw(folder)
        raise
    return result


def withdraw(folder: Path) -> None:
    """Without its model.json nobody takes what lies there for a model."""
    (folder / artifact.MODEL_JSON).unlink(missing_ok=True)


@contextlib.contextmanager
def withdrawn_on_error(folder: Path) -> Iterator[None]:
    """Within, an export is measured, which may fail. (A job that is stopped makes another one when it goes on.)"""
    try:
        yield
    except Exception:
        withdraw(folder)
        raise


def _save_graph(model: nn.Module, folder: Path, side: int) -> None:
    openvino = load_openvino()
    example = torch.zeros(1, 3, side, side)
    # The check would run the network three times more: whether the graph computes the same is looked at by _compare.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but what the converter does as well
        traced = torch.jit.trace(model, example, check_trace=False)
    graph = openvino.convert_model(traced, example_input=example, input=[-1, 3, side, side])
    graph.outputs[0].get_tensor().set_names({"logits"})  # NNCF goes by the outputs' names
    temporary = folder / ".graph.xml"
    try:
        graphs.save(graph, temporary)
        temporary.with_suffix(".bin").replace(folder / artifact.GRAPH_WEIGHTS)
        temporary.replace(folder / artifact.GRAPH)
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_suffix(".bin").unlink(missing_ok=True)


def _compare(model: nn.Module, exported: Artifact) -> None:
    side = exported.preprocessing.crop
    sample = np.random.default_rng(0).standard_normal((4, 3, side, side), dtype=np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(sample)).softmax(1).numpy()
    difference = float(np.abs(expected - Predictor(exported, threads=_cores()).probabilities(sample)).max())
    if not difference <= MAX_DIFFERENCE:
        raise TrainError(
            f"the exported graph of {exported.architecture} gives other probabilities than the trained model"
            f" (by up to {difference:.3g}, allowed {MAX_DIFFERENCE:g}): this architecture cannot be served as it is"
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def main() -> None:
    from container_train.hyperparameters import OPTIONS, architecture
    from container_train.model import bare, preprocessing_of, read_state_dict

    parser = argparse.ArgumentParser(
        prog="python -m container_train.export",
        description="Make the artifact that container_serve serves from a torchvision model's state_dict.",
        epilog="example: python -m container_train.export --weights model.pth --classes classes.txt --out model",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--weights", type=Path, required=True, help="file of torch.save(model.state_dict())")
    parser.add_argument("--classes", type=Path, required=True, help="text file, a label a line, in index order")
    parser.add_argument("--arch", type=architecture, default="resnet50", help="torchvision architecture (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the artifact; made if missing")
    parser.add_argument(
        "--resize-size",
        type=OPTIONS["resize-size"][0],
        default=0,
        help="shorter side before the crop (0: as the weights')",
    )
    parser.add_argument(
        "--image-size", type=OPTIONS["image-size"][0], default=0, help="side of the crop (0: as the weights')"
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR",
        help="pictures in class folders, or train/ and valid/ with class folders: to quantise with, and to measure",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "int8"), default="auto",
        help="auto: int8 where it is as accurate on the pictures of --calibration, else fp32 (%(default)s)",
    )  # fmt: skip
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    begun = whole = False
    try:
        for flag, folder in (("--out", arguments.out), ("--calibration", arguments.calibration)):
            if folder is not None and not folder.is_dir() and (folder.exists() or flag == "--calibration"):
                raise TrainError(f"{flag} {folder}: {'is no folder' if folder.exists() else 'is not there'}")
        classes = _labels(arguments.classes)
        if arguments.precision == "int8" and arguments.calibration is None:
            raise TrainError("--precision int8 needs --calibration DIR, pictures to quantise with")
        splits = labelled(arguments.calibration, classes) if arguments.calibration else {}
        state = read_state_dict(arguments.weights)
        model = bare(arguments.arch, len(classes), pretrained=True)
        own = {name: tuple(t.shape) for name, t in model.state_dict().items()}
        given = {name: tuple(t.shape) for name, t in state.items() if name in own or not name.startswith("aux")}
        if own != given:
            odd = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
            raise TrainError(
                f"{arguments.weights} does not fit {arguments.arch} with {len(classes)} classes: {odd[0]} is"
                f" {given.get(odd[0], 'missing')}, expected {own.get(odd[0], 'nothing of that name')}"
            )
        model.load_state_dict(state, strict=False)
        preprocessing = preprocessing_of(arguments.arch, arguments.resize_size, arguments.image_size)
        begun = True
        done = export(
            model, arguments.out, arch=arguments.arch, classes=classes, preprocessing=preprocessing,
            details={"weights": f"file {arguments.weights.name}"},
        )  # fmt: skip
        if splits:
            measured = {name: split for name, split in splits.items() if name != "train"}
            done = quantize.choose(done, measured, precision=arguments.precision, train=splits["train"]).artifact
        whole = True
        print(f"{done.directory}: {done.architecture}, {len(done.classes)} classes, {done.precision}")
    except OSError as error:
        way_out = "" if error.errno == errno.ENOSPC else "; --out has to be a folder"
        sys.exit(f"export: {error.filename or arguments.out}: {error.strerror or error}{way_out}")
    except (TrainError, ServeError) as error:
        sys.exit(f"export: {error}")
    except KeyboardInterrupt:
        print("export: stopped; --out is not complete", file=sys.stderr)
        sys.exit(130)
    finally:
        if begun and not whole:
            withdraw(arguments.out)


def labelled(folder: Path, classes: tuple[str, ...]) -> dict[str, Split]:
    """Pictures to calibrate with (`train`) and to measure with (`valid`, maybe `test`) from a folder of class folders.

    Without folders of these names, every second picture of each class is for calibration.
    """
    split_already = all((folder / name).is_dir() for name in ("train", "valid"))
    roots = [name for name in SPLITS if (folder / name).is_dir()] if split_already else [""]
    listings = [listing.read(folder / root, root) for root in roots]
    for words in listing.remarks(listings):
        log.warning("%s: %s", folder, words)
    found: dict[str, list[tuple[Path, int]]] = {}
    for root, listed in zip(roots, listings, strict=True):
        of = {name: class_of(name, classes) for name in listed.classes}
        strange = [name for name, known in of.items() if known is None]
        if strange or not listed.classes:
            what = f"the folder {strange[0]!r}, which is none of the classes" if strange else "no class folders"
            raise TrainError(f"{folder / root}: holds {what}; expected a folder of pictures for each class")
        for name, paths in listed.classes.items():
            pictures = [(path, classes.index(of[name] or name)) for path in _readable(paths)]
            if split_already:
                found.setdefault(root, []).extend(pictures)
            else:
                found.setdefault("train", []).extend(pictures[::2])
                found.setdefault("valid", []).extend(pictures[1::2])
    if empty := [name for name, pictures in found.items() if not pictures]:
        raise TrainError(f"{folder}: no readable pictures for {empty[0]}; expected at least two in each class folder")
    return {
        name: Split(name, tuple(path for path, _ in pictures), tuple(target for _, target in pictures))
        for name, pictures in found.items()
    }


def _readable(paths: Iterable[Path]) -> list[Path]:
    """Those that can be read; the others are named, as in training."""
    found = []
    for path in paths:
        try:
            decode(path.read_bytes())
            found.append(path)
        except (RequestError, OSError) as error:
            log.warning("skipped %s: %s", path, error)
    return found


def _labels(file: Path) -> tuple[str, ...]:
    """The file's lines as training would name them, so that a listing of the class folders will do."""
    try:
        # Windows puts a mark at the beginning.
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise TrainError(f"classes {file} cannot be read: {error}; expected UTF-8 text, a label per line") from None
    found = labels([unicodedata.normalize("NFC", line) for line in lines])
    if len(found) < 2 or len(set(found)) != len(found):
        raise TrainError(
            f"{file} holds {len(found)} labels, {len(set(found))} different: expected 2 or more, all different"
        )
    return found


if __name__ == "__main__":
    main()
