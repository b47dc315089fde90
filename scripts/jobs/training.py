"""A job in the cloud, decided as a whole before anything is sent: what is uploaded, and the request that creates it."""

import argparse
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from scripts.aws import budget, creation, instances, names
from scripts.aws.account import Aws
from scripts.aws.budget import Item
from scripts.aws.creation import UnansweredError
from scripts.aws.errors import CloudError
from scripts.aws.names import Image, S3Uri
from scripts.aws.requests import Request, check
from scripts.aws.settings import Settings
from scripts.console.command import Interrupted, integer, number, progress, refuse, tell_loading
from scripts.images import registry
from scripts.jobs import training_jobs, watch
from scripts.jobs.inputs import WEIGHTS, Data, Weights, environment
from scripts.jobs.training_jobs import TrainingJobSpec
from scripts.s3 import bucket, storage

PROGRAM = "train.py"
INSTANCE = "ml.g4dn.xlarge"
VOLUME, MAX_VOLUME = 30, 16384  # GB
# A job's longest run in the service is 28 days; its number of hosts is limited by the account's quota alone.
MAX_SECONDS, MAX_INSTANCES = 28 * 24 * 3600, 1000
INPUT_MODES = ("File", "FastFile")
DEBUGGER_NOTE = "--service-debugger: for accounts that had it before 2026-07-30, and programs that write its tensors"


def flags(parser: argparse.ArgumentParser) -> None:
    """The description of a job and its instances; one job's, or every trial's."""
    job = parser.add_argument_group("job").add_argument
    job("--image", metavar="URI", help="required: in ECR, in the job's region (--local: any image of this machine)")
    job("--data", metavar="S3|DIR|sample", help="required: s3://... above train/, valid/ and test/, or a folder")
    job("--upload-to", metavar="S3", help="where a folder goes (default: s3://BUCKET/PROJECT/data/FOLDER)")
    job("--weights", metavar="S3|FILE|WORD", help="a state_dict file; or none, DEFAULT (default), IMAGENET1K_V1 ...")
    job("--output", metavar="S3", help="results: OUTPUT/NAME/output/model.tar.gz (--local: a folder)")
    job("--name", help="of the job (default: PROJECT-train-TIME, of a search PROJECT-tune-TIME)")
    job("--environment", metavar="KEY=VALUE", action="append", help="for the container; may be given again")
    machine = parser.add_argument_group("instances").add_argument
    machine("--instance-type", metavar="T", help=f"default {INSTANCE}; train.py: T,T,... in order, by capacity")
    machine("--volume-size", metavar="GB", type=integer(1, MAX_VOLUME), help=f"disk (default {VOLUME})")
    machine("--spot", action="store_true", help="managed spot: cheaper; may be interrupted, then resumes")
    seconds = integer(1, MAX_SECONDS)
    machine("--max-run", metavar="S", type=seconds, help="seconds until it is stopped (a day; a trial an hour)")
    machine("--max-wait", metavar="S", type=integer(1), help="with --spot: seconds of wait and run (a day more)")
    machine("--max-usd", metavar="USD", type=number, help="refuse what may cost more, on demand until --max-run")
    machine("--input-mode", choices=INPUT_MODES, help="FastFile: read from S3 when opened (default File)")
    machine("--network-isolation", action="store_true", help="no network in the container")


@dataclass(frozen=True)
class Plan:
    """All that a call is going to do. `instead`: the same job on other instances, one after the other."""

    wanted: TrainingJobSpec
    data: Data
    weights: Weights
    create: Request
    program: str  # that follows and stops what is created
    instead: "tuple[Plan, ...]" = ()

    def requests(self, settings: Settings) -> list[Request]:
        """For --dry-run."""
        uploads = self.data.requests(settings)
        if self.weights.file and (place := self.weights.place(settings)):
            uploads.append(storage.file_request(self.weights.file, place, settings))
        return [*uploads, self.create, *(other.create for other in self.instead)]

    def send(self, aws: Aws, settings: Settings) -> None:
        """Check for what is missing before anything is uploaded, and upload before the job is created."""
        registry.find(aws, Image.parse(self.wanted.image))
        for one in (self, *self.instead):
            if creation.description(aws, one.create):
                name = one.wanted.name
                raise CloudError(f"a job {name} already exists, and names are used once: give another --name")
        bucket.require(aws, S3Uri.parse(self.wanted.output, "--output").bucket, create=True)
        if self.data.splits is not None:
            storage.upload(aws, storage.items(self.data.splits), self.data.prefix, settings)
        if self.weights.file and (place := self.weights.place(settings)):
            storage.upload_file(aws, self.weights.file, place, settings)
        storage.require_data(aws, self.data.prefix)
        self.start(aws)

    def start(self, aws: Aws) -> None:
        create(aws, self.create, self.wanted.name, self.program)


def create(aws: Aws, request: Request, name: str, program: str) -> None:
    """Create a job. After any error, the user learns that there may be one now: it would cost money."""
    attach, stop = watch.attach(name, aws.region, program), watch.stop(name, aws.region, program)
    perhaps = f"see with {attach}, stop it with {stop}"
    try:
        creation.create(aws, request)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted while {name} was being created: {perhaps}") from None
    except UnansweredError as error:
        raise CloudError(f"{error}; {name} may have been created: {perhaps}") from None


def tell_created(wanted: TrainingJobSpec, kind: str, each: str, parallel: int = 1, runs: int = 1) -> None:
    """Say of a job or a search where it is seen and what it costs; `each` of its `runs`, so many of them at a time."""
    progress(f"created {wanted.name}\n  {training_jobs.console(wanted.region, wanted.name, kind)}")
    count, spot = wanted.instance_count, wanted.max_wait is not None
    progress("  " + instances.describe(wanted.instance_type, parallel * count, wanted.region, spot=spot))
    most = instances.price(wanted.instance_type, wanted.region).cost(wanted.max_run * runs, count)
    at_most = "" if most is None else f", {most:.2f} USD at most"
    progress(f"  {each} stopped after {wanted.max_run / 3600:.3g} h (--max-run){at_most}")


def plan(
    flags: argparse.Namespace, settings: Settings, weights: Weights, hyperparameters: Mapping[str, str], data: Data
) -> Plan:
    """Raises CloudError for everything that can be known to be wrong without asking AWS."""
    first, *others = kinds(flags)
    name = names.checked(flags.name) if flags.name is not None else names.unique(settings.project, "train")
    wanted = wanted_by(flags, settings, weights, hyperparameters, data, name, kind=first)
    wanted = replace(wanted, keep_alive=flags.keep_alive or None)
    specs = [wanted]
    for position, kind in enumerate(others, 2):
        instances.check(kind)
        key = _volume_key(settings, kind)
        # The checkpoints stay where the first one has them.
        specs.append(replace(wanted, name=names.checked(f"{name}-{position}"), instance_type=kind, volume_kms_key=key))
    for spec in specs:
        kept = f", {spec.keep_alive} s of them kept for the next job" if spec.keep_alive else ""
        check_budget(spec, spec.max_run + (spec.keep_alive or 0), flags.max_usd, kept)
    plans: list[Plan] = []
    for spec in specs:
        request = Request("sagemaker", "CreateTrainingJob", _request(spec, say=not flags.dry_run and not plans))
        check(request, allow_unknown=settings.allow_unknown)
        plans.append(Plan(spec, data, weights, request, PROGRAM))
    if others and flags.dry_run:
        progress(f"of these jobs one runs: {others[0]} only where the service has no {first}, and so on")
    return replace(plans[0], instead=tuple(plans[1:]))


def check_budget(spec: TrainingJobSpec, seconds: float, limit: float | None, note: str = "") -> None:
    """Raises CloudError where so many seconds of all instances may cost more than `limit` USD."""
    count = (spec.instance_count, spec.instance_count)
    budget.check([Item.of(spec.instance_type, spec.region, seconds, count, note, least=0)], limit, "--max-usd")


def kinds(flags: argparse.Namespace) -> list[str]:
    """Return the instance types in the order in which they are tried. Raises CloudError."""
    found = instances.kinds(flags.instance_type or INSTANCE)
    refuse(
        (
            len(found) > 1 and not flags.wait,
            "--instance-type A,B has to be followed: it cannot be combined with --no-wait",
        ),
        (flags.keep_alive and flags.spot, "--keep-alive cannot be combined with --spot: the service keeps none"),
    )
    return found


def _request(spec: TrainingJobSpec, *, say: bool) -> dict[str, Any]:
    """CreateTrainingJob, built by the SDK's Estimator where the SDK is installed."""
    if importlib.util.find_spec("sagemaker") is None:
        if spec.service_debugger:
            raise CloudError("--service-debugger needs the SageMaker SDK: run local_test/setup.sh", 2)
        return training_jobs.training_request(spec)
    if say:
        tell_loading()
    from scripts.jobs import sdk  # takes seconds to import

    return sdk.training_request(spec)


def wanted_by(
    flags: argparse.Namespace,
    settings: Settings,
    weights: Weights,
    hyperparameters: Mapping[str, str],
    data: Data,
    name: str,
    longest: int = training_jobs.MAX_RUN,
    kind: str | None = None,
) -> TrainingJobSpec:
    """The job, or every trial of a search. `longest`: seconds, where --max-run does not say it; `kind` of instance,
    where --instance-type names several. Raises CloudError."""
    region, role = settings.need_region(), settings.need_role()
    if not flags.image:
        raise CloudError("no --image: give the URI that scripts/push.sh prints", 2)
    image = Image.of_target(flags.image, region, "train")
    kind = kind or flags.instance_type or INSTANCE
    instances.check(kind)
    max_run = flags.max_run or longest
    refuse(
        (flags.max_wait and not flags.spot, "--max-wait is for spot instances: give --spot too, or --max-run alone"),
        (
            flags.max_wait and flags.max_wait < max_run,
            f"--max-wait {flags.max_wait} is less than --max-run {max_run}: it counts the run, and the wait before it",
        ),
        (
            flags.network_isolation and not (weights.uri or weights.file) and not is_none(hyperparameters),
            "--network-isolation: the ImageNet weights cannot be downloaded: give --weights FILE, s3://... or none",
        ),
    )
    output = S3Uri.parse(flags.output, "--output") if flags.output else settings.home()
    weights_at = weights.place(settings)
    checkpoints = S3Uri.parse(flags.checkpoints, "--checkpoints") if flags.checkpoints else None
    count = flags.instance_count or 1
    if count > 1:
        progress(f"--instance-count {count}: the instances share each batch, and each is billed")
        if settings.security_groups:
            progress("--security-groups: one of them has to let the instances reach each other, on all ports")
    volume_key = _volume_key(settings, kind)
    if flags.service_debugger:
        progress(DEBUGGER_NOTE)
    return TrainingJobSpec(
        name=name,
        image=image.uri,
        role=role.arn,
        region=region,
        channels=data.channels() | ({WEIGHTS: str(weights_at)} if weights_at else {}),
        hyperparameters=hyperparameters,
        output=str(output),
        instance_type=kind,
        environment=environment(image.uri, flags.environment),
        tags=settings.all_tags(),
        instance_count=count,
        volume_size=flags.volume_size or VOLUME,
        max_run=max_run,
        max_wait=(flags.max_wait or max_run + training_jobs.SPOT_PATIENCE) if flags.spot else None,
        checkpoints=str(checkpoints or output / name / "checkpoints") if flags.spot or checkpoints else None,
        input_mode=flags.input_mode or "File",
        isolated=flags.network_isolation,
        subnets=settings.subnets,
        security_groups=settings.security_groups,
        output_kms_key=settings.output_kms_key,
        volume_kms_key=volume_key,
        service_debugger=flags.service_debugger,
    )


def _volume_key(settings: Settings, kind: str) -> str | None:
    """Return the key for the volumes, where an instance takes one. Raises CloudError."""
    key = settings.volume_kms_key
    if not key:
        return None
    if not instances.takes_volume_key(kind):
        progress(instances.NO_VOLUME_KEY.format(kind))
        return None
    if key.rpartition(":")[2].startswith("alias/"):
        raise CloudError(f"--volume-kms-key {key}: training takes a key's id or ARN here, not an alias", 2)
    return key


def is_none(hyperparameters: Mapping[str, str]) -> bool:
    """Tell whether random weights are asked for."""
    return hyperparameters.get(WEIGHTS, "").lower() == "none"
