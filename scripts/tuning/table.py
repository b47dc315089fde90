"""The trials as they go: a table that is drawn again on a terminal, a line for each change in a log."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from scripts.console.command import progress
from scripts.tuning.trials import OVER, Search, Trial, heads, row, words

if TYPE_CHECKING:
    from rich.table import Table

ROWS, AROUND = 30, 8  # of the table on a terminal: the newest trials; and lines around them
COLOURS = {"running": "cyan", "failed": "red", "pruned": "yellow", "stopped": "yellow"}


@contextlib.contextmanager
def live(total: int) -> Iterator[Callable[[Search], None]]:
    """A function to be called whenever something may have changed; `total` trials are planned."""
    if not sys.stderr.isatty():
        yield Lines(total)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    rows = max(5, min(ROWS, console.size.height - AROUND))
    with Live(console=console, auto_refresh=False) as screen:
        yield lambda search: screen.update(_drawn(search, total, rows), refresh=True)


class Lines:
    """A line for a trial that has begun, and one for each that is over; not for those that were over before."""

    def __init__(self, total: int, say: Callable[[str], None] = progress) -> None:
        self.total, self.say = total, say
        self.known: dict[int, str] | None = None

    def __call__(self, search: Search) -> None:
        if self.known is None:
            self.known = {trial.number: trial.status for trial in search.trials if trial.status in OVER}
        for trial in search.trials:
            if self.known.get(trial.number) != trial.status:
                self.known[trial.number] = trial.status
                self.say(line(trial, search, self.total))


def line(trial: Trial, search: Search, total: int) -> str:
    said = f"trial {trial.number}: {trial.status}"
    if trial.status in OVER:
        said += f" ({search.count(*OVER)} of {total} done)"
    said += ", " + ", ".join(f"{name} {words(value)}" for name, value in trial.parameters.items())
    if trial.value is not None:
        said += f": {search.space.objective} {words(trial.value)}"
        said += ", the best so far" if search.best is trial else ""
    if trial.reason:
        said += f": {trial.reason}"
    return said + (f" ({trial.seconds:.0f} s)" if trial.seconds is not None else "")


def _drawn(search: Search, total: int, rows: int) -> "Table":
    from rich.table import Table

    best = search.best
    title = f"{search.name} ({search.strategy}, {search.where}): {search.count(*OVER)} of {total} trials"
    if best is not None:
        title += f", best {search.space.objective} {words(best.value)} in trial {best.number}"
    table = Table(*heads(search.space), title=title, title_justify="left")
    shown = list(search.trials[-rows:])
    if best is not None and best not in shown:
        shown = [best, *shown[1:]]
    for trial in shown:
        table.add_row(
            *row(trial, search.space, best),
            style="bold green" if trial is best else COLOURS.get(trial.status, ""),
        )
    return table
