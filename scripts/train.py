#!/usr/bin/env python3
"""Train in Amazon SageMaker, or the same job in a container on this machine.

scripts/train.py --image URI --data s3://BUCKET/PREFIX --epochs 10      URI as scripts/push.sh prints it
scripts/train.py --image URI --data my-images --spot                    uploads the folder; up to 90 % cheaper
scripts/train.py --image URI --data sample --instance-type ml.m5.xlarge --no-wait
scripts/train.py --image URI --data s3://BUCKET/PREFIX --weights resnet50.pth --network-isolation
scripts/train.py --image URI --data my-images --instance-type ml.g5.xlarge,ml.g4dn.xlarge   next where none is left
scripts/train.py --image URI --data my-images --keep-alive 1800         the next job like it starts at once
scripts/train.py --image URI --data my-images --from-tuning NAME        with the best values of scripts/tune.py
scripts/train.py --image URI --data my-images --dry-run                 prints the requests, sends nothing
scripts/train.py --image URI --data my-images --register byoc-dogs --serving-image URI     into the model registry
scripts/train.py --attach NAME                                          follow a job, also one that has ended
scripts/train.py --stop NAME
scripts/train.py --local --data sample                                  SDK's local mode: no account, needs Docker

Region and role come from --region and --role, from AWS_REGION and BYOC_ROLE, or from byoc.toml. A job costs from the
start of its instances to its end, and for --keep-alive seconds after it. Nothing else of it keeps running.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import use

use("boto3", "PIL", "numpy", "psutil", "tqdm", "docker")

import argparse
from collections.abc import Sequence

from scripts.aws import instances, names, settings
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.requests import show
from scripts.console import command
from scripts.console.command import progress
from scripts.jobs import existing, inputs, outcome, training, training_jobs, watch
from scripts.jobs.inputs import SAMPLE, Weights
from scripts.jobs.training import Plan
from scripts.jobs.training_jobs import STOP_SECONDS, TrainingJobSpec
from scripts.models import registration
from scripts.tuning import results, tuning_jobs

PROGRAM = "train.py"
SAVES = f"; it has {STOP_SECONDS} s to save what it has"


def parser() -> argparse.ArgumentParser:
    made = command.parser(PROGRAM, __doc__ or "")
    training.flags(made)
    made.add_argument("--from-tuning", metavar="NAME|STUDY", help="the best hyperparameters that scripts/tune.py found")
    one = made.add_argument_group("of this one job").add_argument
    count, kept = command.integer(1, training.MAX_INSTANCES), command.integer(0, training_jobs.MAX_KEEP_ALIVE)
    one("--instance-count", metavar="N", type=count, help="that share each batch (default 1)")
    one("--keep-alive", metavar="S", type=kept, help="seconds, billed, that its instances wait for the next job")
    one("--checkpoints", metavar="S3", help="continue from those of an old job (--spot: OUTPUT/NAME/checkpoints)")
    one("--register", metavar="GROUP", help="make the model a version in the model registry; with --serving-image")
    one("--serving-image", metavar="URI", help="that serves it, as scripts/push.sh serve prints it")
    one("--service-debugger", action="store_true", help="the service's own rules and profiler")
    inputs.flags(made)
    existing.flags(made, "job", "in a container on this machine", SAVES)
    settings.add_flags(made, *settings.RESOURCE_KEYS)
    return made


def main(arguments: Sequence[str]) -> int:
    flags, rest = parser().parse_known_args(inputs.dashes(arguments))
    if flags.attach or flags.stop:
        name = existing.named(flags, rest, parser().parse_args([]), "job", also=registration.JOB_FLAGS)
        aws = settings.load(flags).aws()
        registration.check_of_job(flags, aws.region)
        if flags.attach:
            return _follow(aws, name, flags)
        return existing.stop(aws, "TrainingJob", name, "training job", PROGRAM, SAVES, as_json=flags.json)
    inputs.check_unknown(flags, rest)
    inputs.check(flags.data)
    weights = Weights.parse(flags.weights)
    hyperparameters = inputs.given(flags, weights.word)
    if flags.from_tuning:
        found = _found(flags)
        if taken := " ".join(f"--{key} {value}" for key, value in found.items() if key not in hyperparameters):
            progress(f"from {flags.from_tuning}: {taken}")
        hyperparameters = found | hyperparameters
    elif flags.data == SAMPLE:
        from local_test.run import SAMPLE_HYPERPARAMETERS  # imports much, for which --help need not wait

        words = " ".join(f"--{key} {value}" for key, value in SAMPLE_HYPERPARAMETERS.items())
        progress(f"the sample is trained with {words} where you give nothing else")
        hyperparameters = SAMPLE_HYPERPARAMETERS | hyperparameters
    inputs.check_together(hyperparameters)
    chosen = settings.load(flags)
    if flags.local:
        from scripts.jobs import local_training

        return local_training.run(flags, chosen, weights, hyperparameters)
    with inputs.data(flags.data, flags.upload_to, chosen) as data:
        plan = training.plan(flags, chosen, weights, hyperparameters, data)
        registration.check_of_job(flags, plan.wanted.region)
        if flags.dry_run:
            more = registration.requests_of_job(flags, plan.wanted, chosen)
            print(show([*plan.requests(chosen), *more], allow_unknown=chosen.allow_unknown))
            return 0
        aws = chosen.aws()
        registration.need_image(aws, flags)
        plan.send(aws, chosen)
    _tell_created(plan.wanted)
    return _follow(aws, plan.wanted.name, flags, plan.instead)


def _found(flags: argparse.Namespace) -> dict[str, str]:
    """The best hyperparameters of a search: of a study on this machine, or of a tuning job."""
    found = results.read(flags.from_tuning)
    if found is None:
        name = names.checked(flags.from_tuning, "--from-tuning", names.MAX_SEARCH)
        chosen = settings.load(flags)
        if flags.dry_run:
            progress(f"--dry-run: the best values of {name} are not in these requests: they are looked up in AWS")
            return {}
        if chosen.region is None:
            raise CloudError(f"--from-tuning {name} is no search here; for one in the cloud, give --region", 2)
        search = tuning_jobs.describe(chosen.aws(), name).search
        found = search.hyperparameters()
        if not found:
            raise CloudError(f"no trial of {name} was completed (yet): there is nothing to train with")
    return found


def _tell_created(wanted: TrainingJobSpec) -> None:
    training.tell_created(wanted, "jobs", "it is")
    if wanted.keep_alive:
        kept = instances.price(wanted.instance_type, wanted.region).cost(wanted.keep_alive, wanted.instance_count)
        costs = "" if kept is None else f", {kept:.2f} USD more at most"
        progress(f"  its instances are kept for {wanted.keep_alive} s after it (--keep-alive), and billed{costs}")


def _follow(aws: Aws, name: str, flags: argparse.Namespace, instead: Sequence[Plan] = ()) -> int:
    """Follow a job to its end; where the service has no instances for it, the next one of `instead`."""
    if not flags.wait:
        return existing.leave(name, aws.region, PROGRAM, as_json=flags.json)
    job, metrics = watch.follow(aws, name)
    for plan in instead:
        if not job.lacks_capacity:
            break
        kind = plan.wanted.instance_type
        progress(f"{job.name}: no capacity for {job.instance_type}; going on as {plan.wanted.name} on {kind}")
        plan.start(aws)
        _tell_created(plan.wanted)
        job, metrics = watch.follow(aws, plan.wanted.name)
    code = outcome.of_cloud(job, metrics.summary() or dict(job.metrics), as_json=flags.json)
    if code == 0 and flags.register:
        registration.of_job(aws, job, flags)
    return code


if __name__ == "__main__":
    sys.exit(command.run(PROGRAM, main))
