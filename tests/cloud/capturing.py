"""An endpoint with data capture, and perhaps a shadow, as the service runs one: its answers and its files in S3."""

import base64
import json
import uuid
from collections.abc import Callable
from typing import Any
from wsgiref.types import WSGIEnvironment

from boto3 import Session
from moto.sagemaker.models import sagemaker_backends

from container_serve.codec import answers
from container_serve.codec.media import JSON
from container_serve.predictor import Prediction
from tests.cloud.conftest import ACCOUNT, REGION

Model = Callable[[bytes], Prediction]
HOUR = "2026-11-27T{:02}"


def answer(prediction: Prediction) -> bytes:
    """As the server says it."""
    return answers.render([[prediction]], JSON, model={"architecture": "resnet50"}, batched=False)


def part(kind: str, mode: str, body: bytes, as_text: bool) -> dict[str, str]:
    data = body.decode() if as_text else base64.b64encode(body).decode()
    return {
        "observedContentType": kind, "mode": mode, "data": data, "encoding": "JSON" if as_text else "BASE64",
    }  # fmt: skip


def record(
    kind: str, body: bytes, said: bytes, *, hour: int = 9, inference: str | None = None, text: bool = True
) -> str:
    """One line of a file; with `text` the answer was captured as JSON, otherwise in base64."""
    event = {"eventId": str(uuid.uuid4()), "inferenceTime": f"{HOUR.format(hour)}:24:19Z"}
    if inference:
        event["inferenceId"] = inference
    data = {
        "endpointInput": part(kind, "INPUT", body, kind == JSON),
        "endpointOutput": part(JSON, "OUTPUT", said, text),
    }
    return json.dumps({"captureData": data, "eventMetadata": event, "eventVersion": "0"})


def place(endpoint: str, variant: str, hour: int = 9) -> str:
    """Of a file, below the prefix that DataCaptureConfig names."""
    return f"{endpoint}/{variant}/2026/11/27/{hour:02}/24-19-123-{uuid.uuid4()}.jsonl"


class Endpoint:
    """Answers in the place of FlakyAws's; `models` by their variants."""

    def __init__(self, session: Session, **models: Model) -> None:
        self.session, self.models = session, models

    def invoke(self, operation: str, environ: WSGIEnvironment) -> tuple[int, dict[str, str], bytes]:
        assert operation == "InvokeEndpoint"
        name = environ["PATH_INFO"].split("/")[2]
        backend = sagemaker_backends[ACCOUNT][REGION]
        config: dict[str, Any] = backend.endpoint_configs[
            backend.endpoints[name].endpoint_config_name
        ].data_capture_config
        bucket, _, prefix = config["DestinationS3Uri"].removeprefix("s3://").partition("/")
        body: bytes = environ["wsgi.input"].read()
        said = {variant: answer(model(body)) for variant, model in self.models.items()}
        inference = environ["HTTP_X_AMZN_SAGEMAKER_INFERENCE_ID"]
        for variant, content in said.items():
            line = record(environ["CONTENT_TYPE"], body, content, inference=inference)
            key = f"{prefix}/{place(name, variant)}"
            self.session.client("s3").put_object(Bucket=bucket, Key=key, Body=f"{line}\n".encode())
        return 200, {"Content-Type": JSON}, said["AllTraffic"]
