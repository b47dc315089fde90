"""The channels: folders of pictures, their classes, and what is wrong with them."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from container_serve.errors import RequestError
from container_serve.picture import decode
from container_serve.preprocess import Preprocessing, preprocess, to_tensor
from container_train.augmentation import Augmentation
from container_train.errors import TrainError
from container_train.known import Known
from container_train.labels import SPLITS, label, natural
from container_train.progress import dropped, track
from container_train.tree import Tree

log = logging.getLogger(__name__)

TRAINING = "training"  # the one channel that may hold all three
MAX_BAD_SHARE = 0.05


@dataclass(frozen=True)
class Split:
    """The pictures of one split, in a fixed order, and the index of each one's class."""

    name: str
    paths: tuple[Path, ...]
    targets: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Data:
    """All three splits; `bad` names the skipped files by channel path, with the reason."""

    classes: tuple[str, ...]
    splits: dict[str, Split]
    bad: dict[str, str]
    fingerprint: str

    def describe(self) -> dict[str, object]:
        return {
            "fingerprint": self.fingerprint,
            "images": {name: len(split) for name, split in self.splits.items()},
            "skipped": len(self.bad),
            "skipped_files": [{"file": file, "reason": reason} for file, reason in sorted(self.bad.items())],
        }


def find_splits(tree: Tree) -> dict[str, Path]:
    """The folder of each split: channels train, valid and test, or one channel `training` that holds the three."""
    there = sorted(p.name for p in tree.channels.iterdir() if p.is_dir()) if tree.channels.is_dir() else []
    root = tree.channels / TRAINING if TRAINING in there and "train" not in there else tree.channels
    for split in SPLITS:
        if not (root / split).is_dir():
            raise TrainError(
                f"channel {split}: {root / split} is not there (found: {', '.join(there) or 'no channel at all'});"
                f" expected channels {', '.join(SPLITS)}, or one channel {TRAINING} with three such folders"
            )
    return {split: root / split for split in SPLITS}


def read(tree: Tree, max_workers: int | None = None, known: Known | None = None) -> Data:
    """List, check and fingerprint all pictures. Raises TrainError where training on them would make no sense.

    `known` has those that were checked before, and learns the others.
    """
    known = Known() if known is None else known
    folders = find_splits(tree)
    names = {split: _class_folders(split, folder) for split, folder in folders.items()}
    for split in SPLITS[1:]:
        missing = [name for name in names[split] if name not in set(names["train"])]
        if missing:
            raise TrainError(
                f"channel {split}: class {missing[0]!r} is not in channel train"
                f"{f' (nor are {len(missing) - 1} more)' if len(missing) > 1 else ''}: every class needs"
                " training pictures"
            )
    order = names["train"]
    classes = tuple(label(name) for name in order)
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        same = [name for name in order if label(name) == twice[0]]
        raise TrainError(f"channel train: the folders {' and '.join(same)} are both class {twice[0]!r}: rename one")
    if len(classes) < 2:
        raise TrainError(f"channel train: {len(classes)} class ({', '.join(classes)}); a classifier needs at least 2")
    digest = hashlib.sha256()
    bad: dict[str, str] = {}
    splits = {}
    for split, folder in folders.items():
        listed = [(path, order.index(name)) for name in names[split] for path in files(folder / name)]
        for path, _ in listed:
            _check_name(split, path)
        splits[split] = _check(split, listed, folders, bad, digest, max_workers, known)
    _complete(splits, order, bad)
    return Data(classes, splits, bad, digest.hexdigest())


def _class_folders(split: str, folder: Path) -> list[str]:
    names = sorted((p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural)
    for name in names:
        _check_name(split, folder / name)
    if not names:
        raise TrainError(f"channel {split}: no class folders in {folder}; expected one folder of pictures a class")
    return names


def files(folder: Path) -> Iterable[Path]:
    """Every file that is not hidden: one that is no picture, or a link to nothing, is to be named, not passed over."""

    def refuse(error: OSError) -> None:
        raise TrainError(
            f"the folder {error.filename} cannot be read ({error.strerror}): give the job's user the right to"
        )

    found = (
        path
        for parent, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if not name.startswith(".") and ((path := Path(parent, name)).is_file() or _leads_nowhere(path))
    )
    return sorted(found, key=lambda p: str(p))


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _check_name(split: str, path: Path) -> None:
    """Raises TrainError for a name that neither the log nor model.json could say."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise TrainError(f"channel {split}: the name {os.fsencode(path.name)!r} is not UTF-8: rename it") from None


def _check(
    split: str,
    listed: list[tuple[Path, int]],
    folders: dict[str, Path],
    bad: dict[str, str],
    digest: "hashlib._Hash",
    max_workers: int | None,
    known: Known,
) -> Split:
    """Decode every picture once, as training will: a truncated one shows only there."""

    def look(item: tuple[Path, int]) -> tuple[str, str | None]:
        path, _ = item
        name = f"{split}/{path.relative_to(folders[split])}"
        try:
            if content := known.find(name, path):
                return content, None
            body = path.read_bytes()
            decode(body)
        except (RequestError, OSError) as error:
            return "", str(error)
        content = hashlib.sha256(body).hexdigest()
        known.add(name, path, content)
        return content, None

    good: list[tuple[Path, int]] = []
    with ThreadPoolExecutor(max_workers or os.cpu_count()) as pool, dropped(pool):
        for item, (content, reason) in zip(
            listed, track(pool.map(look, listed), f"checking {split}", len(listed)), strict=True
        ):
            name = f"{split}/{item[0].relative_to(folders[split])}"
            if reason is None:
                good.append(item)
                digest.update(f"{name} {content}\n".encode())
            else:
                bad[name] = reason
                log.warning("skipped %s: %s", name, reason)
    return Split(split, tuple(path for path, _ in good), tuple(target for _, target in good))


def _complete(splits: dict[str, Split], order: list[str], bad: dict[str, str]) -> None:
    """Raise TrainError when too much was bad, or a class or a whole split is empty."""
    total = sum(map(len, splits.values())) + len(bad)
    if len(bad) > MAX_BAD_SHARE * total:
        first = "; ".join(f"{file}: {reason}" for file, reason in list(bad.items())[:3])
        raise TrainError(
            f"{len(bad)} of {total} files are not readable pictures, more than {MAX_BAD_SHARE:.0%}: {first};"
            " remove or repair them"
        )
    if bad:
        log.warning("skipped %d of %d files that are not readable pictures", len(bad), total)
    for split in splits.values():
        if not split.paths:
            raise TrainError(f"channel {split.name}: no pictures in its class folders")
        counts = Counter(split.targets)
        empty = [name for index, name in enumerate(order) if not counts[index]]
        if empty and split.name == "train":
            raise TrainError(f"channel train: class folder {empty[0]!r} has no readable picture: add some or remove it")
        if empty:
            log.warning("channel %s has no pictures of %d classes: %s", split.name, len(empty), ", ".join(empty[:5]))


class PictureLost(TrainError):
    """A process that decodes hands this on to the training with its traceback, which nobody needs."""

    def __init__(self, message: str) -> None:
        super().__init__(message.strip().splitlines()[-1].removeprefix(f"{__name__}.PictureLost: "))


def lost(path: Path, error: Exception) -> PictureLost:
    reason = (isinstance(error, OSError) and error.strerror) or error
    return PictureLost(
        f"{path} could be read when the job began, and cannot any more ({reason}): put it back, and start the job again"
    )


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Tensors float32 (3, crop, crop), the very ones that the server computes, and targets.

    With an augmentation, the view of a picture depends on (seed, view, index) alone, not on the order or the number
    of decoding processes, so that a resumed epoch sees what an uninterrupted one would have seen.
    """

    def __init__(self, split: Split, spec: Preprocessing, augment: str = "none", seed: int = 0, view: int = 0) -> None:
        self.split, self.spec, self.seed, self.view = split, spec, seed, view
        self.augment = None if augment == "none" else Augmentation(augment, spec)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path = self.split.paths[index]
        try:
            body = path.read_bytes()
            if self.augment is None:
                return torch.from_numpy(preprocess(body, self.spec)), self.split.targets[index]
            image = decode(body)
        except (OSError, RequestError) as error:
            raise lost(path, error) from None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((self.seed, self.view, index)))
            image = self.augment(image)
        return torch.from_numpy(to_tensor(image, self.augment.spec)), self.split.targets[index]


def targets(split: Split) -> npt.NDArray[np.int64]:
    """Class indices, int64 (N,)."""
    return np.asarray(split.targets, dtype=np.int64)
