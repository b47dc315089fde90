"""Performing the story: each step within its time and the ceiling, its outcome in the record before and after it."""

import contextlib
import itertools
import time
from collections.abc import Mapping
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from local_test.errors import Interrupted, LocalError
from local_test.text import table
from scripts.aws.errors import explain
from scripts.console.command import progress
from scripts.story.programs import at_most, call
from scripts.story.record import FAILED, NOT_RUN, PASSED, RUNNING, Outcome, Record
from scripts.story.steps import STEPS, Step, Story

ERRORS = (LocalError, ClientError, BotoCoreError)
STOPPED = (KeyboardInterrupt, Interrupted)


def run(made: Record, story: Story, out: Path) -> None:
    """All steps, one after the other; the record is saved before and after each."""
    for step in STEPS:
        lacking = [what for what in step.needs if what not in story.made]
        most = step.cost(story.kinds, made.region)
        if lacking or made.status != RUNNING:
            why = {"because": f"there is no {' and no '.join(lacking)}"} if lacking else {}
            made.outcomes.append(Outcome(step.name, NOT_RUN, seen=why))
        elif made.usd + most > made.max_usd:
            made.status = f"stopped before {step.name}, which could cost {most:.2f} USD"
            made.outcomes.append(Outcome(step.name, NOT_RUN, seen={"because": "of --max-usd"}))
        else:
            # What a killed call may have cost by then.
            outcome = Outcome(step.name, RUNNING, most)
            made.outcomes.append(outcome)
            made.save(out)
            progress(f"== {step.name}: at most {most:.2f} USD")
            begun = time.monotonic()
            outcome.status, outcome.seen = _perform(step, story)
            outcome.seconds = round(time.monotonic() - begun, 1)
            outcome.usd = round(min(most, step.cost(story.kinds, made.region, outcome.seconds)), 4)
        made.save(out)
    if made.status == RUNNING:
        passed = all(one.status == PASSED for one in made.outcomes)
        made.status = PASSED if passed else FAILED


def _perform(step: Step, story: Story) -> tuple[str, dict[str, object]]:
    """The step's status, and what it has seen. What a failed one has made is removed at once."""
    begun = time.monotonic()
    try:
        with at_most(step.seconds):
            return PASSED, step.work(story)
    except STOPPED:
        if time.monotonic() - begun < step.seconds:
            raise
        why = f"it took longer than {step.seconds} s"
    except Exception as error:
        why = str(explain(error))
    progress(f"{step.name} failed: {why}")
    with contextlib.suppress(*ERRORS):
        call("cleanup.py", "--all", "--jobs", "--yes")
    return FAILED, {"because": why}


def plan(kinds: Mapping[str, str], region: str, max_usd: float) -> str:
    """The table of --dry-run: what each step costs at most, and which are within the ceiling."""
    most = [step.cost(kinds, region) for step in STEPS]
    rows = [
        (step.name, f"{step.seconds / 3600:g} h", f"{usd:.2f}", "yes" if so_far <= max_usd else "NO")
        for step, usd, so_far in zip(STEPS, most, itertools.accumulate(most), strict=True)
    ]
    rows.append(("all", "", f"{sum(most):.2f}", ""))
    return table(("step", "at most", "USD at most", f"within {max_usd:g} USD"), rows)
