"""Make an artifact of anybody's own checkpoint, quantised to int8 where there are images to do it with.

python -m container_train.export --weights model.pth --classes classes.txt --out model --calibration data/dogs
"""

import argparse
import errno
import logging
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from container_serve import __version__
from container_serve.artifact import CONTROL
from container_serve.errors import ServeError
from container_train.data import listing
from container_train.data.labels import SPLITS, class_of, labels
from container_train.errors import TrainError
from container_train.hyperparameters import OPTIONS

if TYPE_CHECKING:
    from container_train.data.files import Split

log = logging.getLogger("container_train.export")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m container_train.export",
        description="Make the artifact that container_serve serves from a state_dict of torchvision or timm.",
        epilog="example: python -m container_train.export --weights model.pth --classes classes.txt --out model",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "--weights", type=Path, required=True, help="file of torch.save(model.state_dict()), or .safetensors"
    )
    parser.add_argument("--classes", type=Path, required=True, help="text file, one label per line, in index order")
    parser.add_argument(
        "--arch",
        type=_parser("arch"),
        default="resnet50",
        help="architecture of torchvision, or timm/NAME (%(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the artifact; made if missing")
    for name, what in (("resize-size", "shorter side before the crop"), ("image-size", "side of the crop")):
        parser.add_argument(f"--{name}", type=_parser(name), default=0, help=f"{what} (0: as the weights')")
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR",
        help="images in class folders, or train/ and valid/ with class folders: to quantise, and to evaluate",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "int8"), default="auto",
        help="auto: int8 if it is as accurate on the images of --calibration, else fp32 (%(default)s)",
    )  # fmt: skip
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    from container_train.export import exporter, quantize
    from container_train.model.builder import bare, last_layer, preprocessing_of
    from container_train.model.weights import load, read_state_dict

    begun = whole = False
    try:
        for flag, file in (("--weights", arguments.weights), ("--classes", arguments.classes)):
            if not file.is_file():
                raise TrainError(f"{flag} {file}: {'not a file' if file.exists() else 'no such file'}")
        for flag, folder in (("--out", arguments.out), ("--calibration", arguments.calibration)):
            if folder is not None and not folder.is_dir() and (folder.exists() or flag == "--calibration"):
                raise TrainError(f"{flag} {folder}: {'not a folder' if folder.exists() else 'no such folder'}")
        classes = _labels(arguments.classes)
        if arguments.precision == "int8" and arguments.calibration is None:
            raise TrainError("--precision int8 needs --calibration DIR, images to quantise with")
        splits = labelled(arguments.calibration, classes) if arguments.calibration else {}
        state = read_state_dict(arguments.weights)
        preprocessing = preprocessing_of(arguments.arch, arguments.resize_size, arguments.image_size)
        side = preprocessing.crop
        model = bare(arguments.arch, len(classes), pretrained=True, side=side)
        last = next((name for name in sorted(last_layer(arguments.arch, len(classes))) if name in state), None)
        if last and len(state[last]) != len(classes):
            raise TrainError(
                f"{arguments.classes} has {len(classes)} labels, {arguments.weights} has {len(state[last])} outputs"
                f" ({last}): give one label per output, in the order of training"
            )
        load(model, state, arguments.arch, f"file {arguments.weights.name}, {len(classes)} classes", side=side)
        begun = True
        done = exporter.export(
            model, arguments.out, arch=arguments.arch, classes=classes, preprocessing=preprocessing,
            details={"weights": f"file {arguments.weights.name}"},
        )  # fmt: skip
        if splits:
            measured = {name: split for name, split in splits.items() if name != "train"}
            done = quantize.choose(done, measured, precision=arguments.precision, train=splits["train"]).artifact
        whole = True
        print(f"{done.directory}: {done.architecture}, {len(done.classes)} classes, {done.precision}")
    except OSError as error:
        way_out = "; --out has to be a folder that can be written" if begun and error.errno != errno.ENOSPC else ""
        sys.exit(f"export: {error.filename or arguments.out}: {error.strerror or error}{way_out}")
    except (TrainError, ServeError) as error:
        sys.exit(f"export: {error}")
    except KeyboardInterrupt:
        print("export: stopped; --out is not complete", file=sys.stderr)
        sys.exit(130)
    finally:
        if begun and not whole:
            exporter.withdraw(arguments.out)


def _parser(name: str) -> Callable[[str], Any]:
    """Return the parser of a hyperparameter for a flag, with the value in its message."""

    def parse(text: str) -> Any:
        try:
            return OPTIONS[name].parse(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"has value {text!r}: expected {error}") from None

    return parse


def labelled(folder: Path, classes: tuple[str, ...]) -> "dict[str, Split]":
    """Return images to calibrate with (`train`) and to evaluate (`valid`, maybe `test`) from a folder of class folders.

    Without folders of these names, every second image of each class is for calibration.
    """
    from container_train.data import checking

    split_already = all((folder / name).is_dir() for name in ("train", "valid"))
    roots = [name for name in SPLITS if (folder / name).is_dir()] if split_already else [""]
    listings = [listing.read(folder / root, root) for root in roots]
    for words in listing.remarks(listings):
        log.warning("%s: %s", folder, words)
    index = {name: number for number, name in enumerate(classes)}
    splits: dict[str, Split] = {}
    for root, listed in zip(roots, listings, strict=True):
        of = {name: class_of(name, index) for name in listed.classes}
        strange = [name for name, known in of.items() if known is None]
        if strange or not listed.classes:
            what = f"the folder {strange[0]!r}, which is none of the classes" if strange else "no class folders"
            raise TrainError(f"{folder / root}: holds {what}; expected a folder of images for each class")
        split = checking.split_of(listed, {name: index[known] for name, known in of.items() if known is not None})
        checked = checking.check({root: split})
        for name, reason in checked.bad.items():
            log.warning("skipped %s: %s", folder / name, reason)
        split = checked.splits[root]
        if split_already:
            splits[root] = split
        else:
            by_class = np.argsort(split.targets, kind="stable")
            for name, second in (("train", 0), ("valid", 1)):
                splits[name] = split.subset(name, by_class[split.turns(by_class) % 2 == second])
    if empty := [name for name, split in splits.items() if not len(split)]:
        raise TrainError(f"{folder}: no readable images for {empty[0]}; expected at least two in each class folder")
    return splits


def _labels(file: Path) -> tuple[str, ...]:
    """Return the file's lines as training would name the classes, so that a listing of the class folders is enough."""
    try:
        # Windows writes a byte order mark.
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise TrainError(f"classes {file} cannot be read: {error}; expected UTF-8 text, a label per line") from None
    if wrong := next(filter(CONTROL.search, lines), None):
        raise TrainError(f"{file}: the label {wrong!r} has a control character: change it, as training would name it")
    found = labels([unicodedata.normalize("NFC", line) for line in lines])
    if len(found) < 2 or len(set(found)) != len(found):
        raise TrainError(
            f"{file} holds {len(found)} labels, {len(set(found))} different: expected 2 or more, all different"
        )
    return found


if __name__ == "__main__":
    main()
