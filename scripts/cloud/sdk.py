"""The SageMaker Python SDK, version 2: imported here and nowhere else, since its end is set for July 2027.

Its telemetry is off, and what it logs on import and of defaults it does not apply is left out.
"""

import contextlib
import copy
import json
import logging
import os
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import botocore.credentials
import botocore.session

# Read when the package is imported.
os.environ.setdefault("SAGEMAKER_SUPPRESS_V2_WARNING", "1")
# Its INFO lines say on every call that telemetry is collected, which it then is not.
for _name in ("sagemaker", "sagemaker.config"):
    logging.getLogger(_name).setLevel(logging.WARNING)

_handlers, _level = list(logging.getLogger().handlers), logging.getLogger().level
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a dozen of its modules have escape sequences that Python warns of
    import sagemaker.experiments  # sets up logging anew when a job is made, if not now
    import sagemaker.local.entities
    import sagemaker.local.image
    import sagemaker.local.local_session
    from sagemaker.debugger import DebuggerHookConfig, ProfilerConfig, ProfilerRule, Rule, rule_configs
    from sagemaker.estimator import Estimator
    from sagemaker.inputs import TrainingInput
    from sagemaker.local import LocalSession
    from sagemaker.model import Model
    from sagemaker.session import Session

# On import it lets every library's INFO lines through, to standard error.
logging.getLogger().handlers[:] = _handlers
logging.getLogger().setLevel(_level)

from scripts.cloud import docker, names
from scripts.cloud.errors import CloudError, one_line
from scripts.cloud.jobs import NO_ROLE, Wanted

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
    core = botocore.session.Session()
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


def fit(wanted: Wanted, session: Session) -> None:
    """The Estimator's job in this session. In local mode this is the whole job."""
    # Imported here: the package of the training program needs numpy, which other users of this module do not.
    from container_train.metrics import DEFINITIONS

    debugger: dict[str, Any] = {"debugger_hook_config": False, "disable_profiler": True}
    if wanted.service_debugger:
        debugger = _service_debugger(wanted)
    estimator = Estimator(
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
        metric_definitions=DEFINITIONS,
        sagemaker_session=session,
        **debugger,
    )
    inputs = {
        name: uri
        if uri.startswith("file://")
        else TrainingInput(
            uri, s3_data_type="S3Prefix", distribution="FullyReplicated", input_mode="File" if name == WEIGHTS else None
        )
        for name, uri in wanted.channels.items()
    }
    estimator.fit(inputs, job_name=wanted.name, wait=False, logs=False)


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


class _Container(sagemaker.local.image._SageMakerContainer):  # type: ignore[misc]
    """Local mode's containers, with its faults mended."""

    @staticmethod
    def _get_compose_cmd_prefix() -> list[str]:
        """The SDK takes a plugin of version 2 only, and passes over the newer ones."""
        command = docker.compose()
        if command is None:
            raise CloudError("Docker Compose is not installed")
        return command

    def _build_optml_volumes(self, host: str, subdirs: set[str]) -> list[Any]:
        """What is mounted has to be there before: the engine would make it, and make it root's.

        A training container also makes folders in /opt/ml, which is the image's, and root's.
        """
        if "input" in subdirs:
            subdirs = subdirs | {"checkpoints", "code"}
        for name in ("model", *(f"{host}/{name}" for name in subdirs)):
            Path(self.container_root, name).mkdir(parents=True, exist_ok=True)
        volumes: list[Any] = super()._build_optml_volumes(host, subdirs)
        return volumes

    def _generate_compose_file(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """A network of the job's own, with its labels. Of the SDK's one for all there are two when two jobs start at
        once, and from then on none can start."""
        content: dict[str, Any] = super()._generate_compose_file(*arguments, **named)
        if "networks" in content:  # not so in Studio
            labels = self.sagemaker_session.config["local"]["container_config"].get("labels", {})
            network = {"name": f"byoc-{Path(self.container_root).name}", "labels": labels}
            content["networks"] = dict.fromkeys(content["networks"], network)
            # JSON is YAML, too.
            Path(self.container_root, sagemaker.local.image.DOCKER_COMPOSE_FILENAME).write_text(json.dumps(content))
        return content


@contextlib.contextmanager
def local_mode(
    folder: Path, container: dict[str, Any], region: str, on_line: Callable[[str], None], *, port: int | None = None
) -> Iterator[LocalSession]:
    """A session of local mode, which works in `folder` and looks for no credentials.

    `container`: what every service of its compose file gets (user, labels ...). `on_line` is given what Compose and
    the containers print, line by line. `port`: of a served endpoint on this machine.
    """
    session = LocalSession(boto_session=offline(region), sagemaker_config=CONFIG)
    local: dict[str, Any] = {"container_root": str(folder), "container_config": container}
    if port is not None:
        local["serving_port"] = port
    session.config = {"local": local}
    # It would tell the containers of an S3 endpoint that they have nothing to do with.
    session.s3_resource = None

    def stream(process: subprocess.Popen[bytes]) -> int:
        assert process.stdout is not None
        for line in process.stdout:
            on_line(line.decode(errors="replace"))
        return process.wait()

    with contextlib.ExitStack() as replaced:
        replaced.enter_context(_replaced(sagemaker.local.image, "_stream_output", stream))
        # Each makes containers of its own, the last one those that serve; the first asks its own name for Compose.
        for module in (sagemaker.local.image, sagemaker.local.local_session, sagemaker.local.entities):
            replaced.enter_context(_replaced(module, "_SageMakerContainer", _Container))
        yield session


class ServedHere:
    """A model's endpoint in local mode. It is started in a thread, since the SDK looks at /ping every 5 s only."""

    def __init__(self, session: LocalSession, image: str, model: Path, environment: Mapping[str, str]) -> None:
        """`model` is the unpacked folder: from a file, the SDK would mount the folder in which it lies."""
        self._session = session
        self._name = names.unique("local")
        self._model = Model(
            image_uri=image,
            model_data=f"file://{model}",
            role=NO_ROLE,
            env=dict(environment),
            name=self._name,
            sagemaker_session=session,
        )
        self._error: Exception | None = None
        threading.Thread(target=self._start, daemon=True).start()

    def problem(self) -> str | None:
        """Why it is over; None while Compose runs, or is about to."""
        if self._error is not None:
            return one_line(str(self._error))
        process = self._process()
        if process is None or process.poll() is None:
            return None
        assert process.stderr is not None
        said: list[str] = process.stderr.read().decode(errors="replace").strip().splitlines()
        return said[-1] if process.returncode and said else "the container has ended"

    def end_compose(self, seconds: float) -> None:
        """Wait for it, its containers being gone; end it where it does not end by itself."""
        process = self._process()
        if process is None:
            return
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()

    def _start(self) -> None:
        try:
            self._model.deploy(1, "local", endpoint_name=self._name, wait=False)
        except Exception as error:
            self._error = error

    def _process(self) -> "subprocess.Popen[bytes] | None":
        endpoint = self._session.sagemaker_client._endpoints.get(self._name)
        thread = getattr(getattr(endpoint, "container", None), "container", None)
        process: subprocess.Popen[bytes] | None = getattr(thread, "process", None)
        return process


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: object) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)
