#!/usr/bin/env python3
"""Bring a set of pictures into train/, valid/ and test/ folders of class folders.

scripts/prepare_data.py --out data/dogs                  download Udacity's dogImages.zip (1.1 GB), unpack
scripts/prepare_data.py dogImages.zip --out data/dogs    the same from a zip on disk
scripts/prepare_data.py my-pictures --out data/mine --split 0.8,0.1,0.1 --seed 0
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import os
import shutil
import signal
from dataclasses import dataclass

try:
    import PIL  # noqa: F401

    from scripts.dataset.download import download
except ImportError as missing:
    environment = Path(__file__).resolve().parents[1] / ".venv"
    if (environment / "bin/python").exists() and Path(sys.prefix) != environment:
        os.execv(environment / "bin/python", [str(environment / "bin/python"), *sys.argv])
    sys.exit(f"prepare_data: {missing}: run local_test/setup.sh, then .venv/bin/python {sys.argv[0]}")

from container_train.labels import SPLITS
from scripts.dataset import check, folders
from scripts.dataset.folders import DataError
from scripts.dataset.unzip import unzip

DOG_IMAGES = "https://s3-us-west-1.amazonaws.com/udacity-aind/dog-project/dogImages.zip"
RECORD = ".prepared.json"  # written last: a folder that has it is complete
SHOWN = 10


@dataclass(frozen=True)
class Wanted:
    source: str
    out: Path
    fractions: tuple[float, float, float]
    seed: int
    any_counts: bool

    def record(self) -> dict[str, object]:
        local = not self.source.startswith(("http://", "https://"))
        source = str(Path(self.source).resolve()) if local else self.source
        return {"source": source, "split": list(self.fractions), "seed": self.seed}


def main(arguments: list[str] | None = None) -> int:
    # A terminated program cleans up as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        prepare(parse(arguments))
    except DataError as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"prepare_data: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prepare_data: interrupted; call it again to go on", file=sys.stderr)
        return 130
    return 0


def parse(arguments: list[str] | None) -> Wanted:
    parser = argparse.ArgumentParser(
        prog="prepare_data.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", nargs="?", default=DOG_IMAGES, help="a zip, a folder or a URL (default: dogImages.zip)"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the new folder")
    parser.add_argument(
        "--split",
        default="0.8,0.1,0.1",
        metavar="A,B,C",
        help="shares of train, valid and test where not split yet",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split (default 0)")
    parser.add_argument("--any-counts", action="store_true", help="do not check the number of pictures of dogImages")
    flags = parser.parse_args(arguments)
    try:
        first, second, third = (float(part) for part in flags.split.split(","))
    except ValueError:
        raise DataError(f"--split has value {flags.split!r}: expected three numbers such as 0.8,0.1,0.1") from None
    if min(first, second, third) <= 0 or abs(first + second + third - 1) > 1e-6:
        raise DataError(f"--split has value {flags.split!r}: expected three shares above 0 that add up to 1")
    return Wanted(flags.source, flags.out.absolute(), (first, second, third), flags.seed, flags.any_counts)


def prepare(wanted: Wanted) -> None:
    """Make wanted.out, or leave nothing of it. A folder made by the same call before is left as it is."""
    out = wanted.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if _already(wanted):
            print(f"{out} is there already, made from {wanted.source}: nothing to do")
            return
        raise DataError(f"{out} exists and was not made by this call: give another --out, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    fetched: Path | None = None
    try:
        source = wanted.source
        if source.startswith(("http://", "https://")):
            fetched = out.with_name(source.rpartition("/")[2] or "download.zip")
            print(f"downloading {source} to {fetched}")
            download(source, fetched)
            root = _unpack(fetched, work)
        elif Path(source).is_dir():
            root = Path(source).resolve()
            if out.is_relative_to(root):
                raise DataError(f"--out {out} lies inside the pictures' own folder {root}: give another")
        elif Path(source).is_file():
            root = _unpack(Path(source), work)
        else:
            raise DataError(f"{source} is not there: give a zip, a folder or a URL, or nothing to download dogImages")
        found = folders.find(root)
        if (root.name == "dogImages" or source == DOG_IMAGES) and not wanted.any_counts:
            check.dog_counts(found, fetched or Path(source))
        splits = _splits(found, wanted)
        bad = check.unreadable(check.all_files(splits))
        made = work / "made"
        folders.lay_out(splits, made)
        counts = folders.count(splits)
        record = wanted.record() | {"images": counts, "classes": len(splits["train"]), "unreadable": len(bad)}
        (made / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        if out.exists():
            out.rmdir()
        made.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if fetched is not None:
        fetched.unlink(missing_ok=True)
    for file, reason in bad[:SHOWN]:
        print(f"not readable: {file}: {reason}")
    if bad:
        print(f"{len(bad)} files cannot be read; training skips up to 5 % of such files")
    print(f"{out}: {len(splits['train'])} classes, " + ", ".join(f"{n} {name}" for name, n in counts.items()))


def _unpack(archive: Path, work: Path) -> Path:
    print(f"unpacking {archive}")
    root = work / "zip"
    others = unzip(archive, root)
    if others:
        print(f"left out {others} files that are no pictures")
    # dogImages.zip has one folder dogImages/ with everything in it.
    below = [path for path in root.iterdir() if path.is_dir()]
    while len(below) == 1 and not any(path.is_file() for path in root.iterdir()):
        root = below[0]
        below = [path for path in root.iterdir() if path.is_dir()]
    return root


def _splits(found: folders.Found, wanted: Wanted) -> dict[str, folders.ClassFiles]:
    shares = dict(zip(SPLITS, wanted.fractions, strict=True))
    if not found.is_split:
        print(f"splitting {shares} (seed {wanted.seed})")
        return folders.split(found.splits[""], shares, wanted.seed)
    return folders.complete(found, shares, wanted.seed)


def _already(wanted: Wanted) -> bool:
    try:
        record = json.loads((wanted.out / RECORD).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and all(record.get(key) == value for key, value in wanted.record().items())


if __name__ == "__main__":
    sys.exit(main())
