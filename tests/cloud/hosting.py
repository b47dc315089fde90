"""The service for a whole story: it trains jobs, starts servers of what is deployed, and scales a queue to zero."""

import contextlib
import json
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from wsgiref.types import WSGIEnvironment

from boto3 import Session
from moto.sagemaker.models import sagemaker_backends

from local_test import pack, stage
from local_test.engine import Engine
from scripts import acceptance
from scripts.aws import polling
from scripts.console.command import run
from scripts.endpoints import async_invocations
from scripts.jobs import watch
from scripts.models import package
from scripts.story import removal, steps
from tests.cloud.conftest import ACCOUNT, REGION, know_image
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.platform import MultiModel, Platform
from tests.cloud.resources import write_log
from tests.contract.models import write_model
from tests.contract.serving import Answer, serving

Set = Callable[[Any, str, Any], None]


def hurry(change: Set) -> None:
    """No pauses; `change` is monkeypatch.setattr, or setattr in a process of its own."""
    for module in (polling, package, async_invocations):
        change(module, "POLL_SECONDS", 0.05)
    change(acceptance, "ROLE_SECONDS", 0.0)
    change(steps, "IDLE_POLL", 0.05)
    change(removal, "PAUSE_SECONDS", 0.05)


def accept(*arguments: str) -> int:
    """Run acceptance.py in a process of its own, which may be killed."""
    hurry(setattr)
    know_image(setattr)
    return run("acceptance.py", acceptance.main, arguments)


class Canned:
    """A server that says the same of every image; what it is loaded with does not matter."""

    def __init__(self, label: str) -> None:
        self.body = json.dumps({"predictions": [{"index": 0, "label": label, "probability": 0.9}]}).encode()

    def invoke(self, body: bytes, content_type: str = "", **headers: str) -> Answer:
        return Answer(200, {}, self.body)

    def request(self, method: str, path: str, *_: object) -> Answer:
        return Answer(200, {}, self.body)


class Hosting:
    """`engine` trains, `kind` serves (process or docker); without them a small model and canned answers do."""

    def __init__(
        self, session: Session, flaky: FlakyAws, folder: Path, engine: Engine | None = None, kind: str = ""
    ) -> None:
        self.session, self.flaky, self.folder, self.engine, self.kind = session, flaky, folder, engine, kind
        self.servers: dict[str, Platform] = {}
        self.stack, self.lock = contextlib.ExitStack(), threading.Lock()
        self.complaints: list[str] = []
        self.train = True  # False: jobs stay in progress
        flaky.runtime = self.invoke
        flaky.after["CreateTrainingJob"] = self.begin
        flaky.after["CreateTransformJob"] = self.transform
        folder.mkdir()

    @property
    def backend(self) -> Any:
        return sagemaker_backends[ACCOUNT][REGION]

    # Training

    def begin(self) -> None:
        """The job that was created last, in a thread: until its end it is in progress."""
        self.flaky.after["CreateTrainingJob"] = self.begin
        job = list(self.backend.training_jobs.values())[-1]
        job.training_job_status, job.secondary_status = "InProgress", "Training"
        if self.train:
            threading.Thread(target=self._train, args=(job,), daemon=True).start()

    def _train(self, job: Any) -> None:
        status = "Failed"
        try:
            tree = self.folder / job.training_job_name
            model = write_model(tree / "model") if self.engine is None else self._trained(job, tree, self.engine)
            pack.pack(model, tree / "model.tar.gz")
            artifact = f"{job.output_data_config['S3OutputPath']}/{job.training_job_name}/output/model.tar.gz"
            place = urlparse(artifact)
            # In one part: moto copies an object with the checksum of its parts, which then is wrong.
            content = (tree / "model.tar.gz").read_bytes()
            self.session.client("s3").put_object(Bucket=place.netloc, Key=place.path[1:], Body=content)
            job.model_artifacts = {"S3ModelArtifacts": artifact}
            status = "Completed"
        except BaseException as error:
            job.failure_reason = str(error)
            self.complaints.append(str(error))
        finally:
            job.training_job_status = job.secondary_status = status

    def _trained(self, job: Any, tree: Path, engine: Engine) -> Path:
        names = []
        for channel in job.input_data_config:
            names.append(channel["ChannelName"])
            self._fetch(channel["DataSource"]["S3DataSource"]["S3Uri"], tree / "input" / "data" / names[-1])
        for folder in ("input/config", "model", "output/data", "checkpoints"):
            (tree / folder).mkdir(parents=True)
        stage.write_config(tree, job.hyper_parameters, names, engine.host)
        log = self.folder / "train.log"
        child = engine.start_training(stage.Staged(tree), log, echo=False)
        try:
            assert child.wait() == 0, log.read_text()[-2000:]
        finally:
            child.stop()
        lines = [line for line in log.read_text().splitlines() if line.strip()]
        write_log(self.session, watch.LOG_GROUP, f"{job.training_job_name}/algo-1-1", *lines)
        return tree / "model"

    def _fetch(self, uri: str, folder: Path) -> None:
        place, s3 = urlparse(uri), self.session.client("s3")
        for item in s3.list_objects_v2(Bucket=place.netloc, Prefix=place.path[1:])["Contents"]:
            path = folder / item["Key"].removeprefix(place.path[1:])
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(place.netloc, item["Key"], str(path))

    # Hosting

    def of_model(self, name: str) -> Platform:
        """The server of a model, started when first asked for."""
        with self.lock:
            if name not in self.servers:
                self.servers[name] = self._start(name)
            return self.servers[name]

    def _start(self, name: str) -> Platform:
        container = self.backend._models[name].primary_container
        several = container.get("Mode") == "MultiModel"
        folder = self.folder / f"{name}-{len(self.servers)}"
        folder.mkdir()
        environment = dict(container.get("Environment", {}))
        if several:
            environment["SAGEMAKER_MULTI_MODEL"] = "true"
        else:
            self._unpack(container["ModelDataUrl"], folder)
        server: Any = Canned("red")
        if self.kind:
            logs = self.folder / f"{folder.name}.logs"
            server = self.stack.enter_context(serving(folder, logs, environment, kind=self.kind))
        inside = "/opt/ml/model" if self.kind == "docker" else str(folder)
        prefix = container["ModelDataUrl"].rstrip("/")
        if several:
            return MultiModel(self.session, server, prefix, folder, inside)
        return Platform(self.session, server)

    def _unpack(self, uri: str, folder: Path) -> None:
        place, archive = urlparse(uri), self.folder / "model.tar.gz"
        self.session.client("s3").download_file(place.netloc, place.path[1:], str(archive))
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")

    def invoke(self, operation: str, environ: WSGIEnvironment) -> tuple[int, dict[str, str], bytes]:
        endpoint = self.backend.endpoints[environ["PATH_INFO"].split("/")[2]]
        variant = self.backend.endpoint_configs[endpoint.endpoint_config_name].production_variants[0]
        service = self.of_model(variant["ModelName"])
        if operation == "InvokeEndpointAsync":
            endpoint.production_variants[0]["DesiredInstanceCount"] = 0  # once it has answered
            with self.lock:
                return service.queue(operation, environ)
        if isinstance(service, MultiModel):
            return service.invoke(operation, environ)
        headers = {
            "Accept": environ.get("HTTP_ACCEPT", "application/json"),
            "X_Amzn_SageMaker_Custom_Attributes": environ["HTTP_X_AMZN_SAGEMAKER_CUSTOM_ATTRIBUTES"],
        }
        answer = service.server.invoke(environ["wsgi.input"].read(), environ["CONTENT_TYPE"], **headers)
        assert answer.status == 200, answer.body
        return 200, {"Content-Type": "application/json"}, answer.body

    def transform(self) -> None:
        self.flaky.after["CreateTransformJob"] = self.transform
        job = list(self.backend.transform_jobs.values())[-1]
        self.of_model(job.model_name).transform()
