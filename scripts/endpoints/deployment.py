"""A model to be served: the requests that make an endpoint of it, or give it to one that is there. No network."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.aws import budget, instances, names
from scripts.aws.budget import Item
from scripts.aws.errors import CloudError
from scripts.aws.names import Image, Reference, S3Uri
from scripts.aws.requests import Request
from scripts.aws.settings import Settings
from scripts.console.command import progress
from scripts.endpoints import model_data, modes
from scripts.endpoints.modes import INSTANCE_TYPE, MULTI_MODEL, SERVERLESS, Mode

ENDPOINT_TAG = "byoc-endpoint"  # on a model and a configuration: the endpoint that they were made for
VARIANT, SHADOW = "AllTraffic", "Shadow"
TIMEOUT = 600  # seconds, for the start and for the download
STRATEGIES = ("all-at-once", "canary", "linear", "rolling")
_ACCELERATED = re.compile(r"ml\.(?:g|p|inf|trn)\d")


@dataclass(frozen=True)
class ServedModel:
    """A model, by its `name`, and what serves it. `model_data`: model.tar.gz, or the prefix below which several are."""

    name: str
    image: str
    model_data: S3Uri
    instance_type: str
    instance_count: int
    environment: Mapping[str, str]
    network_isolation: bool


@dataclass(frozen=True)
class Deployment(ServedModel):
    """A model on some instances, or serverless; the configuration has its name.

    `instance_type`: A,B for instance pools; it does not count for a serverless endpoint.
    """

    endpoint: str
    startup_timeout: int  # seconds until /ping is 200
    download_timeout: int  # seconds for model.tar.gz
    mode: Mode = field(default_factory=Mode)
    package: str | None = None  # ARN in the model registry, which says image and model
    shadow: S3Uri | None = None  # model.tar.gz of the variant whose answers nobody gets

    @property
    def is_serverless(self) -> bool:
        return self.mode.name == SERVERLESS

    def cost(self, region: str) -> str:
        """Return what it costs, in one line."""
        if self.is_serverless:
            config = self.mode.variant["ServerlessConfig"]
            return modes.cost(config["MemorySizeInMB"], config.get("ProvisionedConcurrency"))
        return instances.describe(self.instance_type, self.total_instances, region)

    @property
    def total_instances(self) -> int:
        """The number of instances it begins with, that of the shadow variant included."""
        return self.instance_count + bool(self.shadow)

    def usd_per_hour(self, region: str) -> float | None:
        """Return the price of its instances, where it is known."""
        price = None if self.is_serverless else instances.price(self.instance_type, region).hourly
        return None if price is None else price * self.total_instances

    def per_day(self, region: str, bounds: tuple[int, int] | None) -> list[Item]:
        """Return what it costs a day; `bounds`: the fewest and the most instances of its autoscaling."""
        if self.is_serverless:
            config = self.mode.variant["ServerlessConfig"]
            kept = config.get("ProvisionedConcurrency", 0)
            # As if they computed all day: the price of keeping them ready is lower.
            usd = kept * config["MemorySizeInMB"] / 1024 * modes.SERVERLESS_GB_SECOND * budget.DAY
            return [Item(f"{kept} provisioned (serverless; requests are not counted)", usd, usd)]
        count = bounds or (self.instance_count, self.instance_count)
        found = [Item.of(self.instance_type, region, budget.DAY, count)]
        return [*found, Item.of(self.instance_type, region, budget.DAY, (1, 1), ", shadow")] if self.shadow else found

    def parts(self, settings: Settings) -> list[Request]:
        """Return what makes the models, then the configuration."""
        tags = {**settings.all_tags(), ENDPOINT_TAG: self.endpoint}
        several = self.mode.name == MULTI_MODEL
        container = {"ModelDataUrl": f"{self.model_data}/" if several else str(self.model_data), **self.mode.container}
        environment = {**self.mode.environment, **self.environment}
        container = {"ModelPackageName": self.package} if self.package else {"Image": self.image, **container}
        containers = {self.name: container}
        configuration: dict[str, Any] = {
            "EndpointConfigName": self.name,
            "ProductionVariants": [self._variant(VARIANT, self.name, self.instance_count)],
            "Tags": names.tag_list(tags),
            **self.mode.configuration,
        }
        if self.shadow:
            name = f"{self.name[: names.MAX_NAME - len(SHADOW) - 1].rstrip('-')}-{SHADOW.lower()}"
            containers[name] = {"Image": self.image, "ModelDataUrl": str(self.shadow)}
            configuration["ShadowProductionVariants"] = [self._variant(SHADOW, name, 1)]
        has_volume = not self.is_serverless and instances.takes_volume_key(self.instance_type)
        if settings.volume_kms_key and has_volume:
            configuration["KmsKeyId"] = settings.volume_kms_key
        models = [
            model_request(name, container, environment, tags, settings, self.network_isolation)
            for name, container in containers.items()
        ]
        return [*models, Request("sagemaker", "CreateEndpointConfig", configuration)]

    def _variant(self, name: str, model: str, count: int) -> dict[str, Any]:
        variant: dict[str, Any] = {"VariantName": name, "ModelName": model, **self.mode.variant}
        if not self.is_serverless:
            kinds = instances.kinds(self.instance_type)
            pools = [{"InstanceType": kind, "Priority": number} for number, kind in enumerate(kinds, 1)]
            variant |= {
                **({"InstanceType": kinds[0]} if len(kinds) == 1 else {"InstancePools": pools}),
                "InitialInstanceCount": count,
                "InitialVariantWeight": 1.0,  # of the shadow: it gets a copy of every request
                "ModelDataDownloadTimeoutInSeconds": self.download_timeout,
                "ContainerStartupHealthCheckTimeoutInSeconds": self.startup_timeout,
            }
        return variant


def model_request(
    name: str,
    container: Mapping[str, Any],
    environment: Mapping[str, str],
    tags: Mapping[str, str],
    settings: Settings,
    isolated: bool,
) -> Request:
    """CreateModel; `container`: the image and where the model's files are, or a model package."""
    primary = {**container, **({"Environment": dict(environment)} if environment else {})}
    model: dict[str, Any] = {
        "ModelName": name,
        "PrimaryContainer": primary,
        "ExecutionRoleArn": settings.need_role().arn,
        "EnableNetworkIsolation": isolated,
        "Tags": names.tag_list(tags),
    }
    if vpc := settings.vpc():
        model["VpcConfig"] = vpc
    return Request("sagemaker", "CreateModel", model)


def from_flags(flags: argparse.Namespace, chosen: Settings, region: str, environment: Mapping[str, str]) -> Deployment:
    """Return what the flags of deploy.py ask for, without asking AWS. Raises CloudError."""
    mode = modes.of(flags, chosen)
    for name in ("success_topic", "error_topic", "alarm_topic"):
        topic = getattr(flags, name)
        if topic and not re.match(rf"arn:[\w-]+:sns:{region}:\d{{12}}:", topic):
            flag = f"--{name.replace('_', '-')}"
            raise CloudError(f"{flag} {topic}: expected arn:aws:sns:{region}:ACCOUNT:NAME, a topic in this region", 2)
    prefix = S3Uri.parse(flags.multi_model, "--multi-model") if flags.multi_model else None
    kind = check_server(flags, chosen, region, environment, has_volume=not flags.serverless, pools=True)
    package = Reference.parse(flags.model_package, "--model-package") if flags.model_package else None
    # What a package holds is looked up later.
    artifact = chosen.home() if package else prefix or artifact_of(flags, chosen)
    endpoint = names.checked(flags.name) if flags.name is not None else names.unique(chosen.project, "serve")
    if not endpoint.startswith(chosen.project):
        progress(f"{endpoint} does not begin with {chosen.project}: the permissions in scripts/iam do not cover it")
    if flags.instance_count:
        check_strategy(flags.strategy, flags.instance_count)
    base = resource_name(endpoint, chosen.project)
    return Deployment(
        endpoint=endpoint,
        name=names.unique(base) if flags.update else base,
        image=flags.image or "",
        model_data=artifact,
        instance_type=kind,
        instance_count=flags.instance_count or 1,
        environment=environment,
        startup_timeout=flags.startup_timeout or TIMEOUT,
        download_timeout=flags.download_timeout or TIMEOUT,
        network_isolation=flags.network_isolation,
        mode=mode,
        package=package.arn(chosen.need_role(), region) if package and flags.dry_run else None,
        shadow=_artifact(flags.shadow, "--shadow", flags, chosen) if flags.shadow else None,
    )


def artifact_of(flags: argparse.Namespace, chosen: Settings) -> S3Uri:
    """Return where model.tar.gz is by --model-data, or by --job and train.py's default. Raises CloudError."""
    if not flags.model_data and not flags.job:
        raise CloudError("no model: give --model-data s3://BUCKET/.../model.tar.gz, or the --job that made it", 2)
    if flags.model_data:
        return model_data.s3_uri(flags.model_data)
    if "://" in flags.job:
        raise CloudError(f"--job {flags.job}: expected a training job's name; --model-data takes an address in S3", 2)
    return _artifact(flags.job, "--job", flags, chosen)


def _artifact(model: str, flag: str, flags: argparse.Namespace, chosen: Settings) -> S3Uri:
    """Return where model.tar.gz is: `model` itself, or by train.py's default that of the job of this name."""
    if "://" in model:
        return model_data.s3_uri(model, flag)
    place = chosen.home() / names.checked(model, flag) / "output" / "model.tar.gz"
    if flags.dry_run:  # otherwise it is looked up
        progress(f"--dry-run: the model of {model} is taken to lie where train.py lets it be put by default")
    return place


def check_server(
    flags: argparse.Namespace,
    chosen: Settings,
    region: str,
    environment: Mapping[str, str],
    *,
    has_volume: bool,
    pools: bool = False,
) -> str:
    """Return the instance type, after a look at image, role and environment; `pools`: it may be several, A,B.

    Raises CloudError.
    """
    if not flags.image and not getattr(flags, "model_package", None):
        raise CloudError("no image: give --image URI, as scripts/push.sh serve prints it", 2)
    image = Image.of_target(flags.image, region, "serve") if flags.image else None
    chosen.need_role()
    kinds = instances.kinds(flags.instance_type or INSTANCE_TYPE)
    kind = ",".join(kinds)
    if len(kinds) > 1 and not pools:
        raise CloudError(f"--instance-type {kind}: only an endpoint takes several types; give one", 2)
    if len(set(map(instances.architecture, kinds))) > 1:
        raise CloudError(f"--instance-type {kind}: one image cannot be for ARM and for other processors", 2)
    if image and image.repository in (f"{chosen.project}-{target}" for target in model_data.TARGETS.values()):
        model_data.check_environment(environment)
    for one in kinds:
        if _ACCELERATED.match(one):
            progress(f"{one} has an accelerator that this server does not use: ml.c6i.xlarge costs less")
    if chosen.volume_kms_key and not has_volume:
        progress("a serverless endpoint has no volume of its own: --volume-kms-key is left out")
    elif chosen.volume_kms_key and not instances.takes_volume_key(kind):
        progress(instances.NO_VOLUME_KEY.format(kind))
    return kind


def requests(
    wanted: Deployment, flags: argparse.Namespace, chosen: Settings, guards: Sequence[str] = ()
) -> list[Request]:
    """Return what makes or updates the endpoint. `guards`: names of its own alarms, by which an update rolls back."""
    endpoint: dict[str, Any] = {"EndpointName": wanted.endpoint, "EndpointConfigName": wanted.name}
    if not flags.update:
        endpoint["Tags"] = names.tag_list(chosen.all_tags())
        return [*wanted.parts(chosen), Request("sagemaker", "CreateEndpoint", endpoint)]
    change = policy(flags.strategy or STRATEGIES[0], flags.wait_interval, list(dict.fromkeys([*flags.alarm, *guards])))
    endpoint |= {
        # As many instances as it is scaled to now.
        "RetainAllVariantProperties": flags.instance_count is None and not wanted.is_serverless,
        **({"DeploymentConfig": change} if change else {}),
    }
    return [*wanted.parts(chosen), Request("sagemaker", "UpdateEndpoint", endpoint)]


def resource_name(endpoint: str, project: str) -> str:
    """Of an endpoint's first model and configuration: they begin with the project under any name of the endpoint."""
    name = endpoint if endpoint.startswith(project) else f"{project}-{endpoint}"
    return name[: names.MAX_NAME].rstrip("-")


def check_strategy(strategy: str | None, instances: int) -> None:
    """Raises CloudError where there are too few instances for it."""
    if strategy == "rolling" and instances < 2:
        raise CloudError("--strategy rolling replaces half of the instances at most: it needs --instance-count 2", 2)


def policy(strategy: str, pause: int, alarms: Sequence[str]) -> dict[str, Any] | None:
    """DeploymentConfig for all-at-once, canary, linear or rolling; `pause` in seconds between the steps.

    The sizes are within what the service allows: a canary of at most half, steps of 10 to 50 %.
    None where the service's own default is asked for.
    """
    found: dict[str, Any] = {}
    if strategy == "rolling":
        share = {"Type": "CAPACITY_PERCENT", "Value": 50}
        found["RollingUpdatePolicy"] = {"MaximumBatchSize": share, "WaitIntervalInSeconds": pause}
    elif strategy != STRATEGIES[0] or alarms:
        routing: dict[str, Any] = {"Type": strategy.upper().replace("-", "_"), "WaitIntervalInSeconds": pause}
        if strategy == "canary":
            routing["CanarySize"] = {"Type": "CAPACITY_PERCENT", "Value": 20}
        elif strategy == "linear":
            routing["LinearStepSize"] = {"Type": "CAPACITY_PERCENT", "Value": 25}
        found["BlueGreenUpdatePolicy"] = {"TrafficRoutingConfiguration": routing}
    if alarms:
        found["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in alarms]}
    return found or None
