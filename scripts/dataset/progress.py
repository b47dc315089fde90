"""Progress of long work in bytes: a bar on a terminal, a line every few seconds in a log."""

import sys

from tqdm import tqdm

LOG_EVERY_SECONDS = 10.0


class Progress(tqdm):  # type: ignore[type-arg]
    """Bytes done, on standard error; `total` is None where it is not known."""

    def __init__(self, name: str, total: int | None) -> None:
        pause, delay = (0.1, 0.0) if sys.stderr.isatty() else (LOG_EVERY_SECONDS, LOG_EVERY_SECONDS)
        super().__init__(total=total, unit="B", unit_scale=True, desc=name, mininterval=pause, delay=delay)
