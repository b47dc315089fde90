"""Images that could not be read when they were used: what becomes of them, and how many may be so."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from container_serve.errors import RequestError
from container_serve.image import decode
from container_train.data.files import Split, why
from container_train.data.listing import MAX_BAD_SHARE
from container_train.data.unused import SHOWN
from container_train.distributed.process_group import ProcessGroup
from container_train.errors import TrainError

log = logging.getLogger(__name__)

TRAIN = "train"  # the split that has to have images of each class
EARLY = 2000  # images after which a process does not wait for the end of the epoch to say that too many are bad


def check_share(bad: Mapping[str, str], seen: int) -> None:
    """Raise TrainError if more than MAX_BAD_SHARE of the images that were `seen` are `bad`."""
    if len(bad) > MAX_BAD_SHARE * seen:
        first = "; ".join(f"{file}: {reason}" for file, reason in list(bad.items())[:3])
        raise TrainError(
            f"{len(bad)} of {seen} files are not readable images, more than {MAX_BAD_SHARE:.0%}: {first};"
            " remove or repair them"
        )


def none_readable(name: str) -> TrainError:
    """Return the error for a split without images."""
    return TrainError(f"channel {name}: none of its images can be read")


def no_image_of(folder: str) -> TrainError:
    """Return the error for a class without training images."""
    return TrainError(f"channel {TRAIN}: class folder {folder!r} has no readable image: add some or remove it")


class Unreadable:
    """The images of `splits` that turn out to be unreadable while the job uses them.

    An image keeps its place, with weight 0, until the epoch ends. Then all processes leave it out. `before` are those
    that the check before the training found, among `checked` images, and that the splits do not have.
    """

    def __init__(self, splits: Mapping[str, Split], before: Mapping[str, str], checked: int) -> None:
        self.splits, self.before, self.checked = splits, before, checked
        self.known: dict[str, dict[int, str]] = {name: {} for name in splits}  # by all processes
        self.noted: dict[str, dict[int, str]] = {name: {} for name in splits}  # by this one, since
        self.used: Counter[str] = Counter()  # images that this process has used of each split, since
        self.seen: Counter[str] = Counter()  # images that all have used

    @property
    def files(self) -> dict[str, str]:
        """The reason by the name of each file that was left out, those before the training among them."""
        found = {
            self.splits[name].shown(index): reason for name, bad in self.known.items() for index, reason in bad.items()
        }
        return {**self.before, **found}

    def is_bad(self, name: str, index: int) -> bool:
        """Return True for an image that this process knows of."""
        return index in self.known[name] or index in self.noted[name]

    def count(self, name: str) -> int:
        """Return the number of images of a split that are not left out."""
        return len(self.splits[name]) - len(self.known[name])

    def remaining(self, name: str) -> npt.NDArray[np.int64]:
        """Return the indices of the images of a split that are not left out."""
        return np.delete(np.arange(len(self.splits[name])), list(self.known[name]))

    def readable(self, name: str) -> Split:
        """Return a split without the images that are left out."""
        split = self.splits[name]
        return split.subset(name, self.remaining(name)) if self.known[name] else split

    def use(self, name: str, images: int, bad: Iterable[int] = ()) -> None:
        """Count `images` that were used of a split, and note the `bad` ones. Raises TrainError for very many."""
        self.used[name] += images
        split, noted, seen = self.splits[name], self.noted[name], self.seen[name] + self.used[name]
        noted |= {index: _reason(split, index) for index in bad if not self.is_bad(name, index)}
        if len(noted) > MAX_BAD_SHARE * max(EARLY, seen):
            check_share({split.shown(index): reason for index, reason in noted.items()}, seen)

    def agree(self, group: ProcessGroup) -> bool:
        """Leave out what the processes have noted; return True if that is anything. Raises TrainError for too many."""
        self.share(group)
        new = {self.splits[name].shown(i): reason for name, bad in self.noted.items() for i, reason in bad.items()}
        if not new:
            return False
        if not group.rank:
            for file, reason in list(new.items())[:SHOWN]:
                log.warning("skipped %s: %s", file, reason)
            log.warning("left out from now on: %d images that cannot be read", len(new))
        for name, bad in self.noted.items():
            self.known[name] |= bad
        self.noted = {name: {} for name in self.splits}
        check_share(self.files, max(self.checked, sum(self.seen.values())))
        for name, split in self.splits.items():
            left = split.targets[self.remaining(name)]
            if not len(left):
                raise none_readable(name)
            gone = np.fromiter(self.known[name], dtype=np.int64)
            empty = gone[np.isin(split.targets[gone], left, invert=True)]
            if len(empty) and name == TRAIN:
                raise no_image_of(split.paths.name(int(empty[0])).partition("/")[0])
        return True

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: the images that are left out, and those that were noted since."""
        known, noted = ({name: dict(bad) for name, bad in found.items()} for found in (self.known, self.noted))
        return {"known": known, "noted": noted, "seen": dict(self.seen)}

    def resume(self, state: Mapping[str, Any]) -> None:
        for name, bad in state["known"].items():
            self.known[name] |= bad  # images without cached features stay left out
        for name, bad in state["noted"].items():
            self.noted[name] |= {index: reason for index, reason in bad.items() if index not in self.known[name]}
        self.seen, self.used = Counter(state["seen"]), Counter()

    def share(self, group: ProcessGroup) -> None:
        """Give each process what all have noted and used: before a checkpoint within an epoch."""
        told = group.gather((self.noted, self.used))
        self.used = Counter()
        for noted, used in told:
            for name, images in used.items():  # a later epoch sees the same images again
                self.seen[name] = min(len(self.splits[name]), self.seen[name] + images)
            for name, bad in noted.items():
                self.noted[name] |= bad


def _reason(split: Split, index: int) -> str:
    """Read an image again, for the reason why it cannot be read."""
    try:
        decode(split.paths[index].read_bytes())
    except (OSError, RequestError) as error:
        return why(error)
    return "it could not be read"
