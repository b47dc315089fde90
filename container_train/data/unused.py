"""Files that are not used: counted, with a few examples, however many there are. Needs no torch."""

import os
from bisect import insort
from collections import Counter
from collections.abc import Iterable

SHOWN = 5  # files that a message names
MOST_ENDINGS = 50  # that are counted: there are few, unless names end in a number


class Unused:
    """The number of some files, the first of them in the order of their names, and their endings."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.count = 0
        self.first: list[str] = []
        self.endings: Counter[str] = Counter()
        for name in names:
            self.add(name)

    def __len__(self) -> int:
        return self.count

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.first) < SHOWN or name < self.first[-1]:
            insort(self.first, name)
            del self.first[SHOWN:]
        self._count_ending(os.path.splitext(name)[1] or "without ending", 1)  # noqa: PTH122  # no Path for each

    def _count_ending(self, ending: str, files: int) -> None:
        if ending in self.endings or len(self.endings) < MOST_ENDINGS:
            self.endings[ending] += files

    def merge(self, other: "Unused", folder: str) -> None:
        """Add those of another folder, called `folder` in the names; "" leaves the names as they are."""
        self.count += other.count
        self.first = [*self.first, *(f"{folder}/{name}" if folder else name for name in other.first)][:SHOWN]
        for ending, files in other.endings.items():
            self._count_ending(ending, files)

    def __str__(self) -> str:
        """Return the first names, and the endings of many: `6 files (a.c, b.c, c, d.c, e.d and 1 more: ...)`."""
        more = ""
        if self.count > SHOWN:
            often = self.endings.most_common(SHOWN)
            others = self.count - sum(files for _, files in often)
            endings = [f"{files} {ending}" for ending, files in often] + ([f"{others} others"] if others else [])
            more = f" and {self.count - SHOWN} more: {', '.join(endings)}"
        return f"{self.count} file{'s' * (self.count != 1)} ({', '.join(self.first)}{more})"
