"""cleanup.py: what it removes and in which order, and what it leaves alone."""

import argparse
import io
import json
from collections.abc import Mapping
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.exceptions import EndpointConnectionError

from scripts import cleanup
from scripts.aws import account as module
from scripts.aws.names import S3Uri
from scripts.aws.settings import load
from scripts.console.command import run
from scripts.endpoints import lookup
from scripts.endpoints.deployment import Deployment, resource_name
from tests.cloud.answers import PASS, error, give
from tests.cloud.conftest import ACCOUNT, REGION, ROLE
from tests.conftest import Capture, Patch

BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"
MODEL = f"s3://{BUCKET}/byoc/job-1/output/model.tar.gz"
NOTHING: dict[str, list[str]] = {"models": [], "configurations": [], "endpoints": []}


def call(*arguments: object) -> int:
    return run("cleanup.py", cleanup.main, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def fast(monkeypatch: Patch) -> None:
    monkeypatch.setattr(lookup, "POLL_SECONDS", 0.0)
    monkeypatch.setattr("sys.stdin", io.StringIO())  # no terminal


def deploy(session: boto3.Session, endpoint: str, name: str | None = None, project: str = "byoc") -> None:
    """Send what deploy.py does; with `name` the model and configuration of an update."""
    settings = load(argparse.Namespace(project=project, role=ROLE, region=REGION), {})
    wanted = Deployment(
        name or resource_name(endpoint, project), "image", S3Uri.parse(MODEL, "-"), "ml.m5.large", 2, {}, False,
        endpoint, 600, 600,
    )  # fmt: skip
    for request in wanted.create(settings)[: 2 if name else 3]:
        getattr(session.client("sagemaker"), xform_name(request.operation))(**request.request)


def by_hand(session: boto3.Session, name: str) -> None:
    """The same made by somebody else, without tags."""
    client = session.client("sagemaker")
    client.create_model(ModelName=name, PrimaryContainer={"Image": "image"}, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "a", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)


def there(session: boto3.Session) -> dict[str, list[str]]:
    return in_account(session.client("sagemaker"))


def in_account(client: Any) -> dict[str, list[str]]:
    return {
        "models": sorted(item["ModelName"] for item in client.list_models()["Models"]),
        "configurations": sorted(
            item["EndpointConfigName"] for item in client.list_endpoint_configs()["EndpointConfigs"]
        ),
        "endpoints": sorted(item["EndpointName"] for item in client.list_endpoints()["Endpoints"]),
    }


def all_of(*names: str) -> dict[str, list[str]]:
    return {kind: sorted(names) for kind in NOTHING}


# Endpoints


def test_an_endpoint_goes_with_all_that_was_made_for_it(aws: boto3.Session, calls: list[str], capsys: Capture) -> None:
    deploy(aws, "byoc-dogs")
    deploy(aws, "byoc-dogs", "byoc-dogs-now")  # of an update
    deploy(aws, "byoc-dogs-2")
    by_hand(aws, "byoc-dogs-3")
    by_hand(aws, "cats")
    assert call("byoc-dogs", "--yes", "--json") == 0
    assert there(aws) == all_of("byoc-dogs-2", "byoc-dogs-3", "cats")
    order = [call.split("Delete")[1] for call in calls if "Delete" in call]
    assert order == ["Endpoint", "EndpointConfig", "EndpointConfig", "Model", "Model"]
    captured = capsys.readouterr()
    removed = [(one["kind"], one["name"]) for one in json.loads(captured.out)["removed"]]
    assert removed == [
        ("endpoint", "byoc-dogs"),
        ("configuration", "byoc-dogs"),
        ("configuration", "byoc-dogs-now"),
        ("model", "byoc-dogs"),
        ("model", "byoc-dogs-now"),
    ]
    assert "left: the log group /aws/sagemaker/Endpoints/byoc-dogs" in captured.err
    assert "left, and billed: endpoint byoc-dogs-2" in captured.err

    assert call("byoc-dogs", "--yes") == 1
    assert "there is no endpoint byoc-dogs of the project byoc in eu-central-1 (any more)" in capsys.readouterr().err


def test_a_misspelt_name_is_no_success(aws: boto3.Session, capsys: Capture) -> None:
    assert call("byoc-dogs", "--yes") == 1
    assert capsys.readouterr().err.endswith("(any more): without a name, this lists what exists\n")
    deploy(aws, "byoc-dogs")
    deploy(aws, "cats")
    assert call("byoc-dgos", "--yes", "--json") == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].endswith("(any more): did you mean byoc-dogs?")
    assert json.loads(captured.out)["removed"] == []
    assert there(aws) == {**all_of("byoc-cats", "byoc-dogs"), "endpoints": ["byoc-dogs", "cats"]}

    # What is spelt right goes all the same.
    assert call("cats", "byoc-dgos", "--yes") == 1
    assert "did you mean byoc-dogs?" in capsys.readouterr().err.splitlines()[-1]
    assert there(aws) == all_of("byoc-dogs")


def test_an_endpoint_with_a_name_of_its_own(aws: boto3.Session) -> None:
    deploy(aws, "dogs")
    assert call("dogs", "--yes") == 0
    assert there(aws) == NOTHING


def test_models_stay_behind_no_endpoint(aws: boto3.Session) -> None:
    """The console removes an endpoint and leaves the rest."""
    deploy(aws, "byoc-dogs")
    aws.client("sagemaker").delete_endpoint(EndpointName="byoc-dogs")
    assert call("byoc-dogs", "--yes") == 0
    assert there(aws) == NOTHING


@pytest.mark.parametrize("owner", ["nobody", "birds"])
def test_what_others_made_is_left_and_named(aws: boto3.Session, owner: str, capsys: Capture) -> None:
    if owner == "nobody":
        by_hand(aws, "byoc-dogs")
    else:
        deploy(aws, "byoc-dogs", project=owner)
    before = there(aws)
    assert call("byoc-dogs", "--yes") == 1
    assert "left: byoc-dogs, which has no tag byoc-project=byoc" in capsys.readouterr().err
    assert call("--all", "--yes") == 0
    assert there(aws) == before
    assert all(before.values())


def test_all(aws: boto3.Session, capsys: Capture) -> None:
    deploy(aws, "byoc-dogs")
    deploy(aws, "cats")
    by_hand(aws, "byoc-horses")
    assert call("--all", "--yes") == 0
    assert there(aws) == all_of("byoc-horses")
    assert "history of training jobs" in capsys.readouterr().err
    assert call("--all", "--yes") == 0
    assert "nothing to remove" in capsys.readouterr().err


def test_unused(aws: boto3.Session) -> None:
    deploy(aws, "byoc-dogs")
    deploy(aws, "byoc-dogs", "byoc-dogs-now")
    assert call("--unused", "--yes") == 0
    assert there(aws) == all_of("byoc-dogs")


def test_without_a_terminal_it_wants_yes(aws: boto3.Session, capsys: Capture) -> None:
    deploy(aws, "byoc-dogs")
    assert call("byoc-dogs") == 2
    captured = capsys.readouterr()
    assert "endpoint" in captured.err
    assert "0.230" in captured.err  # USD an hour of two instances
    assert "3 things would be removed: say --yes" in captured.err.splitlines()[-1]
    assert there(aws) == all_of("byoc-dogs")


@pytest.mark.parametrize(("answer", "left"), [("y\n", []), ("n\n", ["byoc-dogs"]), ("", ["byoc-dogs"])])
def test_on_a_terminal_it_asks(aws: boto3.Session, monkeypatch: Patch, answer: str, left: list[str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    deploy(aws, "byoc-dogs")
    assert call("byoc-dogs") == (1 if left else 0)
    assert there(aws)["endpoints"] == left


def described(status: str) -> dict[str, Any]:
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/byoc-dogs"
    return {
        "EndpointName": "byoc-dogs", "EndpointArn": arn, "EndpointStatus": status, "EndpointConfigName": "byoc-dogs",
    }  # fmt: skip


def test_ctrl_c_says_what_is_still_there(aws: boto3.Session, monkeypatch: Patch, capsys: Capture) -> None:
    deploy(aws, "byoc-dogs")
    give(monkeypatch, "DescribeEndpoint", PASS, PASS, described("Deleting"))

    def ctrl_c(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", ctrl_c)
    assert call("byoc-dogs", "--yes") == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert "still to remove: endpoint byoc-dogs, configuration byoc-dogs, model byoc-dogs; call the same again" in line


def test_a_deletion_that_fails_stops_and_says_so(aws: boto3.Session, monkeypatch: Patch, capsys: Capture) -> None:
    deploy(aws, "byoc-dogs")
    give(monkeypatch, "DeleteEndpoint", error("AccessDeniedException", "not authorized"))
    assert call("byoc-dogs", "--yes") == 1
    assert "scripts/iam/scripts.json" in capsys.readouterr().err.splitlines()[-1]
    assert there(aws) == all_of("byoc-dogs")


def test_tags_of_others_that_may_not_be_seen(aws: boto3.Session, monkeypatch: Patch) -> None:
    by_hand(aws, "cats")
    give(monkeypatch, "ListTags", error("AccessDeniedException", "not authorized"))
    assert call("--all", "--yes") == 0
    deploy(aws, "byoc-dogs")
    assert call("byoc-dogs", "--yes") == 1


# Lists


def test_with_nothing_to_remove_it_lists(aws: boto3.Session, capsys: Capture) -> None:
    assert call() == 0
    captured = capsys.readouterr()
    assert captured.out == "nothing of the project byoc exists\n"
    assert "role byoc-sagemaker (scripts/make_role.py --delete removes it)" in captured.err
    deploy(aws, "byoc-dogs")
    by_hand(aws, "byoc-horses")
    assert call() == 0
    captured = capsys.readouterr()
    heads, _, first, *_, total = captured.out.splitlines()
    assert heads.split() == ["kind", "name", "status", "created", "USD/hour"]
    assert first.split()[:3] == ["endpoint", "byoc-dogs", "InService"]
    assert first.split()[-3:] == ["2", "x", "ml.m5.large"]
    assert "about 0.23 USD an hour" in total
    assert "endpoint byoc-horses has no tag byoc-project: these scripts did not make it, and leave it" in captured.err
    assert call("--json") == 0
    assert [one["kind"] for one in json.loads(capsys.readouterr().out)["found"]] == [
        "endpoint", "configuration", "model",
    ]  # fmt: skip
    assert there(aws) == all_of("byoc-dogs", "byoc-horses")


def test_a_list_goes_on_without_what_may_not_be_seen(aws: boto3.Session, monkeypatch: Patch, capsys: Capture) -> None:
    deploy(aws, "byoc-dogs")
    give(monkeypatch, "DescribeRepositories", error("AccessDeniedException", "not authorized"))
    assert call() == 1
    captured = capsys.readouterr()
    assert "byoc-dogs" in captured.out
    assert "repositories cannot be seen" in captured.err.splitlines()[-1]
    assert call("--repositories", "--yes") == 1
    # Of what was not asked for it is only said.
    assert call("--all", "--yes", "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["unseen"]) == ["repositories"]


def test_what_cannot_be_seen_is_not_said_to_be_nothing(aws: boto3.Session, monkeypatch: Patch, capsys: Capture) -> None:
    unreachable = EndpointConnectionError(endpoint_url="https://api.ecr")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    give(monkeypatch, "DescribeRepositories", unreachable)
    assert call() == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("nothing of the project byoc is among: endpoints, configurations, models; tuning")
    assert "repositories cannot be seen: AWS cannot be reached" in captured.err.splitlines()[-1]

    unseen = "ListEndpoints DescribeAlarms ListTrainingJobs ListModelPackageGroups DescribeRepositories ListObjectsV2"
    for operation in unseen.split():
        give(monkeypatch, operation, error("AccessDeniedException", "not authorized"))
    assert call() == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert all("cannot be seen: " in line for line in captured.err.splitlines()[-6:])
    assert call("--json") == 1
    assert len(json.loads(capsys.readouterr().out)["unseen"]) == 6

    # Without a network each of them would only take its time.
    give(monkeypatch, "ListEndpoints", unreachable)
    assert call() == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_dry_run(capsys: Capture) -> None:
    assert call("byoc-dogs", "--region", REGION, "--dry-run") == 0
    captured = capsys.readouterr()
    assert "what updates, --alarms and --dashboard have added has names that only AWS knows" in captured.err
    assert json.loads(captured.out) == [
        {"service": "sagemaker", "operation": "DeleteEndpoint", "request": {"EndpointName": "byoc-dogs"}},
        {"service": "sagemaker", "operation": "DeleteEndpointConfig", "request": {"EndpointConfigName": "byoc-dogs"}},
        {"service": "sagemaker", "operation": "DeleteModel", "request": {"ModelName": "byoc-dogs"}},
    ]
    for flags in (("--all",), (), ("byoc-dogs", "--data")):
        assert call(*flags, "--region", REGION, "--dry-run") == 2
        assert "--dry-run asks AWS nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["byoc_x"], "NAME has value"),
        (["byoc-x", "--all"], "give one of them"),
        (["--region", "eu-cental-1"], "there is no region eu-cental-1"),
        (["--region", "eu-cental-1"], "did you mean eu-central-1"),
        (["--region", "xx-nowhere-1"], "expected one such as eu-central-1"),
    ],
)
def test_wrong_calls(arguments: list[str], complaint: str, capsys: Capture) -> None:
    assert call("--region", REGION, *arguments) == 2
    assert complaint in capsys.readouterr().err


def test_a_region_that_is_newer_than_boto3(aws: boto3.Session, monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setattr(module, "_regions", lambda: ("eu-west-1", "us-east-1"))
    assert call() == 2
    assert "(--allow-unknown asks all the same)" in capsys.readouterr().err
    assert call("--allow-unknown") == 0


# Training jobs


def job(session: boto3.Session, name: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """A job as moto describes it: it has ended as soon as it was made."""
    client = session.client("sagemaker")
    client.create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={"TrainingImage": "image", "TrainingInputMode": "File"},
        RoleArn=ROLE,
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/byoc"},
        ResourceConfig={"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
    )
    found: dict[str, Any] = client.describe_training_job(TrainingJobName=name)
    return found


OWN = {"byoc-project": "byoc"}


def test_running_jobs(aws: boto3.Session, calls: list[str], monkeypatch: Patch, capsys: Capture) -> None:
    found = job(aws, "byoc-train-1", OWN)
    keys = ("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingJobStatus")
    summary = {key: found[key] for key in keys}
    running = {**found, "TrainingJobStatus": "InProgress", "SecondaryStatus": "Training"}
    give(monkeypatch, "ListTrainingJobs", {"TrainingJobSummaries": [summary]}, {"TrainingJobSummaries": []})
    give(monkeypatch, "DescribeTrainingJob", running)
    give(monkeypatch, "StopTrainingJob", {})
    assert call("--jobs", "--yes", "--json") == 0
    removed = json.loads(capsys.readouterr().out)["removed"]
    assert [(one["kind"], one["name"], one["status"]) for one in removed] == [
        ("training job", "byoc-train-1", "Training")
    ]
    assert "sagemaker:StopTrainingJob" in calls

    # One that is left is named loudly.
    give(monkeypatch, "ListTrainingJobs", {"TrainingJobSummaries": [summary]}, {"TrainingJobSummaries": []})
    deploy(aws, "byoc-dogs")
    assert call("--all", "--yes") == 0
    assert "left, and billed: training job byoc-train-1" in capsys.readouterr().err

    # It ended by itself meanwhile.
    give(monkeypatch, "ListTrainingJobs", {"TrainingJobSummaries": [summary]}, {"TrainingJobSummaries": []})
    message = "The request was rejected because the training job is in status Completed."
    give(monkeypatch, "StopTrainingJob", error("ValidationException", message))
    assert call("--jobs", "--yes") == 0


# S3


def keys(session: boto3.Session) -> list[str]:
    return [item["Key"] for item in session.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def put(session: boto3.Session, key: str) -> None:
    session.client("s3").put_object(Bucket=BUCKET, Key=key, Body=b"12345")
