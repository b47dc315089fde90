"""The contents of an account: made before a test, and looked up after it."""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boto3 import Session
from botocore import xform_name

from local_test import pack
from scripts.aws.names import S3Uri
from scripts.aws.settings import load
from scripts.endpoints.deployment import Deployment, requests, resource_name
from tests.cloud.conftest import ACCOUNT, BUCKET, KEY, MODEL, REGION, ROLE
from tests.contract.models import write_model

OWN = {"byoc-project": "byoc"}
NOTHING: dict[str, list[str]] = {"models": [], "configurations": [], "endpoints": []}


def deployed(
    session: Session, endpoint: str = "byoc-dogs", name: str | None = None, *, project: str = "byoc",
    instances: int = 1, count: int = 3,
) -> None:  # fmt: skip
    """Send the first `count` requests of deploy.py (model, configuration, endpoint); with `name` those of an update."""
    settings = load(argparse.Namespace(project=project, role=ROLE, region=REGION), {})
    wanted = Deployment(
        name or resource_name(endpoint, project), "image", S3Uri.parse(MODEL, "-"), "ml.m5.large", instances, {},
        False, endpoint, 600, 600,
    )  # fmt: skip
    for request in requests(wanted, argparse.Namespace(update=False), settings)[: 2 if name else count]:
        getattr(session.client("sagemaker"), xform_name(request.operation))(**request.request)


def create_model(session: Session, name: str) -> None:
    """One of somebody else, without tags."""
    client = session.client("sagemaker")
    client.create_model(ModelName=name, PrimaryContainer={"Image": "image"}, ExecutionRoleArn=ROLE)


def serve(session: Session, name: str, model: str) -> None:
    """A configuration and an endpoint of somebody else."""
    variant = {"VariantName": "a", "ModelName": model, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    client = session.client("sagemaker")
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)


def by_hand(session: Session, name: str) -> None:
    """An endpoint with its model, made by somebody else."""
    create_model(session, name)
    serve(session, name, name)


def there(session: Session) -> dict[str, list[str]]:
    """The names of all models, configurations and endpoints."""
    client = session.client("sagemaker")
    return {
        "models": sorted(one["ModelName"] for one in client.list_models()["Models"]),
        "configurations": sorted(
            one["EndpointConfigName"] for one in client.list_endpoint_configs()["EndpointConfigs"]
        ),
        "endpoints": sorted(one["EndpointName"] for one in client.list_endpoints()["Endpoints"]),
    }


def all_of(*names: str) -> dict[str, list[str]]:
    return {kind: sorted(names) for kind in NOTHING}


DOGS = all_of("byoc-dogs")


def described(status: str, configuration: str = "byoc-dogs", **more: Any) -> dict[str, Any]:
    """DescribeEndpoint's answer about byoc-dogs."""
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/byoc-dogs"
    names = {"EndpointName": "byoc-dogs", "EndpointArn": arn, "EndpointConfigName": configuration}
    return {**names, "EndpointStatus": status, **more}


def configuration(session: Session, endpoint: str = "byoc-dogs") -> Any:
    """DescribeEndpointConfig's answer about what an endpoint serves."""
    client = session.client("sagemaker")
    name = client.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
    return client.describe_endpoint_config(EndpointConfigName=name)


def create_job(session: Session, name: str, tags: Mapping[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """A training job as moto describes it: it has ended as soon as it was made."""
    client = session.client("sagemaker")
    request = {
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/byoc"},
        "ResourceConfig": {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "Tags": [{"Key": key, "Value": value} for key, value in (tags or {}).items()],
    }
    client.create_training_job(TrainingJobName=name, **request | more)
    found: dict[str, Any] = client.describe_training_job(TrainingJobName=name)
    return found


def keys(session: Session, prefix: str = "") -> list[str]:
    found = session.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return [item["Key"] for item in found]


def put(session: Session, key: str, body: bytes = b"12345") -> None:
    session.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body)


def put_model(session: Session, folder: Path) -> Path:
    """model.tar.gz of a small model that a real server takes; the model's folder."""
    model = write_model(folder / "model")
    pack.pack(model, folder / "model.tar.gz")
    put(session, KEY, (folder / "model.tar.gz").read_bytes())
    return model


def put_data(session: Session) -> str:
    """One image in each split; their prefix."""
    for split in ("train", "valid", "test"):
        put(session, f"byoc/data/x/{split}/cat/1.jpg")
    return f"s3://{BUCKET}/byoc/data/x"


def write_log(session: Session, group: str, stream: str, *lines: str) -> None:
    logs, place = session.client("logs"), {"logGroupName": group, "logStreamName": stream}
    if not logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
        logs.create_log_group(logGroupName=group)
    if not logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=stream)["logStreams"]:
        logs.create_log_stream(**place)
    now = int(time.time() * 1000)
    logs.put_log_events(**place, logEvents=[{"timestamp": now, "message": line} for line in lines])
