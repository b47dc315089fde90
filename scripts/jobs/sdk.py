"""The SageMaker Python SDK, version 2: imported here and in sdk_local.py, since its end is set for July 2027.

Its telemetry is off, and what it logs on import and of defaults it does not apply is left out.
"""

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.credentials

# Read when the package is imported.
os.environ.setdefault("SAGEMAKER_SUPPRESS_V2_WARNING", "1")
# Its INFO lines say on every call that telemetry is collected, which it then is not.
for _name in ("sagemaker", "sagemaker.config"):
    logging.getLogger(_name).setLevel(logging.WARNING)

_handlers, _level = list(logging.getLogger().handlers), logging.getLogger().level
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a dozen of its modules have escape sequences that Python warns of
    import sagemaker as sagemaker
    import sagemaker.experiments  # sets up logging anew when a job is made, if not now
    import sagemaker.local.entities
    import sagemaker.local.image
    import sagemaker.local.local_session
    from sagemaker.debugger import DebuggerHookConfig, ProfilerConfig, ProfilerRule, Rule, rule_configs
    from sagemaker.estimator import Estimator
    from sagemaker.inputs import TrainingInput
    from sagemaker.local import LocalSession as LocalSession
    from sagemaker.model import Model as Model
    from sagemaker.parameter import CategoricalParameter, ContinuousParameter, IntegerParameter
    from sagemaker.session import Session
    from sagemaker.tuner import (
        HyperbandStrategyConfig,
        HyperparameterTuner,
        StrategyConfig,
        WarmStartConfig,
        WarmStartTypes,
    )

# On import it lets every library's INFO lines through, to standard error.
logging.getLogger().handlers[:] = _handlers
logging.getLogger().setLevel(_level)

from scripts.aws import names
from scripts.aws.account import core_session
from scripts.aws.errors import CloudError, one_line
from scripts.jobs.training_jobs import Wanted
from scripts.tuning.space import Choice, Range
from scripts.tuning.tuning_jobs import TuningJobSpec

CONFIG = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
# The SDK holds it against a schema whenever it looks something up, twenty times a job: seconds, for a constant.
for _module in (sagemaker.utils, sagemaker.session, sagemaker.local.local_session):
    _module.validate_sagemaker_config = lambda _: None
# The service's rules see nothing of a short job at their default of 500 steps.
SAVE_INTERVAL = 10
PROFILER_INTERVAL = 500  # milliseconds
WEIGHTS = "weights"  # the channel that is one file, read at once: never streamed


class Recorder(Session):  # type: ignore[misc]
    """A session that keeps what it would send (`requests`) and sends nothing; it needs no credentials."""

    def __init__(self, boto_session: boto3.Session, bucket: str) -> None:
        self.requests: list[dict[str, Any]] = []
        super().__init__(boto_session=boto_session, default_bucket=bucket, sagemaker_config=CONFIG)

    def _intercept_create_request(self, request: dict[str, Any], create: Any, func_name: str | None = None) -> None:
        self.requests.append(request)


def offline(region: str) -> boto3.Session:
    """A session without credentials, which does not look for any either: not even at an instance's metadata."""
    core = core_session()
    core.register_component("credential_provider", botocore.credentials.CredentialResolver(providers=[]))
    return boto3.Session(botocore_session=core, region_name=region)


def training_request(wanted: Wanted) -> dict[str, Any]:
    """CreateTrainingJob as the SDK's Estimator makes it. Raises CloudError for what the SDK refuses."""
    recorder = Recorder(offline(wanted.region), names.S3Uri.parse(wanted.output, "--output").bucket)
    try:
        fit(wanted, recorder)
    except ValueError as error:
        raise CloudError(f"the SageMaker SDK refuses this job: {one_line(str(error))}", 2) from None
    (request,) = recorder.requests
    return request


def tuning_request(wanted: TuningJobSpec) -> dict[str, Any]:
    """CreateHyperParameterTuningJob as the SDK's HyperparameterTuner makes it, over the Estimator of one trial."""
    job = wanted.trial
    recorder = Recorder(offline(job.region), names.S3Uri.parse(job.output, "--output").bucket)
    space = wanted.space.discrete() if wanted.strategy == "grid" else wanted.space
    warm = {"identical": WarmStartTypes.IDENTICAL_DATA_AND_ALGORITHM, "transfer": WarmStartTypes.TRANSFER_LEARNING}
    try:
        tuner = HyperparameterTuner(
            _estimator(job, recorder),
            objective_metric_name=space.objective,
            objective_type="Maximize" if space.maximises else "Minimize",
            hyperparameter_ranges={name: _range(part) for name, part in space.searched.items()},
            metric_definitions=_definitions(),
            strategy=wanted.strategy.capitalize(),
            strategy_config=StrategyConfig(HyperbandStrategyConfig(max_resource=wanted.epochs, min_resource=1))
            if wanted.strategy == "hyperband"
            else None,
            max_jobs=wanted.trials,
            max_parallel_jobs=wanted.parallel,
            early_stopping_type="Auto" if wanted.early_stopping else "Off",
            warm_start_config=WarmStartConfig(warm[wanted.warm_start_type], set(wanted.warm_start))
            if wanted.warm_start
            else None,
            tags=names.tag_list(job.tags),
        )
        with _silent("sagemaker.estimator"):  # it misses a finished job, of which there is none yet
            tuner.fit(_inputs(job), job_name=wanted.name, wait=False)
    except ValueError as error:
        raise CloudError(f"the SageMaker SDK refuses this search: {one_line(str(error))}", 2) from None
    (request,) = recorder.requests
    if "WarmStartConfig" in request:  # made of a set
        request["WarmStartConfig"]["ParentHyperParameterTuningJobs"].sort(key=str)
    return request


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _range(part: Range | Choice) -> Any:
    if isinstance(part, Choice):
        return CategoricalParameter([str(value) for value in part.values])
    kind = IntegerParameter if part.whole else ContinuousParameter
    return kind(part.low, part.high, scaling_type="Logarithmic" if part.logarithmic else "Linear")


def fit(wanted: Wanted, session: Session) -> None:
    """The Estimator's job in this session. In local mode this is the whole job."""
    _estimator(wanted, session).fit(_inputs(wanted), job_name=wanted.name, wait=False, logs=False)


def _definitions() -> list[dict[str, str]]:
    # Imported here: the package of the training program needs numpy, which other users of this module do not.
    from container_train.training.metrics import DEFINITIONS

    return DEFINITIONS


def _estimator(wanted: Wanted, session: Session) -> Estimator:
    debugger: dict[str, Any] = {"debugger_hook_config": False, "disable_profiler": True}
    if wanted.service_debugger:
        debugger = _service_debugger(wanted)
    return Estimator(
        image_uri=wanted.image,
        role=wanted.role,
        instance_type=wanted.instance_type,
        instance_count=wanted.instance_count,
        volume_size=wanted.volume_size,
        volume_kms_key=wanted.volume_kms_key,
        output_path=wanted.output,
        output_kms_key=wanted.output_kms_key,
        input_mode=wanted.input_mode,
        max_run=wanted.max_run,
        use_spot_instances=wanted.max_wait is not None,
        max_wait=wanted.max_wait,
        checkpoint_s3_uri=wanted.checkpoints,
        enable_network_isolation=wanted.isolated,
        subnets=list(wanted.subnets) or None,
        security_group_ids=list(wanted.security_groups) or None,
        environment=dict(wanted.environment),
        tags=names.tag_list(wanted.tags),
        hyperparameters=dict(wanted.hyperparameters),
        metric_definitions=_definitions(),
        sagemaker_session=session,
        **debugger,
    )


def _inputs(wanted: Wanted) -> dict[str, Any]:
    return {
        name: uri
        if uri.startswith("file://")
        else TrainingInput(
            uri, s3_data_type="S3Prefix", distribution="FullyReplicated", input_mode="File" if name == WEIGHTS else None
        )
        for name, uri in wanted.channels.items()
    }


def _service_debugger(wanted: Wanted) -> dict[str, Any]:
    """The service's own rules, which it evaluates beside the job on instances of its own."""
    rules: list[Any] = []
    for rule in (
        rule_configs.vanishing_gradient(),
        rule_configs.overfit(),
        rule_configs.loss_not_decreasing(),
        rule_configs.poor_weight_initialization(),
    ):
        own = copy.deepcopy(rule)
        for collection in own.get("CollectionConfigurations", ()):
            collection.setdefault("CollectionParameters", {})["save_interval"] = str(SAVE_INTERVAL)
        rules.append(Rule.sagemaker(own))
    return {
        "rules": [*rules, ProfilerRule.sagemaker(rule_configs.ProfilerReport())],
        "profiler_config": ProfilerConfig(
            s3_output_path=wanted.output, system_monitor_interval_millis=PROFILER_INTERVAL
        ),
        "debugger_hook_config": DebuggerHookConfig(s3_output_path=wanted.output),
    }
