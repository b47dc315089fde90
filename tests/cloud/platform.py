"""The service's part, done to a real server: batch transform, a queue, several models."""

import json
import tarfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from wsgiref.types import WSGIEnvironment

from boto3 import Session
from moto.sagemaker.models import sagemaker_backends

from tests.cloud.conftest import ACCOUNT, REGION
from tests.cloud.resources import write_log
from tests.contract.serving import Answer, Server


class Platform:
    """`server` is the endpoint's container, or the job's."""

    def __init__(self, session: Session, server: Server) -> None:
        self.session, self.server = session, server
        self.threads: list[threading.Thread] = []

    def read(self, uri: str) -> bytes:
        place = urlparse(uri)
        content: bytes = self.session.client("s3").get_object(Bucket=place.netloc, Key=place.path[1:])["Body"].read()
        return content

    def write(self, uri: str, content: bytes) -> None:
        place = urlparse(uri)
        self.session.client("s3").put_object(Bucket=place.netloc, Key=place.path[1:], Body=content)

    # Batch transform

    def transform(self) -> None:
        """Do the job that was created last: a request per object, an object per answer; one failure fails the job."""
        job = list(sagemaker_backends[ACCOUNT][REGION].transform_jobs.values())[-1]
        source = job.transform_input["DataSource"]["S3DataSource"]
        assert source["S3DataType"] == "ManifestFile"
        (head, *keys), failed = json.loads(self.read(source["S3Uri"])), []
        for key in keys:
            headers = {"Accept": job.transform_output["Accept"]}
            body = self.read(head["prefix"] + key)
            answer = self.server.invoke(body, job.transform_input["ContentType"], **headers)
            if answer.status == 200:
                self.write(f"{job.transform_output['S3OutputPath']}/{key}.out", answer.body)
            else:
                failed.append(f"{key}: {answer.status} {answer.body.decode()}")
        if failed:
            job.transform_job_status = "Failed"
            job.failure_reason = "ClientError: See job logs for more information"
            write_log(self.session, "/aws/sagemaker/TransformJobs", f"{job.transform_job_name}/i-1/data-log", *failed)

    # The queue of an asynchronous endpoint

    def queue(self, operation: str, environ: WSGIEnvironment) -> tuple[int, dict[str, str], bytes]:
        """Accept a request, and work on it later: fetch the object, send it, write the answer, tell the topic."""
        assert operation == "InvokeEndpointAsync"
        name = environ["PATH_INFO"].split("/")[2]
        backend = sagemaker_backends[ACCOUNT][REGION]
        config = backend.endpoint_configs[backend.endpoints[name].endpoint_config_name].async_inference_config
        number = len(self.threads)
        output = config["OutputConfig"]
        answer, failure = f"{output['S3OutputPath']}/{number}.out", f"{output['S3FailurePath']}/{number}-error.out"
        header = {
            "Accept": environ["HTTP_X_AMZN_SAGEMAKER_ACCEPT"],
            "X_Amzn_SageMaker_Custom_Attributes": environ["HTTP_X_AMZN_SAGEMAKER_CUSTOM_ATTRIBUTES"],
        }
        location, kind = environ["HTTP_X_AMZN_SAGEMAKER_INPUTLOCATION"], environ["HTTP_X_AMZN_SAGEMAKER_CONTENT_TYPE"]

        def work() -> None:
            got = self.server.invoke(self.read(location), kind, **header)
            good = got.status == 200
            said = f"Received server error ({got.status}) from primary with message {got.body.decode()}"
            self.write(answer if good else failure, got.body if good else said.encode())
            topic = output.get("NotificationConfig", {}).get("SuccessTopic" if good else "ErrorTopic")
            if topic:
                message = json.dumps({"invocationStatus": "Completed" if good else "Failed", "input": location})
                self.session.client("sns").publish(TopicArn=topic, Message=message)

        self.threads.append(threading.Thread(target=work, daemon=True))
        self.threads[-1].start()
        headers = {"X-Amzn-SageMaker-OutputLocation": answer, "X-Amzn-SageMaker-FailureLocation": failure}
        return 202, headers, json.dumps({"InferenceId": str(number)}).encode()


class MultiModel(Platform):
    """Several models in one container: loaded when first asked for, the longest unused one unloaded on 507.

    `folder` holds the unpacked models here, `inside` is its path in the container.
    """

    def __init__(self, session: Session, server: Server, prefix: str, folder: Path, inside: str) -> None:
        super().__init__(session, server)
        self.prefix, self.folder, self.inside = prefix, folder, inside
        self.loaded: OrderedDict[str, None] = OrderedDict()
        self.unloaded: list[str] = []

    def invoke(self, operation: str, environ: WSGIEnvironment) -> tuple[int, dict[str, str], bytes]:
        assert operation == "InvokeEndpoint"
        model = environ["HTTP_X_AMZN_SAGEMAKER_TARGET_MODEL"]
        name = model.removesuffix(".tar.gz")
        if name not in self.loaded:
            try:
                content = self.read(f"{self.prefix}/{model}")
            except self.session.client("s3").exceptions.NoSuchKey:
                said = {"message": f"Failed to download model data({self.prefix}/{model})"}
                return 400, {"X-Amzn-ErrorType": "ValidationError"}, json.dumps(said).encode()
            (self.folder / f"{name}.tar.gz").write_bytes(content)
            with tarfile.open(self.folder / f"{name}.tar.gz") as tar:
                tar.extractall(self.folder / name, filter="data")
            answer = self._load(name)
            while answer.status == 507 and self.loaded:
                oldest, _ = self.loaded.popitem(last=False)
                assert self.server.request("DELETE", f"/models/{oldest}").status == 200
                self.unloaded.append(oldest)
                answer = self._load(name)
            if answer.status != 200:
                return _model_error(answer)
        self.loaded[name] = None
        self.loaded.move_to_end(name)
        headers = {"Content-Type": environ["CONTENT_TYPE"]}
        attributes = environ["HTTP_X_AMZN_SAGEMAKER_CUSTOM_ATTRIBUTES"]
        headers["X-Amzn-SageMaker-Custom-Attributes"] = attributes
        body: bytes = environ["wsgi.input"].read()
        answer = self.server.request("POST", f"/models/{name}/invoke", body, headers)
        return (200, {}, answer.body) if answer.status == 200 else _model_error(answer)

    def _load(self, name: str) -> Answer:
        body = json.dumps({"model_name": name, "url": f"{self.inside}/{name}"}).encode()
        return self.server.request("POST", "/models", body, {"Content-Type": "application/json"})


def _model_error(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """As the runtime hands on an error of the container."""
    said: dict[str, Any] = {
        "OriginalStatusCode": answer.status,
        "OriginalMessage": answer.body.decode(),
        "message": f"Received client error ({answer.status}) from primary",
    }
    return 424, {"X-Amzn-ErrorType": "ModelError"}, json.dumps(said).encode()
