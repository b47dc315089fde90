#!/usr/bin/env python3
"""Search for the best hyperparameters: many trainings, in Amazon SageMaker or on this machine.

scripts/search_space.toml defines the search space, for both.

scripts/tune.py --local --data DIR --weights resnet50.pth --trials 20     here, as processes or in containers
scripts/tune.py --local --data DIR --weights resnet50.pth --trials 40     20 more: a search of one name resumes
scripts/tune.py --local --data sample --strategy hyperband --epochs 9 --parallel 2
scripts/tune.py --image URI --data s3://BUCKET/PREFIX --trials 20 --parallel 4 --spot
scripts/tune.py --image URI --data s3://BUCKET/PREFIX --warm-start NAME   starts from the trials of another search
scripts/tune.py --image URI --data my-images --dry-run                    prints the requests, sends nothing
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
from scripts.aws import names, settings
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.requests import show
from scripts.console import command
from scripts.console.command import progress
from scripts.jobs import existing, inputs, outcome, training, training_jobs, watch
from scripts.jobs.inputs import Weights
from scripts.tuning import cloud, results, space, tuning_jobs
from scripts.tuning.tuning_jobs import TuningJob

PROGRAM = "tune.py"
STRATEGIES = ("bayesian", "random", "grid", "hyperband")
TRIALS = 20


def parser() -> argparse.ArgumentParser:
    made = command.parser(PROGRAM, __doc__ or "")
    search = made.add_argument_group("search").add_argument
    search("--search-space", metavar="FILE", type=Path, default=space.FILE, help="default scripts/search_space.toml")
    search("--strategy", choices=STRATEGIES, default=STRATEGIES[0], help="bayesian (default): TPE with --local")
    search("--trials", metavar="N", type=command.integer(1), help=f"in all (default {TRIALS}; grid: all combinations)")
    search("--parallel", metavar="N", type=command.integer(1), default=1, help="at a time (default 1)")
    search("--early-stopping", action="store_true", help="the service ends poor trials")
    search("--warm-start", metavar="NAME,NAME", help="start from the trials of these searches in the cloud")
    search("--warm-start-type", choices=("identical", "transfer"), help="data and image are the same (default), or not")
    search("--train-best", action="store_true", help="afterwards train with the best values")
    search("--results", metavar="DIR", help="table, best.json, report: DIR/NAME (default local_test/tuning)")
    search("--engine", choices=ENGINES, default="auto", help="--local: as local_test/run.sh has it (default auto)")
    training.flags(made)
    made.set_defaults(instance_count=None, checkpoints=None, service_debugger=False)
    inputs.flags(made)
    existing.flags(made, "search", "on this machine", ", and its trials")
    settings.add_flags(made, *settings.RESOURCE_KEYS)
    return made


def main(arguments: Sequence[str]) -> int:
    flags, rest = parser().parse_known_args(inputs.dashes(arguments))
    if flags.attach or flags.stop:
        also = {"results", "train_best"}
        name = existing.named(flags, rest, parser().parse_args([]), "search", names.MAX_SEARCH, also)
        aws = settings.load(flags).aws()
        if flags.attach:
            return _follow(aws, name, flags)
        trials = ", with its trials"
        return existing.stop(aws, tuning_jobs.NOUN, name, "tuning job", PROGRAM, trials, as_json=flags.json)
    inputs.check_unknown(flags, rest)
    if flags.strategy == "grid" and flags.trials:
        raise CloudError("--trials is for the other strategies: the search space defines a grid (points)", 2)
    inputs.check(flags.data)
    weights = Weights.parse(flags.weights)
    given = inputs.given(flags, weights.word)
    wanted = space.load(flags.search_space).with_fixed(given)
    flags.trials = len(wanted.grid()) if flags.strategy == "grid" else flags.trials or TRIALS
    if flags.parallel > flags.trials:
        raise CloudError(f"--parallel {flags.parallel} is more than the {flags.trials} trials of the search", 2)
    for values in wanted.combinations():
        inputs.check_together(values)
    if flags.strategy == "hyperband" and wanted.most_epochs() <= 2:
        raise CloudError("--strategy hyperband ends poor trials early and needs at least 3 epochs: give --epochs 9", 2)
    if flags.local:
        from scripts.tuning import local

        return local.run(flags, wanted, weights, given)
    chosen = settings.load(flags)
    with inputs.data(flags.data, flags.upload_to, chosen) as data:
        plan = cloud.plan(flags, chosen, weights, wanted, data)
        if flags.dry_run:
            print(show(plan.requests(chosen), allow_unknown=chosen.allow_unknown))
            return 0
        aws = chosen.aws()
        plan.send(aws, chosen)
    each = f"{flags.trials} trials, each"
    training.tell_created(plan.wanted, "hyper-tuning-jobs", each, flags.parallel, flags.trials)
    return _follow(aws, plan.wanted.name, flags)


def _follow(aws: Aws, name: str, flags: argparse.Namespace) -> int:
    if not flags.wait:
        return existing.leave(name, aws.region, PROGRAM, as_json=flags.json)
    job = cloud.follow(aws, name)
    search = cloud.with_curves(aws, job.search)
    folder = Path(flags.results or results.FOLDER).absolute() / name
    results.write(search, folder)
    results.tell(search, folder, as_json=flags.json)
    if job.status != "Completed":
        progress(f"{PROGRAM}: {name} has ended as {job.status}{f': {job.failure}' if job.failure else ''}")
    if search.best is None:
        reasons = [trial.reason for trial in search.trials if trial.reason]
        raise CloudError(f"no trial of {name} was completed{f': {reasons[-1]}' if reasons else ''}")
    if flags.train_best:
        return _train_best(aws, job, flags)
    progress(f"next: {search.command}")
    return 0 if job.status == "Completed" else 1


def _train_best(aws: Aws, job: TuningJob, flags: argparse.Namespace) -> int:
    """A job of the trials' own definition, with the best values and everything that trials leave out."""
    chosen = settings.load(flags)
    name = names.unique(chosen.project, "train")
    request = tuning_jobs.training_request(job, name, names.tag_list(chosen.all_tags()))
    training.create(aws, request, name, training.PROGRAM)
    progress(f"created {name}, which trains with the best values\n  {training_jobs.console(aws.region, name)}")
    done, metrics = watch.follow(aws, name)
    return outcome.of_cloud(done, metrics.summary() or dict(done.metrics), as_json=flags.json)


if __name__ == "__main__":
    sys.exit(command.run(PROGRAM, main))
