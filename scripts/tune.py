#!/usr/bin/env python3
"""Search for the best hyperparameters: many trainings, in Amazon SageMaker or on this machine.

What is searched stands in scripts/search_space.toml, for both.

scripts/tune.py --local --data DIR --weights resnet50.pth --trials 20     here, as processes or in containers
scripts/tune.py --local --data DIR --trials 40                            20 more: a search of one name goes on
scripts/tune.py --local --data sample --strategy hyperband --epochs 9 --parallel 2
scripts/tune.py --image URI --data s3://BUCKET/PREFIX --trials 20 --parallel 4 --spot
scripts/tune.py --image URI --data s3://BUCKET/PREFIX --warm-start NAME   begins with what a search has learned
scripts/tune.py --image URI --data my-pictures --dry-run                  prints the requests, sends nothing
scripts/tune.py --attach NAME --train-best                                follow it, then train with the best values
scripts/tune.py --stop NAME

Every other --name value is a hyperparameter that all trials share. Afterwards there are a table of trials, best.json
and tuning-report.html in local_test/tuning/NAME; scripts/train.py --from-tuning NAME trains with the best values.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import use

use("boto3", "PIL", "psutil", "tqdm", "optuna", "rich", "bokeh")

import argparse
from collections.abc import Sequence

from local_test.options import ENGINES
from scripts.cloud import command, inputs, settings, training
from scripts.cloud.errors import CloudError
from scripts.cloud.inputs import Weights
from scripts.tuning import results, space

PROGRAM = "tune.py"
STRATEGIES = ("bayesian", "random", "grid", "hyperband")
TRIALS = 20
# Flags that go with --attach and --stop.
FOR_EXISTING = {"attach", "stop", "wait", "json", "config", "region", "results", "train_best", *training.SETTINGS}


def parser() -> argparse.ArgumentParser:
    made = command.parser(PROGRAM, __doc__ or "")
    search = made.add_argument_group("search").add_argument
    search("--space", metavar="FILE", type=Path, default=space.FILE, help="default scripts/search_space.toml")
    search("--strategy", choices=STRATEGIES, default=STRATEGIES[0], help="bayesian (default): TPE with --local")
    search("--trials", metavar="N", type=int, help=f"in all (default {TRIALS}; grid: all combinations)")
    search("--parallel", metavar="N", type=int, default=1, help="at a time (default 1)")
    search("--early-stopping", action="store_true", help="the service ends trials that do not look promising")
    search("--warm-start", metavar="NAME,NAME", help="begin with what these searches in the cloud have learned")
    search("--warm-start-type", choices=("identical", "transfer"), help="data and image are the same (default), or not")
    search("--train-best", action="store_true", help="afterwards train with the best values")
    search("--results", metavar="DIR", help="table, best.json, report: DIR/NAME (default local_test/tuning)")
    search("--engine", choices=ENGINES, default="auto", help="--local: as local_test/run.sh has it (default auto)")
    training.flags(made)
    made.set_defaults(instance_count=None, checkpoints=None, service_debugger=False)
    inputs.flags(made)
    how = made.add_argument_group("how").add_argument
    how("--local", action="store_true", help="on this machine")
    how("--wait", action=argparse.BooleanOptionalAction, default=True, help="follow it to its end (default)")
    how("--dry-run", action="store_true", help="print the requests as JSON, send nothing")
    how("--json", action="store_true", help="print one JSON object at the end")
    how("--attach", metavar="NAME", help="follow this search")
    how("--stop", metavar="NAME", help="stop this search, and its trials")
    settings.add_flags(made, *training.SETTINGS)
    return made


def main(arguments: Sequence[str]) -> int:
    flags, rest = parser().parse_known_args(inputs.dashes(arguments))
    for name in ("trials", "parallel"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            raise CloudError(f"--{name} has value {value}: expected at least 1", 2)
    if flags.strategy == "grid" and flags.trials:
        raise CloudError("--trials is for the other strategies: a grid has the trials of its space's file (points)", 2)
    flags.trials = flags.trials or TRIALS
    inputs.check(flags.data)
    weights = Weights.parse(flags.weights)
    given = inputs.given(flags, rest, weights.word)
    wanted = space.load(flags.space).with_fixed(given)
    if flags.local:
        from scripts.tuning import local

        return local.run(flags, wanted, weights, given)
    raise CloudError("not yet", 2)


if __name__ == "__main__":
    sys.exit(command.run(PROGRAM, main))
