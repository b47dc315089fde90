"""cleanup.py: what it removes and in which order, and what it leaves alone."""

import argparse
import io
from pathlib import Path

import pytest
from boto3 import Session
from botocore import xform_name
from botocore.exceptions import EndpointConnectionError

from container_train.data import splits as data_sets
from container_train.data.labels import SPLITS
from scripts import cleanup
from scripts.aws import account as module
from scripts.aws.account import Aws
from scripts.aws.settings import load
from scripts.images.registry import repository_requests
from scripts.s3 import objects, storage
from tests.cloud.answers import PASS, error, give
from tests.cloud.conftest import BUCKET, REGION, ROLE, Call, put_image
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.pictures import fill
from tests.cloud.resources import NOTHING, OWN, all_of, by_hand, create_job, deployed, described, keys, put, there
from tests.conftest import Patch

DENIED = error("AccessDeniedException", "not authorized")
DOGS = ("byoc-dogs", "--yes")


# Endpoints


def test_an_endpoint_goes_with_all_that_was_made_for_it(aws: Session, calls: list[str], call: Call) -> None:
    deployed(aws)
    deployed(aws, name="byoc-dogs-now")  # of an update
    deployed(aws, "byoc-dogs-2")
    by_hand(aws, "byoc-dogs-3")
    by_hand(aws, "cats")
    ended = call(cleanup, *DOGS, "--json")
    assert (ended.code, there(aws)) == (0, all_of("byoc-dogs-2", "byoc-dogs-3", "cats"))
    order = [one.split("Delete")[1] for one in calls if "Delete" in one]
    assert order == ["Endpoint", "EndpointConfig", "EndpointConfig", "Model", "Model"]
    assert [(one["kind"], one["name"]) for one in ended.json["removed"]] == [
        ("endpoint", "byoc-dogs"),
        ("configuration", "byoc-dogs"),
        ("configuration", "byoc-dogs-now"),
        ("model", "byoc-dogs"),
        ("model", "byoc-dogs-now"),
    ]
    ended.says("left: the log group /aws/sagemaker/Endpoints/byoc-dogs", "left, and billed: endpoint byoc-dogs-2")
    gone = "there is no endpoint byoc-dogs of the project byoc in eu-central-1 (any more)"
    call(cleanup, *DOGS).says(gone, code=1)


def test_a_misspelt_name_is_no_success(aws: Session, call: Call) -> None:
    assert call(cleanup, *DOGS).last.endswith("(any more): without a name, this lists what exists")
    deployed(aws)
    deployed(aws, "cats")
    ended = call(cleanup, "byoc-dgos", "--yes", "--json")
    assert (ended.code, ended.json["removed"]) == (1, [])
    assert ended.last.endswith("(any more): did you mean byoc-dogs?")
    assert there(aws) == {**all_of("byoc-cats", "byoc-dogs"), "endpoints": ["byoc-dogs", "cats"]}
    # What is spelt right goes all the same, also with a name of its own.
    assert "did you mean byoc-dogs?" in call(cleanup, "cats", "byoc-dgos", "--yes").last
    assert there(aws) == all_of("byoc-dogs")
    # What the console leaves where it removes an endpoint goes by its name.
    aws.client("sagemaker").delete_endpoint(EndpointName="byoc-dogs")
    assert call(cleanup, *DOGS).code == 0
    assert there(aws) == NOTHING


@pytest.mark.parametrize("owner", ["nobody", "birds"])
def test_what_others_made_is_left_and_named(aws: Session, owner: str, call: Call) -> None:
    if owner == "nobody":
        by_hand(aws, "byoc-dogs")
    else:
        deployed(aws, project=owner)
    before = there(aws)
    call(cleanup, *DOGS).says("left: byoc-dogs, which has no tag byoc-project=byoc", code=1)
    assert call(cleanup, "--all", "--yes").code == 0
    assert there(aws) == before
    assert all(before.values())


def test_all_and_unused(aws: Session, call: Call) -> None:
    deployed(aws)
    deployed(aws, name="byoc-dogs-now")
    by_hand(aws, "byoc-horses")
    assert call(cleanup, "--unused", "--yes").code == 0
    assert there(aws) == all_of("byoc-dogs", "byoc-horses")
    deployed(aws, "cats")
    call(cleanup, "--all", "--yes").says("history of jobs")
    assert there(aws) == all_of("byoc-horses")
    call(cleanup, "--all", "--yes").says("nothing to remove")


def test_without_a_terminal_it_wants_yes(aws: Session, call: Call) -> None:
    deployed(aws, instances=2)
    ended = call(cleanup, "byoc-dogs").ends(2, "3 things would be removed: say --yes")
    ended.says("endpoint", "0.230", code=2)  # USD an hour of two instances
    assert there(aws) == all_of("byoc-dogs")


@pytest.mark.parametrize(("answer", "left"), [("y\n", []), ("n\n", ["byoc-dogs"]), ("", ["byoc-dogs"])])
def test_on_a_terminal_it_asks(aws: Session, monkeypatch: Patch, answer: str, left: list[str], call: Call) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    deployed(aws)
    assert call(cleanup, "byoc-dogs").code == (1 if left else 0)
    assert there(aws)["endpoints"] == left


def test_ctrl_c_says_what_is_still_there(aws: Session, monkeypatch: Patch, call: Call) -> None:
    deployed(aws)
    give(monkeypatch, "DescribeEndpoint", PASS, PASS, described("Deleting"))

    def ctrl_c(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", ctrl_c)
    left = "still to remove: endpoint byoc-dogs, configuration byoc-dogs, model byoc-dogs; call the same again"
    call(cleanup, *DOGS).ends(130, left)


def test_a_deletion_that_fails_stops_and_says_so(aws: Session, monkeypatch: Patch, call: Call) -> None:
    deployed(aws)
    give(monkeypatch, "DeleteEndpoint", DENIED)
    call(cleanup, *DOGS).ends(1, "scripts/iam/scripts.json")
    assert there(aws) == all_of("byoc-dogs")


def test_tags_of_others_that_may_not_be_seen(aws: Session, monkeypatch: Patch, call: Call) -> None:
    by_hand(aws, "cats")
    give(monkeypatch, "ListTags", DENIED)
    assert call(cleanup, "--all", "--yes").code == 0
    deployed(aws)
    assert call(cleanup, *DOGS).code == 1


# Lists


def test_with_nothing_to_remove_it_lists(aws: Session, call: Call) -> None:
    ended = call(cleanup).says("role byoc-sagemaker (scripts/make_role.py --delete removes it)")
    assert ended.out == "nothing of the project byoc exists\n"
    deployed(aws, instances=2)
    by_hand(aws, "byoc-horses")
    ended = call(cleanup)
    heads, _, first, *_, total = ended.out.splitlines()
    assert heads.split() == ["kind", "name", "status", "created", "USD/hour"]
    assert first.split()[:3] == ["endpoint", "byoc-dogs", "InService"]
    assert first.split()[-3:] == ["2", "x", "ml.m5.large"]
    assert "about 0.23 USD an hour" in total
    ended.says("endpoint byoc-horses has no tag byoc-project: these scripts did not make it, and leave it")
    found = call(cleanup, "--json").json["found"]
    assert [one["kind"] for one in found] == ["endpoint", "configuration", "model"]
    assert there(aws) == all_of("byoc-dogs", "byoc-horses")


def test_what_cannot_be_seen_is_not_said_to_be_nothing(aws: Session, monkeypatch: Patch, call: Call) -> None:
    unreachable = EndpointConnectionError(endpoint_url="https://api.ecr")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    give(monkeypatch, "DescribeRepositories", unreachable)
    ended = call(cleanup).ends(1, "repositories cannot be seen: AWS cannot be reached")
    assert ended.out.startswith("nothing of the project byoc is among: endpoints, configurations, models; tuning")

    # The list goes on without it; of what was not asked for it is only said.
    deployed(aws)
    give(monkeypatch, "DescribeRepositories", DENIED)
    assert "byoc-dogs" in call(cleanup).ends(1, "repositories cannot be seen").out
    assert call(cleanup, "--repositories", "--yes").code == 1
    ended = call(cleanup, "--all", "--yes", "--json")
    assert (ended.code, list(ended.json["unseen"])) == (0, ["repositories"])

    unseen = "ListEndpoints DescribeAlarms ListTrainingJobs ListModelPackageGroups DescribeRepositories ListObjectsV2"
    for operation in unseen.split():
        give(monkeypatch, operation, DENIED)
    ended = call(cleanup)
    assert (ended.code, ended.out) == (1, "")
    assert all("cannot be seen: " in line for line in ended.err.splitlines()[-6:])
    ended = call(cleanup, "--json")
    assert (ended.code, len(ended.json["unseen"])) == (1, 6)

    # Without a network each of them would only take its time.
    give(monkeypatch, "ListEndpoints", unreachable)
    ended = call(cleanup)
    assert (ended.code, len(ended.err.splitlines())) == (1, 1)


def test_dry_run(call: Call) -> None:
    ended = call(cleanup, "byoc-dogs", "--region", REGION, "--dry-run")
    ended.says("what was added since then only AWS knows")
    assert ended.json == [
        {"service": "sagemaker", "operation": f"Delete{noun}", "request": {f"{noun}Name": "byoc-dogs"}}
        for noun in ("Endpoint", "EndpointConfig", "Model")
    ]


def test_a_region_that_is_newer_than_boto3(aws: Session, monkeypatch: Patch, call: Call) -> None:
    monkeypatch.setattr(module, "_regions", lambda: ("eu-west-1", "us-east-1"))
    call(cleanup).says("(--allow-unknown asks all the same)", code=2)
    assert call(cleanup, "--allow-unknown").code == 0


# Training jobs


def test_running_jobs(aws: Session, flaky: FlakyAws, monkeypatch: Patch, call: Call) -> None:
    flaky.slow(99)
    create_job(aws, "byoc-train-1", OWN)
    # One that is left is named loudly, and one that ended by itself meanwhile is no failure.
    assert "left, and billed: training job byoc-train-1" in call(cleanup, "--all", "--yes").err
    message = "The request was rejected because the training job is in status Completed."
    give(monkeypatch, "StopTrainingJob", error("ValidationException", message), PASS)
    assert call(cleanup, "--jobs", "--yes").code == 0
    flaky.break_after("StopTrainingJob")
    removed = call(cleanup, "--jobs", "--yes", "--json").json["removed"]
    assert [(one["kind"], one["name"], one["status"]) for one in removed] == [
        ("training job", "byoc-train-1", "Training")
    ]
    described = aws.client("sagemaker").describe_training_job(TrainingJobName="byoc-train-1")
    assert described["TrainingJobStatus"] == "Stopping"


# Objects in S3 and images in ECR, those of others beside them


def fill_bucket(session: Session, folder: Path) -> list[str]:
    """Everything that the scripts leave there, and the keys of what others put beside it."""
    settings = load(argparse.Namespace(region=REGION, role=ROLE), {})
    aws, home = Aws(REGION), settings.home()
    root = fill(folder / "pictures", 1)
    splits = {split: data_sets.class_files(root / split).classes for split in SPLITS}
    storage.upload(aws, storage.items(splits), home / "data" / "pictures", settings)
    (folder / "resnet50.pth").write_bytes(b"weights")
    digest = objects.digest(folder / "resnet50.pth")
    storage.upload_file(aws, folder / "resnet50.pth", home / "weights" / digest[:16] / "resnet50.pth", settings)
    create_job(session, "job-1", OWN)
    create_job(session, "job-2")
    put(session, "byoc/job-1/output/model.tar.gz")
    put(session, "byoc/job-1/checkpoints/checkpoint.pt")
    others = [
        "byoc/data/pictures/train/extra.jpg",
        "byoc/job-2/output/model.tar.gz",
        "byoc/notes.txt",
        "byoc/weights/mine.pth",
        "byoc-2/x",
        "elsewhere/y",
    ]
    for key in others:
        put(session, key)
    return sorted(others)


def test_data(aws: Session, tmp_path: Path, call: Call) -> None:
    others = fill_bucket(aws, tmp_path)
    ended = call(cleanup)
    assert f"s3://{BUCKET}/byoc/data/pictures" in ended.out
    assert "7 objects" in ended.out  # six pictures and the manifest
    assert f"s3://{BUCKET}/byoc/notes.txt: 1 objects that these scripts cannot account for" in ended.err
    removed = call(cleanup, "--data", "--yes", "--json").json["removed"]
    assert [one["kind"] for one in removed] == ["images", "weights", "results of a job"]
    assert sorted(keys(aws)) == others
    for bucket in ((), ("--bucket", "there-is-none")):
        call(cleanup, "--data", "--yes", *bucket).says("nothing to remove")


def test_a_model_that_is_served_stays(aws: Session, tmp_path: Path, call: Call) -> None:
    fill_bucket(aws, tmp_path)
    deployed(aws)
    ended = call(cleanup, "--data", "--yes")
    assert "byoc/job-1/output/model.tar.gz" in keys(aws)
    assert f"left: s3://{BUCKET}/byoc/job-1, which the model byoc-dogs uses" in ended.err
    assert call(cleanup, "--all", "--data", "--yes").code == 0
    assert "byoc/job-1/output/model.tar.gz" not in keys(aws)


# ECR


def test_repositories(aws: Session, call: Call) -> None:
    ecr = aws.client("ecr")
    settings = load(argparse.Namespace(region=REGION), {})
    for request in repository_requests("byoc-serve", settings):
        getattr(ecr, xform_name(request.operation))(**request.request)
    put_image(aws, "byoc-serve", "1")
    ecr.create_repository(repositoryName="byoc-train")
    ecr.create_repository(repositoryName="horses")
    deployed(aws)
    call(cleanup, "--all", "--yes").says("left: repository byoc-serve (--repositories removes it)")
    assert call(cleanup, "--repositories", "--yes").code == 0
    left = [repository["repositoryName"] for repository in ecr.describe_repositories()["repositories"]]
    assert sorted(left) == ["byoc-train", "horses"]
