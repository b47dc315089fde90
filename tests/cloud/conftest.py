"""Moto's server in the place of AWS, on loopback; every call that the scripts make is held against the policy."""

import contextlib
import functools
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.client
import pytest
from boto3 import Session
from botocore.retries.standard import ExponentialBackoff
from moto.cloudwatch.models import cloudwatch_backends
from moto.moto_api._internal.models import moto_api_backend

from container_serve.artifact import FORMAT_VERSION
from scripts.aws.account import core_session
from scripts.images import registry
from scripts.images.registry import DOCKER_MANIFEST
from tests.calls import Call as Call
from tests.calls import Ended as Ended
from tests.calls import call as call
from tests.cloud import models, permissions
from tests.cloud.flaky_aws import ACCOUNT as ACCOUNT
from tests.cloud.flaky_aws import FlakyAws, serve
from tests.conftest import Patch

REGION = "eu-central-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/byoc-sagemaker"
HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
TRAIN_IMAGE, SERVE_IMAGE = f"{HOST}/byoc-train:0.1.0-abc", f"{HOST}/byoc-serve:0.1.0"
BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"
KEY = "byoc/job-1/output/model.tar.gz"
MODEL = f"s3://{BUCKET}/{KEY}"
HERE = ("--role", ROLE, "--region", REGION)
LABELS = {"org.opencontainers.image.title": "byoc-serve", "byoc.format-version": str(FORMAT_VERSION)}
PROJECT = {"Key": "byoc-project", "Value": "byoc"}
# What deploy.py is called with for an endpoint in an account, and for the requests alone.
CALL = ("--image", SERVE_IMAGE, "--model-data", MODEL, "--name", "byoc-dogs")
OFFLINE = ("--image", SERVE_IMAGE, *HERE)


@pytest.fixture(autouse=True)
def calls(monkeypatch: Patch, pytestconfig: pytest.Config) -> Iterator[list[str]]:
    """The calls of the scripts in this test, "service:Operation" each; the test's own clients are not among them."""
    made: list[str] = []
    original = botocore.client.BaseClient._make_api_call

    def record(client: Any, operation: str, request: Any) -> Any:
        agent = client.meta.config.user_agent_extra or ""
        if "byoc-image-classifier" in agent or "SageMaker" in agent:
            made.append(f"{client.meta.service_model.service_name}:{operation}")
        answer = original(client, operation, request)
        if operation == "PutDashboard":  # moto forgets its tags
            backend = cloudwatch_backends[ACCOUNT][REGION]
            arn = backend.dashboards[request["DashboardName"]].arn
            backend.tagger.tag_resource(arn, request.get("Tags", []))
        return answer

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", record)
    yield made
    needed = {action for call in made for action in permissions.actions(*call.split(":"))}
    permissions.of(pytestconfig).needed.update(needed)
    lacking = needed - permissions.allowed(*permissions.POLICIES)
    assert not lacking, f"scripts/iam/scripts.json lacks {sorted(lacking)}"


@pytest.fixture(scope="session")
def served() -> Iterator[tuple[FlakyAws, str]]:
    application = FlakyAws()
    with serve(application) as url:
        yield application, url


@pytest.fixture
def flaky(served: tuple[FlakyAws, str], aws: Session, monkeypatch: Patch) -> FlakyAws:
    """The service behind `aws`, to be told how it fails; botocore tries again without a pause."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.0)
    return served[0]


@pytest.fixture(autouse=True)
def no_account(monkeypatch: Patch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No credentials, no settings of this machine, and nowhere to go: what a test needs, it asks for."""
    empty = tmp_path_factory.mktemp("home")
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID",
                 "AWS_SECRET_ACCESS_KEY", "BYOC_ROLE", "BYOC_BUCKET", "BYOC_PROJECT", "BYOC_TAGS"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(empty / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(empty / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Nothing listens there: a call that a test did not mean to make fails at once.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: Patch) -> None:
    """Nobody waits between two looks at something, and nobody answers questions."""
    monkeypatch.setattr("scripts.aws.polling.POLL_SECONDS", 0.0)
    monkeypatch.setattr("sys.stdin", io.StringIO())


@pytest.fixture
def aws(served: tuple[FlakyAws, str], no_account: None, monkeypatch: Patch) -> Session:
    """An empty account at moto's server, for the scripts through the environment, and for the test as a session."""
    application, url = served
    application.reset()
    moto_api_backend.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("BYOC_ROLE", ROLE)
    session = _account(url)
    session.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    return session


@functools.cache
def _account(url: str) -> Session:
    """The tests' own session, whose clients are made once in a run: 0.03 s each."""
    session = Session("testing", "testing", region_name=REGION, botocore_session=core_session())
    session.client = functools.cache(functools.partial(session.client, endpoint_url=url))
    return session


def put_image(session: Session, repository: str, tag: str) -> None:
    """An image in ECR; its repository is made where it is missing."""
    ecr, config = session.client("ecr"), {"digest": "sha256:" + "0" * 64, "size": 1, "mediaType": "x"}
    manifest = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": []}
    with contextlib.suppress(ecr.exceptions.RepositoryAlreadyExistsException):
        ecr.create_repository(repositoryName=repository)
    ecr.put_image(repositoryName=repository, imageManifest=json.dumps(manifest), imageTag=tag)


@pytest.fixture
def image(aws: Session) -> None:
    """The training image in ECR, byoc-train:0.1.0-abc."""
    put_image(aws, "byoc-train", "0.1.0-abc")


def know_image(change: Callable[[Any, str, Any], None]) -> dict[str, str]:
    """ECR has this project's serving image; its labels, which a test may change.

    `change` is monkeypatch.setattr, or setattr in a process of its own.
    """
    labels = dict(LABELS)
    change(registry, "find", lambda aws, image: "sha256:" + "0" * 64)
    change(registry, "image_labels", lambda aws, image: labels or {})
    change(registry, "image_architecture", lambda aws, image: "amd64")
    return labels


@pytest.fixture
def labels(monkeypatch: Patch) -> dict[str, str]:
    """Those of the serving image in ECR."""
    return know_image(monkeypatch.setattr)


@pytest.fixture
def account(aws: Session, labels: dict[str, str], tmp_path: Path) -> Session:
    """With the serving image and a model."""
    aws.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=models.archive(tmp_path))
    return aws
