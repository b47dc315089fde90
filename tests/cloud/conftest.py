"""Moto's server in the place of AWS, on loopback; every call that the scripts make is held against the policy."""

import functools
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import boto3
import botocore.client
import pytest
from botocore.retries.standard import ExponentialBackoff
from moto.cloudwatch.models import cloudwatch_backends
from moto.moto_api._internal.models import moto_api_backend

from scripts.aws.account import core_session
from scripts.console import command
from tests.cloud import permissions
from tests.cloud.flaky_aws import ACCOUNT as ACCOUNT
from tests.cloud.flaky_aws import FlakyAws, serve
from tests.conftest import Capture

REGION = "eu-central-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/byoc-sagemaker"
HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
TRAIN_IMAGE, SERVE_IMAGE = f"{HOST}/byoc-train:0.1.0-abc", f"{HOST}/byoc-serve:0.1.0"
BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"
KEY = "byoc/job-1/output/model.tar.gz"
MODEL = f"s3://{BUCKET}/{KEY}"
HERE = ("--role", ROLE, "--region", REGION)


class Ended(NamedTuple):
    """A script's call: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.err.splitlines()[-1]

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Call(Protocol):
    def __call__(self, script: ModuleType, *arguments: object) -> Ended:
        """Call a script as from a command line."""


@pytest.fixture
def call(capsys: Capture) -> Call:
    def made(script: ModuleType, *arguments: object) -> Ended:
        capsys.readouterr()
        program = f"{script.__name__.rpartition('.')[2]}.py"
        code = command.run(program, script.main, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback (most" not in captured.err
        return Ended(code, captured.out, captured.err)

    return made


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> Iterator[list[str]]:
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
def flaky(served: tuple[FlakyAws, str], aws: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> FlakyAws:
    """The service behind `aws`, to be told how it fails; botocore tries again without a pause."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.0)
    return served[0]


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
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


@pytest.fixture
def aws(served: tuple[FlakyAws, str], no_account: None, monkeypatch: pytest.MonkeyPatch) -> boto3.Session:
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
    session.client("s3").create_bucket(
        Bucket=f"sagemaker-{REGION}-{ACCOUNT}", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    return session


@functools.cache
def _account(url: str) -> boto3.Session:
    """The tests' own session, whose clients are made once in a run: 0.03 s each."""
    session = boto3.Session("testing", "testing", region_name=REGION, botocore_session=core_session())
    session.client = functools.cache(functools.partial(session.client, endpoint_url=url))
    return session


@pytest.fixture
def image(aws: boto3.Session) -> None:
    """The training image in ECR, byoc-train:0.1.0-abc."""
    ecr = aws.client("ecr")
    ecr.create_repository(repositoryName="byoc-train")
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"digest": "sha256:" + "0" * 64, "size": 1, "mediaType": "x"},
        "layers": [],
    }
    ecr.put_image(repositoryName="byoc-train", imageManifest=json.dumps(document), imageTag="0.1.0-abc")
