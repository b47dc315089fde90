"""cleanup.py: what it removes and in which order, and what it leaves alone."""

import argparse
import io
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
from scripts.endpoints import lookup
from scripts.endpoints.deployment import Deployment, resource_name
from tests.cloud.answers import PASS, error, give
from tests.cloud.conftest import ACCOUNT, REGION, ROLE, Call
from tests.conftest import Patch

BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"
MODEL = f"s3://{BUCKET}/byoc/job-1/output/model.tar.gz"
NOTHING: dict[str, list[str]] = {"models": [], "configurations": [], "endpoints": []}


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


def test_an_endpoint_goes_with_all_that_was_made_for_it(aws: boto3.Session, calls: list[str], call: Call) -> None:
    deploy(aws, "byoc-dogs")
    deploy(aws, "byoc-dogs", "byoc-dogs-now")  # of an update
    deploy(aws, "byoc-dogs-2")
    by_hand(aws, "byoc-dogs-3")
    by_hand(aws, "cats")
    ended = call(cleanup, "byoc-dogs", "--yes", "--json")
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
    assert "left: the log group /aws/sagemaker/Endpoints/byoc-dogs" in ended.err
    assert "left, and billed: endpoint byoc-dogs-2" in ended.err

    ended = call(cleanup, "byoc-dogs", "--yes")
    assert ended.code == 1
    assert "there is no endpoint byoc-dogs of the project byoc in eu-central-1 (any more)" in ended.err


def test_a_misspelt_name_is_no_success(aws: boto3.Session, call: Call) -> None:
    assert call(cleanup, "byoc-dogs", "--yes").last.endswith("(any more): without a name, this lists what exists")
    deploy(aws, "byoc-dogs")
    deploy(aws, "cats")
    ended = call(cleanup, "byoc-dgos", "--yes", "--json")
    assert (ended.code, ended.json["removed"]) == (1, [])
    assert ended.last.endswith("(any more): did you mean byoc-dogs?")
    assert there(aws) == {**all_of("byoc-cats", "byoc-dogs"), "endpoints": ["byoc-dogs", "cats"]}

    # What is spelt right goes all the same.
    assert "did you mean byoc-dogs?" in call(cleanup, "cats", "byoc-dgos", "--yes").last
    assert there(aws) == all_of("byoc-dogs")


def test_an_endpoint_with_a_name_of_its_own(aws: boto3.Session, call: Call) -> None:
    deploy(aws, "dogs")
    assert call(cleanup, "dogs", "--yes").code == 0
    assert there(aws) == NOTHING


def test_models_stay_behind_no_endpoint(aws: boto3.Session, call: Call) -> None:
    """The console removes an endpoint and leaves the rest."""
    deploy(aws, "byoc-dogs")
    aws.client("sagemaker").delete_endpoint(EndpointName="byoc-dogs")
    assert call(cleanup, "byoc-dogs", "--yes").code == 0
    assert there(aws) == NOTHING


@pytest.mark.parametrize("owner", ["nobody", "birds"])
def test_what_others_made_is_left_and_named(aws: boto3.Session, owner: str, call: Call) -> None:
    if owner == "nobody":
        by_hand(aws, "byoc-dogs")
    else:
        deploy(aws, "byoc-dogs", project=owner)
    before = there(aws)
    ended = call(cleanup, "byoc-dogs", "--yes")
    assert (ended.code, "left: byoc-dogs, which has no tag byoc-project=byoc" in ended.err) == (1, True)
    assert call(cleanup, "--all", "--yes").code == 0
    assert there(aws) == before
    assert all(before.values())


def test_all(aws: boto3.Session, call: Call) -> None:
    deploy(aws, "byoc-dogs")
    deploy(aws, "cats")
    by_hand(aws, "byoc-horses")
    ended = call(cleanup, "--all", "--yes")
    assert (ended.code, there(aws), "history of training jobs" in ended.err) == (0, all_of("byoc-horses"), True)
    ended = call(cleanup, "--all", "--yes")
    assert (ended.code, "nothing to remove" in ended.err) == (0, True)


def test_unused(aws: boto3.Session, call: Call) -> None:
    deploy(aws, "byoc-dogs")
    deploy(aws, "byoc-dogs", "byoc-dogs-now")
    assert call(cleanup, "--unused", "--yes").code == 0
    assert there(aws) == all_of("byoc-dogs")


def test_without_a_terminal_it_wants_yes(aws: boto3.Session, call: Call) -> None:
    deploy(aws, "byoc-dogs")
    ended = call(cleanup, "byoc-dogs")
    assert (ended.code, "endpoint" in ended.err) == (2, True)
    assert "0.230" in ended.err  # USD an hour of two instances
    assert "3 things would be removed: say --yes" in ended.last
    assert there(aws) == all_of("byoc-dogs")


@pytest.mark.parametrize(("answer", "left"), [("y\n", []), ("n\n", ["byoc-dogs"]), ("", ["byoc-dogs"])])
def test_on_a_terminal_it_asks(
    aws: boto3.Session, monkeypatch: Patch, answer: str, left: list[str], call: Call
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    deploy(aws, "byoc-dogs")
    assert call(cleanup, "byoc-dogs").code == (1 if left else 0)
    assert there(aws)["endpoints"] == left


def described(status: str) -> dict[str, Any]:
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/byoc-dogs"
    return {
        "EndpointName": "byoc-dogs", "EndpointArn": arn, "EndpointStatus": status, "EndpointConfigName": "byoc-dogs",
    }  # fmt: skip


def test_ctrl_c_says_what_is_still_there(aws: boto3.Session, monkeypatch: Patch, call: Call) -> None:
    deploy(aws, "byoc-dogs")
    give(monkeypatch, "DescribeEndpoint", PASS, PASS, described("Deleting"))

    def ctrl_c(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", ctrl_c)
    ended = call(cleanup, "byoc-dogs", "--yes")
    left = "still to remove: endpoint byoc-dogs, configuration byoc-dogs, model byoc-dogs; call the same again"
    assert (ended.code, left in ended.last) == (130, True)


def test_a_deletion_that_fails_stops_and_says_so(aws: boto3.Session, monkeypatch: Patch, call: Call) -> None:
    deploy(aws, "byoc-dogs")
    give(monkeypatch, "DeleteEndpoint", error("AccessDeniedException", "not authorized"))
    ended = call(cleanup, "byoc-dogs", "--yes")
    assert (ended.code, "scripts/iam/scripts.json" in ended.last) == (1, True)
    assert there(aws) == all_of("byoc-dogs")


def test_tags_of_others_that_may_not_be_seen(aws: boto3.Session, monkeypatch: Patch, call: Call) -> None:
    by_hand(aws, "cats")
    give(monkeypatch, "ListTags", error("AccessDeniedException", "not authorized"))
    assert call(cleanup, "--all", "--yes").code == 0
    deploy(aws, "byoc-dogs")
    assert call(cleanup, "byoc-dogs", "--yes").code == 1


# Lists


def test_with_nothing_to_remove_it_lists(aws: boto3.Session, call: Call) -> None:
    ended = call(cleanup)
    assert (ended.code, ended.out) == (0, "nothing of the project byoc exists\n")
    assert "role byoc-sagemaker (scripts/make_role.py --delete removes it)" in ended.err
    deploy(aws, "byoc-dogs")
    by_hand(aws, "byoc-horses")
    ended = call(cleanup)
    heads, _, first, *_, total = ended.out.splitlines()
    assert heads.split() == ["kind", "name", "status", "created", "USD/hour"]
    assert first.split()[:3] == ["endpoint", "byoc-dogs", "InService"]
    assert first.split()[-3:] == ["2", "x", "ml.m5.large"]
    assert "about 0.23 USD an hour" in total
    assert "endpoint byoc-horses has no tag byoc-project: these scripts did not make it, and leave it" in ended.err
    found = call(cleanup, "--json").json["found"]
    assert [one["kind"] for one in found] == ["endpoint", "configuration", "model"]
    assert there(aws) == all_of("byoc-dogs", "byoc-horses")


def test_a_list_goes_on_without_what_may_not_be_seen(aws: boto3.Session, monkeypatch: Patch, call: Call) -> None:
    deploy(aws, "byoc-dogs")
    give(monkeypatch, "DescribeRepositories", error("AccessDeniedException", "not authorized"))
    ended = call(cleanup)
    assert (ended.code, "byoc-dogs" in ended.out, "repositories cannot be seen" in ended.last) == (1, True, True)
    assert call(cleanup, "--repositories", "--yes").code == 1
    # Of what was not asked for it is only said.
    ended = call(cleanup, "--all", "--yes", "--json")
    assert (ended.code, list(ended.json["unseen"])) == (0, ["repositories"])


def test_what_cannot_be_seen_is_not_said_to_be_nothing(aws: boto3.Session, monkeypatch: Patch, call: Call) -> None:
    unreachable = EndpointConnectionError(endpoint_url="https://api.ecr")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    give(monkeypatch, "DescribeRepositories", unreachable)
    ended = call(cleanup)
    assert ended.out.startswith("nothing of the project byoc is among: endpoints, configurations, models; tuning")
    assert (ended.code, "repositories cannot be seen: AWS cannot be reached" in ended.last) == (1, True)

    unseen = "ListEndpoints DescribeAlarms ListTrainingJobs ListModelPackageGroups DescribeRepositories ListObjectsV2"
    for operation in unseen.split():
        give(monkeypatch, operation, error("AccessDeniedException", "not authorized"))
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
    assert "what updates, --alarms and --dashboard have added has names that only AWS knows" in ended.err
    assert ended.json == [
        {"service": "sagemaker", "operation": "DeleteEndpoint", "request": {"EndpointName": "byoc-dogs"}},
        {"service": "sagemaker", "operation": "DeleteEndpointConfig", "request": {"EndpointConfigName": "byoc-dogs"}},
        {"service": "sagemaker", "operation": "DeleteModel", "request": {"ModelName": "byoc-dogs"}},
    ]
    for flags in (("--all",), (), ("byoc-dogs", "--data")):
        ended = call(cleanup, *flags, "--region", REGION, "--dry-run")
        assert (ended.code, "--dry-run asks AWS nothing" in ended.err) == (2, True)


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
def test_wrong_calls(arguments: list[str], complaint: str, call: Call) -> None:
    ended = call(cleanup, "--region", REGION, *arguments)
    assert (ended.code, complaint in ended.err) == (2, True)


def test_a_region_that_is_newer_than_boto3(aws: boto3.Session, monkeypatch: Patch, call: Call) -> None:
    monkeypatch.setattr(module, "_regions", lambda: ("eu-west-1", "us-east-1"))
    ended = call(cleanup)
    assert (ended.code, "(--allow-unknown asks all the same)" in ended.err) == (2, True)
    assert call(cleanup, "--allow-unknown").code == 0


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


def test_running_jobs(aws: boto3.Session, calls: list[str], monkeypatch: Patch, call: Call) -> None:
    found = job(aws, "byoc-train-1", OWN)
    keys = ("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingJobStatus")
    summary = {key: found[key] for key in keys}
    running = {**found, "TrainingJobStatus": "InProgress", "SecondaryStatus": "Training"}
    give(monkeypatch, "ListTrainingJobs", {"TrainingJobSummaries": [summary]}, {"TrainingJobSummaries": []})
    give(monkeypatch, "DescribeTrainingJob", running)
    give(monkeypatch, "StopTrainingJob", {})
    removed = call(cleanup, "--jobs", "--yes", "--json").json["removed"]
    assert [(one["kind"], one["name"], one["status"]) for one in removed] == [
        ("training job", "byoc-train-1", "Training")
    ]
    assert "sagemaker:StopTrainingJob" in calls

    # One that is left is named loudly.
    give(monkeypatch, "ListTrainingJobs", {"TrainingJobSummaries": [summary]}, {"TrainingJobSummaries": []})
    deploy(aws, "byoc-dogs")
    ended = call(cleanup, "--all", "--yes")
    assert (ended.code, "left, and billed: training job byoc-train-1" in ended.err) == (0, True)

    # It ended by itself meanwhile.
    give(monkeypatch, "ListTrainingJobs", {"TrainingJobSummaries": [summary]}, {"TrainingJobSummaries": []})
    message = "The request was rejected because the training job is in status Completed."
    give(monkeypatch, "StopTrainingJob", error("ValidationException", message))
    assert call(cleanup, "--jobs", "--yes").code == 0


# S3


def keys(session: boto3.Session) -> list[str]:
    return [item["Key"] for item in session.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def put(session: boto3.Session, key: str) -> None:
    session.client("s3").put_object(Bucket=BUCKET, Key=key, Body=b"12345")
