"""The framework events of the service's own profiler, as a timeline: Chrome trace events in framework/pevents.

They are read as smdebug writes them (smdebug/core/tfevent/timeline_file_writer.py): a list of JSON objects, the first
of which says from when on `ts` counts; step `n` is an event of the process `Step:ModeKeys.TRAIN`. Times in
microseconds. What else such files hold (operators, data loaders' workers) is passed over.
https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-analyze-data.html
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from container_train.profiler.store import Phase, Steps, Timeline

FOLDERS = ("profiler", "profiler-output", "")
TRAIN, EVAL = "Step:ModeKeys.TRAIN", "Step:ModeKeys.EVAL"
PAUSE = 5.0  # seconds between evaluation steps of one evaluation


def timeline(out: Path) -> Timeline | None:
    """None where the service has left no framework events."""
    files = [file for folder in FOLDERS for file in sorted((out / folder / "framework").rglob("*_pythontimeline.json"))]
    train: list[tuple[float, float, float]] = []  # start, seconds, number
    evaluate: list[tuple[float, float, float]] = []
    for file in files:
        for name, step in _steps(file):
            (train if name == TRAIN else evaluate).append(step)
    if not train and not evaluate:
        return None
    steps = np.array(sorted(train)).reshape(-1, 3)
    nothing = np.full(len(steps), np.nan)
    return Timeline(
        _joined("train", sorted(train + evaluate)) + _joined("evaluate", sorted(evaluate)),
        Steps(
            number=steps[:, 2].astype(np.int64),
            epoch=np.zeros(len(steps), dtype=np.int64),
            start=steps[:, 0],
            weight=np.ones(len(steps)),
            total=steps[:, 1],
            data=nothing,
            forward=nothing,
            backward=nothing,
            optimizer=nothing,
        ),
        [],
    )


def _steps(file: Path) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """(name, (start in seconds since 1970, seconds, number)) of each step in a file, a half-written one too."""
    zero = 0.0
    for event in _events(file):
        arguments = event.get("args")
        arguments = arguments if isinstance(arguments, dict) else {}
        try:
            if "start_time_since_epoch_in_micros" in arguments:
                zero = float(arguments["start_time_since_epoch_in_micros"])
            elif event.get("name") in (TRAIN, EVAL) and event.get("ph") == "X" and zero:
                start = (zero + float(event["ts"])) / 1e6
                yield event["name"], (start, float(event["dur"]) / 1e6, float(arguments.get("step_num", 0)))
        except (KeyError, TypeError, ValueError):
            continue


def _events(file: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            event = json.loads(line.strip().rstrip(","))
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def _joined(name: str, steps: list[tuple[float, float, float]]) -> list[Phase]:
    """Steps that follow each other, as one phase."""
    phases: list[Phase] = []
    for start, seconds, _ in steps:
        if phases and start - phases[-1].end <= PAUSE:
            phases[-1] = Phase(name, phases[-1].start, max(phases[-1].end, start + seconds))
        else:
            phases.append(Phase(name, start, start + seconds))
    return phases
