"""The SageMaker Python SDK, version 2: its Estimator, and its local mode with faults mended. Imported nowhere else.

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
from collections.abc import Callable, Mapping
from pathlib import Path
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
    from sagemaker.local import LocalSession
    from sagemaker.model import Model
    from sagemaker.session import Session

# On import it lets every library's INFO lines through, to standard error.
logging.getLogger().handlers[:] = _handlers
logging.getLogger().setLevel(_level)

from container_train.training.metrics import DEFINITIONS
from scripts.aws import names
from scripts.aws.account import core_session
from scripts.aws.errors import CloudError, one_line
from scripts.images import engine
from scripts.jobs.training_jobs import NO_ROLE, WEIGHTS, TrainingJobSpec

CONFIG = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
# The SDK holds it against a schema whenever it looks something up, twenty times a job: seconds, for a constant.
for _module in (sagemaker.utils, sagemaker.session, sagemaker.local.local_session):
    _module.validate_sagemaker_config = lambda _: None
# The service's rules see nothing of a short job at their default of 500 steps.
SAVE_INTERVAL = 10
PROFILER_INTERVAL = 500  # milliseconds


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


def training_request(spec: TrainingJobSpec) -> dict[str, Any]:
    """CreateTrainingJob as the SDK's Estimator makes it. Raises CloudError for what the SDK refuses."""
    recorder = Recorder(offline(spec.region), names.S3Uri.parse(spec.output, "--output").bucket)
    try:
        fit(spec, recorder)
    except ValueError as error:
        raise CloudError(f"the SageMaker SDK refuses this job: {one_line(str(error))}", 2) from None
    (request,) = recorder.requests
    return request


def fit(spec: TrainingJobSpec, session: Session) -> None:
    """The Estimator's job in this session. In local mode this is the whole job."""
    _estimator(spec, session).fit(_inputs(spec), job_name=spec.name, wait=False, logs=False)


def _estimator(spec: TrainingJobSpec, session: Session) -> Estimator:
    debugger: dict[str, Any] = {"debugger_hook_config": False, "disable_profiler": True}
    if spec.service_debugger:
        debugger = _service_debugger(spec)
    return Estimator(
        image_uri=spec.image,
        role=spec.role,
        instance_type=spec.instance_type,
        instance_count=spec.instance_count,
        volume_size=spec.volume_size,
        volume_kms_key=spec.volume_kms_key,
        output_path=spec.output,
        output_kms_key=spec.output_kms_key,
        input_mode=spec.input_mode,
        max_run=spec.max_run,
        use_spot_instances=spec.max_wait is not None,
        max_wait=spec.max_wait,
        keep_alive_period_in_seconds=spec.keep_alive,
        checkpoint_s3_uri=spec.checkpoints,
        enable_network_isolation=spec.isolated,
        subnets=list(spec.subnets) or None,
        security_group_ids=list(spec.security_groups) or None,
        environment=dict(spec.environment),
        tags=names.tag_list(spec.tags),
        hyperparameters=dict(spec.hyperparameters),
        metric_definitions=DEFINITIONS,
        sagemaker_session=session,
        **debugger,
    )


def _inputs(spec: TrainingJobSpec) -> dict[str, Any]:
    return {
        name: uri
        if uri.startswith("file://")
        else TrainingInput(
            uri, s3_data_type="S3Prefix", distribution="FullyReplicated", input_mode="File" if name == WEIGHTS else None
        )
        for name, uri in spec.channels.items()
    }


def _service_debugger(spec: TrainingJobSpec) -> dict[str, Any]:
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
        "profiler_config": ProfilerConfig(s3_output_path=spec.output, system_monitor_interval_millis=PROFILER_INTERVAL),
        "debugger_hook_config": DebuggerHookConfig(s3_output_path=spec.output),
    }


class _Container(sagemaker.local.image._SageMakerContainer):  # type: ignore[misc]
    """Local mode's containers, with its faults mended."""

    @staticmethod
    def _get_compose_cmd_prefix() -> list[str]:
        """The SDK takes a plugin of version 2 only, and passes over the newer ones."""
        command = engine.compose()
        if command is None:
            raise CloudError("Docker Compose is not installed")
        return list(command)  # the SDK appends to it

    def _build_optml_volumes(self, host: str, subdirs: set[str]) -> list[Any]:
        """Create what is mounted: the engine would make it root's, as are the folders of /opt/ml in the image."""
        if "input" in subdirs:
            subdirs = subdirs | {"checkpoints", "code"}
        for name in ("model", *(f"{host}/{name}" for name in subdirs)):
            Path(self.container_root, name).mkdir(parents=True, exist_ok=True)
        volumes: list[Any] = super()._build_optml_volumes(host, subdirs)
        return volumes

    def _generate_compose_file(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Give the job a network of its own. Of the SDK's one for all there are two when two jobs start at once, and
        from then on none can start."""
        content: dict[str, Any] = super()._generate_compose_file(*arguments, **named)
        if "networks" in content:  # not so in Studio
            labels = self.sagemaker_session.config["local"]["container_config"].get("labels", {})
            network = {"name": f"byoc-{Path(self.container_root).name}", "labels": labels}
            content["networks"] = dict.fromkeys(content["networks"], network)
            # JSON is YAML, too.
            Path(self.container_root, sagemaker.local.image.DOCKER_COMPOSE_FILENAME).write_text(json.dumps(content))
        return content


class LocalMode:
    """A session of local mode, which works in `folder` and looks for no credentials; to be used in a `with`.

    `container`: what every service of its compose file gets (user, labels ...). `on_line` is given what Compose and
    the containers print, line by line. `port`: of a served endpoint on this machine.
    """

    def __init__(
        self, folder: Path, container: dict[str, Any], region: str, on_line: Callable[[str], None], port: int = 8080
    ) -> None:
        self.session = LocalSession(boto_session=offline(region), sagemaker_config=CONFIG)
        local = {"container_root": str(folder), "container_config": container, "serving_port": port}
        self.session.config = {"local": local}
        # It would tell the containers of an S3 endpoint that they have nothing to do with.
        self.session.s3_resource = None
        self._on_line = on_line
        self._compose: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self.problem: str | None = None  # why what is served is over
        self._replaced = contextlib.ExitStack()

    def __enter__(self) -> "LocalMode":
        self._replace(sagemaker.local.image, "_stream_output", self._stream)
        # Each makes containers of its own, the last one those that serve; the first asks its own name for Compose.
        for module in (sagemaker.local.image, sagemaker.local.local_session, sagemaker.local.entities):
            self._replace(module, "_SageMakerContainer", _Container)
        return self

    def __exit__(self, *_: object) -> None:
        self._replaced.close()

    def serve(self, image: str, model: Path, environment: Mapping[str, str]) -> None:
        """Start a model's endpoint in a thread, since the SDK looks at /ping every 5 s only.

        `model` is the unpacked folder: from a file, the SDK would mount the folder in which it lies.
        """
        name = names.unique("local")
        served = Model(
            image_uri=image,
            model_data=f"file://{model}",
            role=NO_ROLE,
            env=dict(environment),
            name=name,
            sagemaker_session=self.session,
        )

        def deploy() -> None:
            try:
                served.deploy(1, "local", endpoint_name=name, wait=False)
            except Exception as error:
                self.problem = one_line(str(error))

        threading.Thread(target=deploy, daemon=True).start()

    def end_compose(self, seconds: float) -> None:
        """Wait for Compose, its containers being gone; end it where it does not end by itself."""
        if self._compose is not None and not self._ended.wait(seconds):
            self._compose.terminate()
            self._ended.wait()

    def _stream(self, process: "subprocess.Popen[bytes]") -> int:
        self._compose = process
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(BrokenPipeError):  # nobody reads any more what this command says
                self._on_line(line.decode(errors="replace"))
        said = process.stderr.read().decode(errors="replace").split("\n") if process.stderr else []
        code = process.wait()
        last = next((one_line(line) for line in reversed(said) if line.strip()), "")
        self.problem = last if code and last else "the container has ended"
        self._ended.set()
        return code

    def _replace(self, module: Any, name: str, value: object) -> None:
        self._replaced.callback(setattr, module, name, getattr(module, name))
        setattr(module, name, value)
