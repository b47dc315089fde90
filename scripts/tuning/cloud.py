"""`tune.py` in the cloud: what a search asks for, and following it with a table of its trials."""

import argparse
import re
from dataclasses import replace

from botocore.exceptions import BotoCoreError, ClientError

from scripts.aws import names
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, explain
from scripts.aws.parallel import gather
from scripts.aws.polling import poll
from scripts.aws.requests import Request, check
from scripts.aws.settings import Settings
from scripts.console.command import progress
from scripts.jobs import training, watch
from scripts.jobs.inputs import Data, Weights
from scripts.jobs.training import Plan
from scripts.tuning import table, tuning_jobs
from scripts.tuning.space import Space
from scripts.tuning.trials import Search, Trial
from scripts.tuning.tuning_jobs import OWN_CHECKPOINTS, TRIAL_OVERRIDES, TuningJob, describe

PROGRAM = "tune.py"
LOGS = 100  # trials whose curves are read from their logs: the newest
THREADS = 4
IMAGES = re.compile(r"data: \d+ classes, .*?(\d+) valid")


def plan(flags: argparse.Namespace, settings: Settings, weights: Weights, space: Space, data: Data) -> Plan:
    """Raises CloudError for everything that can be known to be wrong without asking AWS."""
    if flags.strategy == "hyperband" and flags.early_stopping:
        raise CloudError("--early-stopping: hyperband ends poor trials by itself, and the service takes only one", 2)
    listed = [] if flags.warm_start is None else [name.strip() for name in flags.warm_start.split(",")]
    parents = [names.checked(name, "--warm-start", names.MAX_SEARCH) for name in dict.fromkeys(listed)]
    if flags.warm_start_type and not parents:
        raise CloudError("--warm-start-type goes with --warm-start", 2)
    name = flags.name or names.unique(settings.project, "tune", most=names.MAX_SEARCH)
    names.checked(name, "--name", names.MAX_SEARCH)
    fixed = {**TRIAL_OVERRIDES, **{key: str(value) for key, value in space.fixed.items()}}
    trial = training.wanted_by(flags, settings, weights, fixed, data, name, tuning_jobs.MAX_RUN)
    if trial.checkpoints:
        trial = replace(trial, environment={**trial.environment, OWN_CHECKPOINTS: "1"})
    jobs = flags.trials + bool(flags.train_best)
    training.check_budget(trial, trial.max_run * jobs, flags.max_usd, f" in {jobs} jobs")
    request = tuning_jobs.creation(name, trial, space, flags, parents)
    create = Request("sagemaker", "CreateHyperParameterTuningJob", request)
    check(create, allow_unknown=settings.allow_unknown)
    return Plan(trial, data, weights, create, PROGRAM)


def follow(aws: Aws, name: str) -> TuningJob:
    """Until it has ended. Ctrl-C raises Interrupted, and leaves it running; so does an error that stays."""
    with watch.leaving_it_running(name, aws.region, "search", PROGRAM):
        first = describe(aws, name)
        with table.live(first.planned) as show:

            def is_over(job: TuningJob) -> bool:
                show(job.search)
                return not job.in_progress

            return poll(lambda: describe(aws, name), is_over, say=progress, untouched="the search", answered=True)


def with_curves(aws: Aws, search: Search) -> Search:
    """The same with what its newest trials' logs tell, and with the command for its best values.

    A log that cannot be read is left out.
    """
    newest = list(search.trials[-LOGS:])
    images = 0

    def look(trial: Trial) -> Trial:
        nonlocal images
        metrics = watch.Metrics()
        for line in watch.Log(aws, trial.name).new():
            metrics.feed(line)
            if match := IMAGES.search(line):
                images = int(match[1])
        metrics.flush()
        return replace(trial, epochs=metrics.epochs)

    try:
        newest = gather(look, newest, THREADS)
    except (ClientError, BotoCoreError) as error:
        progress(f"the trials' logs cannot be read, and so there are no curves: {explain(error)}")
    command = f"scripts/train.py --from-tuning {search.name} --region {aws.region} --image URI --data S3"
    trials = [*search.trials[:-LOGS], *newest]
    return replace(search, trials=trials, images=images, command=command)
