"""An asynchronous endpoint with a real server behind it: images go by S3, answers are waited for."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from boto3 import Session

from scripts import deploy, predict
from scripts.endpoints import async_invocations
from tests.cloud.answers import ctrl_c
from tests.cloud.conftest import BUCKET, MODEL, SERVE_IMAGE, Call, Ended
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.platform import Platform
from tests.cloud.resources import keys, put, put_model
from tests.conftest import Patch
from tests.contract.models import picture
from tests.contract.serving import serving

ANSWERS = f"s3://{BUCKET}/byoc/answers"


@pytest.fixture
def topics(aws: Session) -> list[str]:
    """One for answers, one for failures."""
    names = ("byoc-answers", "byoc-failures")
    return [aws.client("sns").create_topic(Name=name)["TopicArn"] for name in names]


@pytest.fixture
def queue(
    aws: Session, flaky: FlakyAws, topics: list[str], labels: dict[str, str], tmp_path: Path, monkeypatch: Patch,
    call: Call, request: pytest.FixtureRequest,
) -> Iterator[Platform]:  # fmt: skip
    """The endpoint byoc-queue, made by deploy.py; requests go to a real server with its environment."""
    monkeypatch.setattr(async_invocations, "POLL_SECONDS", 0.05)
    model = put_model(aws, tmp_path)
    flags = ("--async", ANSWERS, "--success-topic", topics[0], "--error-topic", topics[1])
    call(deploy, "--image", SERVE_IMAGE, "--model-data", MODEL, "--name", "byoc-queue", *flags).ends(0)
    environment = aws.client("sagemaker").describe_model(ModelName="byoc-queue")["PrimaryContainer"]["Environment"]
    kind = getattr(request, "param", "process")
    with serving(model, tmp_path / "run", environment, kind=kind) as server:
        service = Platform(aws, server)
        flaky.runtime = service.queue
        yield service


def ask(queue: Platform, call: Call, topic: str, *arguments: object) -> tuple[Ended, list[dict[str, str]]]:
    """Call predict.py; what came of it, and what a subscriber of the topic is told meanwhile."""
    session = queue.session
    sqs = session.client("sqs")
    url = sqs.create_queue(QueueName=topic.rpartition(":")[2])["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    session.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    ended = call(predict, "byoc-queue", *arguments, "--async")
    for thread in queue.threads:
        thread.join()
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    return ended, [json.loads(json.loads(message["Body"])["Message"]) for message in messages]


@pytest.mark.parametrize("queue", ["process", pytest.param("docker", marks=pytest.mark.docker)], indirect=True)
def test_images_of_s3_and_of_this_machine(
    queue: Platform, aws: Session, topics: list[str], tmp_path: Path, call: Call
) -> None:
    for name, colour in (("photos/a.jpg", "red"), ("photos/b/c.png", "green"), ("photos/notes.txt", "blue")):
        put(aws, name, picture(colour, "PNG" if name.endswith("png") else "JPEG"))
    (tmp_path / "here.jpg").write_bytes(picture("blue"))
    images = (f"s3://{BUCKET}/photos", tmp_path / "here.jpg")
    ended, messages = ask(queue, call, topics[0], *images, "--json", "--top-k", 2)
    results = ended.json["results"]
    assert [(row["image"], row["predictions"][0]["label"]) for row in results] == [
        (f"s3://{BUCKET}/photos/a.jpg", "red"),
        (f"s3://{BUCKET}/photos/b/c.png", "green"),
        (str(tmp_path / "here.jpg"), "blue"),
    ]
    assert all(len(row["predictions"]) == 2 for row in results)
    assert [message["invocationStatus"] for message in messages] == ["Completed"] * 3
    # What was uploaded for the call is gone, the answers stay.
    assert [key for key in keys(aws, "byoc/") if "/async/" in key] == []
    assert len(keys(aws, "byoc/answers/")) == 3


def test_what_fails_is_named_with_its_reason(
    queue: Platform, aws: Session, topics: list[str], tmp_path: Path, call: Call
) -> None:
    put(aws, "photos/broken.jpg", picture("red")[:100])
    (tmp_path / "no.jpg").write_text("none")
    ended, messages = ask(queue, call, topics[1], f"s3://{BUCKET}/photos/broken.jpg", tmp_path / "no.jpg")
    assert "Received server error (400) from primary" in ended.out
    assert "is not an image that the server takes" in ended.out
    assert (ended.code, ended.last) == (1, "predict.py: 2 of 2 predictions failed")
    assert [message["input"] for message in messages] == [f"s3://{BUCKET}/photos/broken.jpg"]


def test_a_request_larger_than_a_real_time_one(queue: Platform, aws: Session) -> None:
    """The container takes what the service may fetch: its limit was raised by deploy.py."""
    lines = b'{"b64": "AAAA"}\n' * 600_000
    assert queue.server.invoke(lines[:16_000_000], "application/json").status == 400  # read, and no JSON
    assert queue.server.invoke(picture("red") + b"\0" * 8_000_000).status == 200


def test_ctrl_c_says_where_the_answers_will_be(queue: Platform, monkeypatch: Patch, call: Call, tmp_path: Path) -> None:
    def never(uri: str) -> bytes:
        raise ValueError

    monkeypatch.setattr("threading.excepthook", lambda args: None)
    monkeypatch.setattr(queue, "read", never)
    monkeypatch.setattr("scripts.endpoints.async_invocations.time.sleep", ctrl_c)
    (tmp_path / "here.jpg").write_bytes(picture("blue"))
    ended = call(predict, "byoc-queue", tmp_path / "here.jpg", "--async")
    assert (ended.code, f"0 of 1 answers have come, the others will be in {ANSWERS}" in ended.last) == (130, True)
    assert f"images sent from here stay in s3://{BUCKET}/byoc/async/" in ended.last


@pytest.mark.usefixtures("aws")
def test_a_prefix_without_images(call: Call) -> None:
    call(predict, "byoc-queue", f"s3://{BUCKET}/none", "--async").ends(2, "no images below this prefix")
