"""Nothing that anything in the account uses is removed: each kind of user, each kind of thing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from boto3 import Session

from scripts import cleanup
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.aws.settings import Settings
from scripts.images.registry import ensure_repository
from scripts.resources.assets import S3Asset
from scripts.resources.inventory import Kind, Resource
from scripts.resources.usage import kept
from scripts.s3 import storage
from tests.cloud.answers import PASS, error, give
from tests.cloud.conftest import BUCKET, HOST, KEY, REGION, ROLE, Call
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.resources import OWN, by_hand, create_job, create_model, deployed, keys, put, serve, there
from tests.conftest import Patch

DATA = f"s3://{BUCKET}/byoc/data/dogs"
DENIED = error("AccessDeniedException", "no")
TRAINING = {
    "RoleArn": ROLE,
    "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/byoc"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
}


def channel(uri: str) -> list[dict[str, Any]]:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}
    return [{"ChannelName": "train", "DataSource": source}]


def model(client: Any, image: str, data: str) -> None:
    container = {"Image": image, "ModelDataUrl": data}
    client.create_model(ModelName="theirs", PrimaryContainer=container, ExecutionRoleArn=ROLE)


def pipeline(client: Any, image: str, data: str) -> None:
    """A model of two containers, the second of which reads a folder."""
    source = {"S3DataSource": {"S3Uri": f"{data}/", "S3DataType": "S3Prefix", "CompressionType": "None"}}
    containers = [{"Image": "other"}, {"Image": image, "ModelDataSource": source}]
    client.create_model(ModelName="theirs", Containers=containers, ExecutionRoleArn=ROLE)


def training_job(client: Any, image: str, data: str) -> None:
    client.create_training_job(
        TrainingJobName="theirs", **TRAINING, InputDataConfig=channel(data),
        AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "FastFile"},
    )  # fmt: skip


def tuning_job(client: Any, image: str, data: str) -> None:
    limits = {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1}
    client.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName="theirs",
        HyperParameterTuningJobConfig={"Strategy": "Random", "ResourceLimits": limits},
        TrainingJobDefinition={
            **TRAINING, "InputDataConfig": channel(data),
            "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
        },
    )  # fmt: skip


def transform_job(client: Any, image: str, data: str) -> None:
    client.create_transform_job(
        TransformJobName="theirs",
        ModelName="byoc-dogs",
        TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": data}}},
        TransformOutput={"S3OutputPath": f"s3://{BUCKET}/byoc"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )


def package(client: Any, image: str, data: str) -> None:
    client.create_model_package_group(ModelPackageGroupName="theirs")
    containers = [{"Image": image, "ModelDataUrl": data}]
    specification = {"Containers": containers, "SupportedContentTypes": ["image/jpeg"]}
    client.create_model_package(
        ModelPackageGroupName="theirs", InferenceSpecification={**specification, "SupportedResponseMIMETypes": ["a/b"]}
    )


STORES = [model, pipeline, training_job, tuning_job, transform_job, package]


@pytest.mark.parametrize("make", STORES)
def test_data_that_is_read(aws: Session, flaky: FlakyAws, make: Callable[..., None]) -> None:
    flaky.slow(99)
    data = f"{DATA}/model.tar.gz" if make in (model, package) else DATA
    make(aws.client("sagemaker"), "image", data)
    dogs = S3Asset(Kind.RESULTS, S3Uri.parse(DATA, "-"))
    cats = S3Asset(Kind.RESULTS, S3Uri.parse(f"s3://{BUCKET}/byoc/data/cats", "-"))
    assert [
        (thing, user.name.endswith(("theirs", "theirs/1"))) for thing, user in kept(Aws(REGION), [dogs, cats]).items()
    ] == [(dogs, True)]


@pytest.mark.parametrize("change", ["gone", "changed", "more", "nothing", "denied"])
def test_data_that_a_job_reads_is_not_changed(
    aws: Session, flaky: FlakyAws, tmp_path: Path, monkeypatch: Patch, change: str
) -> None:
    settings, prefix = Settings(region=REGION), S3Uri.parse(DATA, "-")
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())

    def upload() -> storage.Uploaded:
        paths = sorted(tmp_path.glob("*.jpg"))
        items = [storage.Item(f"train/cat/{path.name}", path, path.stat().st_size) for path in paths]
        return storage.upload(Aws(REGION), items, prefix, settings)

    upload()
    flaky.slow(99)
    training_job(aws.client("sagemaker"), "image", DATA)
    if change in ("gone", "denied"):
        (tmp_path / "a.jpg").unlink()
    elif change != "nothing":
        (tmp_path / ("a.jpg" if change == "changed" else "c.jpg")).write_bytes(b"other")
    if change == "denied":
        give(monkeypatch, "ListTrainingJobs", DENIED)
    if change in ("gone", "changed"):
        before = keys(aws)
        with pytest.raises(CloudError, match=f"the training job theirs reads {DATA}: wait for its end"):
            upload()
        assert keys(aws) == before
    else:
        assert upload().deleted == (change == "denied")


def test_what_has_ended_uses_nothing(aws: Session) -> None:
    for make in (training_job, tuning_job, transform_job):
        make(aws.client("sagemaker"), f"{HOST}/byoc-serve:1", DATA)
    dogs = S3Asset(Kind.RESULTS, S3Uri.parse(DATA, "-"))
    doomed: list[Resource | S3Asset] = [dogs, Resource(Kind.MODEL, "byoc-dogs"), repository("byoc-serve")]
    assert kept(Aws(REGION), doomed) == {}


@pytest.mark.parametrize("address", [
    f"s3://{BUCKET}/byoc/data/dogs/model.tar.gz",
    f"https://s3.{REGION}.amazonaws.com/{BUCKET}/byoc/data/dogs/model.tar.gz",
    f"https://{BUCKET}.s3.{REGION}.amazonaws.com/byoc/data/dogs/model.tar.gz",
    f"https://{BUCKET}.s3.amazonaws.com/byoc/data/dogs/model.tar.gz",
    f"s3://{BUCKET}/byoc/data/",
    f"s3://{BUCKET}/byoc/data/do",  # a prefix is no folder
])  # fmt: skip
def test_every_address_of_the_data(aws: Session, address: str) -> None:
    model(aws.client("sagemaker"), "image", address)
    assert kept(Aws(REGION), [S3Asset(Kind.RESULTS, S3Uri.parse(DATA, "-"))])
    others = [f"{DATA}-2", f"s3://{BUCKET}/byoc/weights", f"s3://{BUCKET}-2/byoc/data/dogs"]
    if address.endswith("model.tar.gz"):
        assert not kept(Aws(REGION), [S3Asset(Kind.RESULTS, S3Uri.parse(uri, "-")) for uri in others])


def test_pictures_are_read_by_jobs_only_and_no_model_is_described(aws: Session, calls: list[str]) -> None:
    model(aws.client("sagemaker"), "image", f"{DATA}/model.tar.gz")
    assert not kept(Aws(REGION), [S3Asset(Kind.IMAGES, S3Uri.parse(DATA, "-"))])
    assert "sagemaker:ListTrainingJobs" in calls
    assert not [call for call in calls if "Model" in call]


def repository(name: str) -> Resource:
    return Resource(Kind.REPOSITORY, name, detail=f"{HOST}/{name}")


@pytest.mark.parametrize("make", [one for one in STORES if one is not transform_job])
@pytest.mark.parametrize("image", [f"{HOST}/byoc-serve:1", f"{HOST}/byoc-serve@sha256:{'0' * 64}"])
def test_images_that_are_run(aws: Session, flaky: FlakyAws, make: Callable[..., None], image: str) -> None:
    flaky.slow(99)
    make(aws.client("sagemaker"), image, DATA)
    found = kept(Aws(REGION), [repository("byoc-serve"), repository("byoc-serve-torch"), repository("byoc")])
    assert [thing.name for thing in found] == ["byoc-serve"]


def test_models_and_configurations_that_are_served(aws: Session, flaky: FlakyAws) -> None:
    for name in ("byoc-dogs", "byoc-cats", "byoc-birds", "byoc-fish"):
        create_model(aws, name)
    serve(aws, "other", "byoc-birds")
    flaky.components["parts"] = "byoc-cats"
    flaky.slow(99)
    transform_job(aws.client("sagemaker"), "image", DATA)
    serve(aws, "moving", "byoc-fish")
    doomed = [Resource(Kind.MODEL, f"byoc-{name}") for name in ("dogs", "cats", "birds", "fish")]
    doomed += [Resource(Kind.CONFIGURATION, name) for name in ("other", "moving")]
    doomed += [Resource(Kind.ENDPOINT, "moving")]
    # All that uses byoc-fish goes with it.
    assert {thing.name: str(user) for thing, user in kept(Aws(REGION), doomed).items()} == {
        "byoc-dogs": "the transform job theirs",
        "byoc-cats": "the inference component parts",
        "byoc-birds": "the configuration other",  # which stays itself, because of its endpoint
        "other": "the endpoint other",
    }


@pytest.mark.parametrize("flags", [("byoc-dogs",), ("--all",), ("--unused",)])
def test_cleanup_leaves_what_another_team_serves(aws: Session, call: Call, flags: tuple[str, ...]) -> None:
    deployed(aws)
    if flags == ("--unused",):
        aws.client("sagemaker").delete_endpoint(EndpointName="byoc-dogs")
    serve(aws, "theirs", "byoc-dogs")
    ended = call(cleanup, *flags, "--yes")
    assert ended.code == 0
    assert there(aws) == {"models": ["byoc-dogs"], "configurations": ["theirs"], "endpoints": ["theirs"]}
    said = "left: model byoc-dogs, which the configuration theirs uses" in ended.err
    assert said == (flags != ("--unused",))


def test_cleanup_looks_again_after_the_minutes_that_an_endpoint_takes_to_go(
    aws: Session, flaky: FlakyAws, call: Call
) -> None:
    create_job(aws, "job-1", OWN)
    put(aws, KEY)
    deployed(aws)

    def meanwhile() -> None:
        serve(aws, "theirs", "byoc-dogs")
        model(aws.client("sagemaker"), "image", f"s3://{BUCKET}/{KEY}")

    flaky.after["DeleteEndpoint"] = meanwhile
    ended = call(cleanup, "--all", "--data", "--json", "--yes")
    ended.says("left: model byoc-dogs, which the configuration theirs uses")
    assert [one["name"] for one in ended.json["removed"]] == ["byoc-dogs", "byoc-dogs"]
    assert there(aws)["models"] == ["byoc-dogs", "theirs"]
    assert keys(aws) == [KEY]


@pytest.mark.parametrize("operation", ["ListEndpoints", "DescribeEndpoint", "DescribeEndpointConfig"])
def test_cleanup_leaves_what_may_be_used_where_that_cannot_be_seen(
    aws: Session, monkeypatch: Patch, call: Call, operation: str
) -> None:
    deployed(aws)
    aws.client("sagemaker").delete_endpoint(EndpointName="byoc-dogs")
    by_hand(aws, "cats")
    first = [PASS] if operation == "ListEndpoints" else []
    give(monkeypatch, operation, *first, DENIED)
    ended = call(cleanup, "--unused", "--yes")
    ended.ends(
        1, "left: configuration byoc-dogs, model byoc-dogs: cannot see what uses them", "a permission is missing"
    )
    assert there(aws)["models"] == ["byoc-dogs", "cats"]


def test_an_endpoint_goes_where_it_cannot_be_seen_who_uses_its_model(
    aws: Session, monkeypatch: Patch, call: Call
) -> None:
    """It costs money; the rest does not."""
    deployed(aws)
    give(monkeypatch, "ListTransformJobs", DENIED)
    ended = call(cleanup, "byoc-dogs", "--yes")
    ended.says("left: configuration byoc-dogs, model byoc-dogs: cannot see what uses them", code=1)
    assert there(aws) == {"models": ["byoc-dogs"], "configurations": ["byoc-dogs"], "endpoints": []}


def test_cleanup_leaves_data_and_images_that_others_use(aws: Session, call: Call) -> None:
    for name in ("job-1", "job-2"):
        create_job(aws, name, OWN)
        put(aws, f"byoc/{name}/output/model.tar.gz")
    for target in ("train", "serve"):
        ensure_repository(Aws(REGION), f"byoc-{target}", Settings(region=REGION))
    model(aws.client("sagemaker"), f"{HOST}/byoc-serve:1", f"s3://{BUCKET}/{KEY}")
    ended = call(cleanup, "--data", "--repositories", "--yes")
    assert (ended.code, keys(aws)) == (0, [KEY])
    (left,) = aws.client("ecr").describe_repositories()["repositories"]
    assert left["repositoryName"] == "byoc-serve"
    assert f"left: s3://{BUCKET}/byoc/job-1, which the model theirs uses" in ended.err
    assert "left: repository byoc-serve, which the model theirs uses" in ended.err
