"""The runs of this machine, trainings and searches, found by what they leave; and the page with all of them."""

import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from container_train.paths import replace_file
from container_train.reporting import page, record, summary
from container_train.reporting.measures import MEASURES, in_words
from container_train.reporting.record import number, settings, table
from container_train.reporting.summary import State
from container_train.reporting.words import clock_time, count, duration, share
from local_test import pack
from local_test.errors import LocalError
from local_test.text import table as text_table
from scripts.aws.errors import CloudError
from scripts.console.command import progress
from scripts.environment import ROOT
from scripts.jobs import outputs
from scripts.tuning.results import REPORT, TRIALS

HOME = ROOT / "local_test"  # where run.sh, train.py --local and tune.py --local leave theirs
TEMPLATE = Path(__file__).with_name("runs.html.jinja")
PAGES = {"report.html": "report", "profiler-report.html": "profiler", REPORT: "search"}
NO_RUNS = {"input", "checkpoints", "trials", "node_modules", "__pycache__"}  # folders with much else in them
HEADS = {  # of the columns with figures: the measure
    "time": "time from start to end",
    "epochs": "epochs",
    "validation": "best validation accuracy",
    "test": "test accuracy",
    "problems": "problems and warnings",
}


@dataclass(frozen=True)
class Run:
    """`figures`: of each head of HEADS the number and its words; `pages`: the name of each and where it lies."""

    place: Path
    name: str
    state: State
    started: float
    figures: Mapping[str, tuple[float, str]]
    changed: Mapping[str, str]
    hyperparameters: Mapping[str, str]
    data: str
    pages: Mapping[str, Path]
    compares: bool = True

    @property
    def shown(self) -> str:
        """Its place as report.py takes it."""
        return str(self.place.relative_to(Path.cwd()) if self.place.is_relative_to(Path.cwd()) else self.place)

    @property
    def settings(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.changed.items())

    @property
    def when(self) -> str:
        return clock_time(self.started)[: len("2026-11-27 19:00")]


def places(root: Path) -> Iterator[Path]:
    """The folders and archives below `root` that hold a run, each once."""
    for name, below, files in os.walk(root):
        folder = Path(name)
        if TRIALS in files:
            yield folder
            below[:] = [name for name in below if name == "best"]  # what --train-best has trained
        elif outputs.find(folder) is not None:
            yield folder
            below.clear()
        else:
            yield from (folder / file for file in sorted(files) if file.endswith(outputs.ARCHIVE))
            below[:] = sorted(name for name in below if not name.startswith(".") and name not in NO_RUNS)


def find(roots: Iterable[Path], scratch: Path, files: Path) -> list[Run]:
    """All runs below the folders, the newest first. The pages of archives are unpacked into `files`."""
    found = dict.fromkeys(place.resolve() for root in roots for place in places(root))
    runs = []
    for index, place in enumerate(found):
        try:
            is_search = (place / TRIALS).is_file()
            runs.append(_search(place) if is_search else _training(place, scratch / str(index), files))
        except (CloudError, LocalError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            progress(f"{place} is left out: {str(error) or type(error).__name__}")
    return sorted(runs, key=lambda run: -run.started)


def _training(place: Path, scratch: Path, files: Path) -> Run:
    if is_archive := place.is_file():
        pack.unpack(place, scratch, outputs.LARGEST)
    folder = outputs.find(scratch if is_archive else place)
    if folder is None:
        raise CloudError("it holds nothing that a job writes")
    made = record.read(folder, over=is_archive or outputs.is_over(folder), machine=False)
    damage = [words.replace(str(scratch), str(place)) for words in outputs.damage(folder)]
    if not made:
        raise CloudError("; ".join(damage) or "its files say nothing")
    for words in damage:
        progress(f"warning: {words}: the row lacks what it held")
    state = summary.state(made, time.time())
    if state.word == "Completed" and place.suffix == ".failed":  # as run.sh names what it could not bring to its end
        state = State("Broke off", "cross", "bad", "After the training, before its model was packed and asked.")
    figures = {head: (MEASURES[label].of(made), in_words(made, label)) for head, label in HEADS.items()}
    pages = {word: folder / name for name, word in PAGES.items() if (folder / name).is_file()}
    if is_archive:
        kept = files / scratch.name
        kept.mkdir(parents=True, exist_ok=True)
        pages = {word: Path(shutil.copy(path, kept)) for word, path in pages.items()}
    job = table(made.metrics.get("job"))
    started = made.clock.start or number(job.get("ended")) or place.stat().st_mtime
    data = str(job.get("data") or "")[:8]
    changed = settings(made.hyperparameters)[0]
    return Run(place, made.name, state, started, figures, changed, made.hyperparameters, data, pages)


def _search(folder: Path) -> Run:
    document: dict[str, Any] = json.loads((folder / TRIALS).read_bytes())
    trials, best, objective = document["trials"], document["best"] or {}, str(document["objective"])
    over = sum(trial["status"] != "running" for trial in trials)
    word = "Completed" if best else "Failed"
    state = State(word, "check" if best else "cross", "good" if best else "bad", f"{over} of {len(trials)} trials")
    seconds, value = number(document["seconds"]), number(best.get("value"))
    in_words = share(value) if objective == "valid_accuracy" else f"{objective} {value:.4g}"
    blank = math.nan, ""
    figures = dict.fromkeys(HEADS, blank) | {
        "time": (seconds, duration(seconds) if math.isfinite(seconds) else ""),
        "epochs": (float(len(trials)), count(len(trials), "trial")),
        "validation": (value, in_words) if best else blank,
    }
    values = {key: str(given) for key, given in best.get("hyperparameters", {}).items()}
    started = (folder / TRIALS).stat().st_mtime - (seconds if math.isfinite(seconds) else 0)
    pages = {PAGES[REPORT]: folder / REPORT} if (folder / REPORT).is_file() else {}
    name = f"search {document['name']}"
    return Run(folder, name, state, started, figures, values, values, "", pages, compares=False)


def render(runs: list[Run]) -> str:
    """The table of all runs, as plain text."""
    rows = [
        [run.shown, run.state.word, run.when, *(words for _, words in run.figures.values()), run.settings]
        for run in runs
    ]
    return text_table(["run", "status", "started (UTC)", *HEADS, "settings"], rows)


def write(runs: list[Run], target: Path) -> None:
    """The page, with links to the runs' own pages relative to its place."""
    home = target.absolute().parent
    text = page.render(
        TEMPLATE,
        {},
        runs=runs,
        heads=HEADS,
        link=lambda path: Path(os.path.relpath(path, home)).as_posix(),
        data=[
            {
                "place": run.shown,
                "name": run.name,
                "figures": [(HEADS[head], words) for head, (_, words) in run.figures.items()],
                "settings": run.hyperparameters,
                "data": run.data,
            }
            for run in runs
        ],
        made=clock_time(time.time()),
    )
    replace_file(target, text.encode(errors="replace"))  # names of files that are not UTF-8
