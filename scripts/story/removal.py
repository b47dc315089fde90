"""Removing all that the project has in the account: by the programs that made it, and below its prefix in S3."""

import argparse
import time

from scripts.aws import settings
from scripts.resources import assets
from scripts.s3 import objects
from scripts.story.programs import StepError, ask, call

ROUNDS, PAUSE_SECONDS = 20, 30.0  # a job that is being stopped takes minutes, and writes on


def left() -> list[str]:
    """The names of all that there is of the project, objects in S3 among them."""
    return [f"{one['kind']} {one['name']}" for one in ask("cleanup.py")["found"]] + _keys()


def remove(role: bool) -> None:
    """Remove everything, and with `role` the execution role, too. Raises StepError where something stays."""
    why = ""
    for number in range(ROUNDS):
        try:
            call("cleanup.py", "--all", "--jobs", "--packages", "--data", "--repositories", "--yes")
        except StepError as error:
            why = f"{error}; "
        # Answers of asynchronous endpoints, and what a stopped job had written: the project is the story's alone.
        chosen = settings.load(argparse.Namespace())
        objects.delete(chosen.aws(), chosen.home().bucket, _keys())
        if not (there := left()):
            break
        if number + 1 < ROUNDS:
            time.sleep(PAUSE_SECONDS)
    else:
        raise StepError(f"{why}left: {', '.join(there[:5])}")
    if role:
        call("make_role.py", "--delete")


def _keys() -> list[str]:
    chosen = settings.load(argparse.Namespace())
    return list(assets.below(chosen.aws(), chosen.home()))
