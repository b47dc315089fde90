"""train.py: the requests it makes, what they may cost, and whole calls against moto's server."""

import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from boto3 import Session
from botocore.exceptions import ReadTimeoutError

from container_train.hyperparameters import OPTIONS
from container_train.training.metrics import DEFINITIONS
from scripts import train, tune
from scripts.aws import creation
from scripts.jobs import local_training
from tests import trees
from tests.cloud.conftest import BUCKET, HERE, REGION, ROLE, TRAIN_IMAGE, Call
from tests.conftest import Patch

BASE = ("--image", TRAIN_IMAGE, *HERE, "--name", "byoc-job-1", "--dry-run")
DATA = ("--data", "s3://my-data/dogs")


@pytest.fixture(params=["with the SDK", "without it"])
def sdk(request: pytest.FixtureRequest, monkeypatch: Patch) -> None:
    """The same request, whichever of the two builds it."""
    if request.param == "without it":
        monkeypatch.setattr("scripts.jobs.training.importlib.util.find_spec", lambda name: None)


def channel(name: str, uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"DataSource": {"S3DataSource": source}, "ChannelName": name}


PLAIN: dict[str, Any] = {
    "TrainingJobName": "byoc-job-1",
    "AlgorithmSpecification": {
        "TrainingInputMode": "File", "TrainingImage": TRAIN_IMAGE, "MetricDefinitions": DEFINITIONS,
    },
    "RoleArn": ROLE,
    "InputDataConfig": [channel(split, f"s3://my-data/dogs/{split}/") for split in ("train", "valid", "test")],
    "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/byoc"},
    "ResourceConfig": {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
    "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
    "HyperParameters": {"epochs": "3", "lr": "0.01"},
    "Environment": {"BYOC_IMAGE": TRAIN_IMAGE},
    "Tags": [{"Key": "byoc-project", "Value": "byoc"}],
    "ProfilerConfig": {"DisableProfiler": True},
}  # fmt: skip
EVERYTHING = (
    "--instance-type", "ml.m5.xlarge", "--instance-count", "2", "--volume-size", "50",
    "--spot", "--max-run", "3600", "--max-wait", "7200", "--checkpoints", "s3://old/job/checkpoints/",
    "--input-mode", "FastFile", "--network-isolation", "--weights", "s3://my-weights/resnet50.pth",
    "--environment", "A=1", "--environment", "B=x=y", "--output", "s3://results/here/", "--project", "byoc-dogs",
    "--tags", "team=vision", "--subnets", "subnet-1,subnet-2", "--security-groups", "sg-1",
    "--output-kms-key", "alias/out", "--volume-kms-key", "1234abcd-key",
    "--batch_size", "32", "--augment", "flip", "--freeze-until", "layer3",
)  # fmt: skip


@pytest.mark.usefixtures("sdk")
def test_the_requests(call: Call, calls: list[str]) -> None:
    assert call(train, *BASE, *DATA, "--epochs", "3", "--lr=0.01").json == [
        {"service": "sagemaker", "operation": "CreateTrainingJob", "request": PLAIN}
    ]
    ended = call(train, *BASE, *DATA, *EVERYTHING)
    weights = channel("weights", "s3://my-weights/resnet50.pth") | {"InputMode": "File"}
    assert ended.json[0]["request"] == PLAIN | {
        "AlgorithmSpecification": PLAIN["AlgorithmSpecification"] | {"TrainingInputMode": "FastFile"},
        "InputDataConfig": [*PLAIN["InputDataConfig"], weights],
        "OutputDataConfig": {"S3OutputPath": "s3://results/here", "KmsKeyId": "alias/out"},
        "ResourceConfig": {
            "InstanceType": "ml.m5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 50, "VolumeKmsKeyId": "1234abcd-key",
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200},
        "HyperParameters": {"batch-size": "32", "augment": "flip", "freeze-until": "layer3"},
        "Environment": {"BYOC_IMAGE": TRAIN_IMAGE, "A": "1", "B": "x=y"},
        "Tags": [{"Key": "byoc-project", "Value": "byoc-dogs"}, {"Key": "team", "Value": "vision"}],
        "VpcConfig": {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
        "EnableNetworkIsolation": True,
        "EnableManagedSpotTraining": True,
        "CheckpointConfig": {"S3Uri": "s3://old/job/checkpoints"},
    }  # fmt: skip
    assert "--instance-count 2: the instances share each batch, and each is billed" in ended.err
    assert "one of them has to let the instances reach each other" in ended.err
    # Disks that are encrypted anyway get no key; a warm pool, and none.
    ended = call(train, *BASE, *DATA, "--volume-kms-key", "1234abcd-key", "--keep-alive", "1800")
    assert ended.json[0]["request"]["ResourceConfig"] == PLAIN["ResourceConfig"] | {"KeepAlivePeriodInSeconds": 1800}
    assert "ml.g4dn.xlarge has disks of its own, encrypted in hardware" in ended.err
    ended = call(train, *BASE, *DATA, "--weights", "none", "--network-isolation", "--keep-alive", "0")
    request = PLAIN | {"HyperParameters": {"weights": "none"}, "EnableNetworkIsolation": True}
    assert ended.json[0]["request"] == request
    assert calls == []


def test_the_request_with_the_services_debugger(call: Call) -> None:
    (shown,) = call(train, *BASE, *DATA, "--epochs", "3", "--lr", "0.01", "--service-debugger").json
    output = f"s3://{BUCKET}/byoc"

    def rules(*names: str) -> list[dict[str, Any]]:
        image = f"482524230118.dkr.ecr.{REGION}.amazonaws.com/sagemaker-debugger-rules:latest"
        own = {"RuleEvaluatorImage": image}
        return [{"RuleConfigurationName": name, "RuleParameters": {"rule_to_invoke": name}, **own} for name in names]

    collections = shown["request"]["DebugHookConfig"].pop("CollectionConfigurations")
    assert {one["CollectionName"]: one["CollectionParameters"] for one in collections} == {
        "gradients": {"save_interval": "10"},
        "losses": {"save_interval": "10"},
        "relu_input": {"include_regex": ".*relu_input", "save_interval": "10"},
    }
    profiler = {"S3OutputPath": output, "DisableProfiler": False, "ProfilingIntervalInMilliseconds": 500}
    own = ("VanishingGradient", "Overfit", "LossNotDecreasing", "PoorWeightInitialization")
    assert shown["request"] == PLAIN | {
        "DebugHookConfig": {"S3OutputPath": output},
        "DebugRuleConfigurations": rules(*own),
        "ProfilerRuleConfigurations": rules("ProfilerReport"),
        "ProfilerConfig": profiler,
    }


def test_what_is_not_said_has_a_default(call: Call) -> None:
    (shown,) = call(train, *BASE, *DATA, "--spot", "--max-run", "600").requests
    assert shown["StoppingCondition"] == {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 600 + 86400}
    assert shown["CheckpointConfig"] == {"S3Uri": f"s3://{BUCKET}/byoc/byoc-job-1/checkpoints"}
    (shown,) = call(train, "--image", TRAIN_IMAGE, *HERE, *DATA, "--project", "byoc-x", "--dry-run").json
    assert re.fullmatch(r"byoc-x-train-\d{8}-\d{6}-[0-9a-f]{4}", shown["request"]["TrainingJobName"])


def test_a_folder_and_a_weights_file_are_uploaded_first(tmp_path: Path, call: Call) -> None:
    pictures = trees.fill(tmp_path / "pets", {"train": 2, "valid": 1, "test": 1})
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"weights")
    *uploads, job = call(train, *BASE, "--data", pictures, "--weights", weights).json
    assert [(one["service"], one["operation"]) for one in uploads] == [("s3", "PutObject")] * 14
    bodies = {one["request"]["Key"]: one["request"]["Body"] for one in uploads}
    assert bodies["byoc/data/pets/train/01.red/000.jpg"] == str(pictures / "train/01.red/000.jpg")
    assert len([key for key in bodies if key.startswith("byoc/data/pets/train/")]) == 6
    channels = {one["ChannelName"]: one["DataSource"]["S3DataSource"]["S3Uri"]
                for one in job["request"]["InputDataConfig"]}  # fmt: skip
    assert channels["train"] == f"s3://{BUCKET}/byoc/data/pets/train/"
    key = channels["weights"].removeprefix(f"s3://{BUCKET}/")
    assert re.fullmatch(r"byoc/weights/[0-9a-f]{16}/w.pth", key)
    assert bodies[key] == str(weights)
    assert "weights" not in job["request"].get("HyperParameters", {})


def test_the_sample_is_uploaded_elsewhere_when_asked(call: Call) -> None:
    *uploads, job = call(train, *BASE, "--data", "sample", "--upload-to", "s3://mine/sample", "--lr", "0.5").json
    assert {one["request"]["Bucket"] for one in uploads} == {"mine"}
    assert len(uploads) == 10 * 36 + 1  # pictures, and the manifest
    assert job["request"]["HyperParameters"] == {"epochs": "60", "lr": "0.5"}
    assert job["request"]["InputDataConfig"][0] == channel("train", "s3://mine/sample/train/")


def test_the_script_itself_prints_the_requests_and_nothing_else() -> None:
    done = subprocess.run([Path(train.__file__), *BASE, *DATA], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"TrainingJobName": "byoc-job-1"' in done.stdout


# --- against moto


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return trees.fill(tmp_path / "pets", {"train": 1, "valid": 1, "test": 1})


@pytest.mark.usefixtures("image")
def test_from_a_folder_to_the_artifact(aws: Session, pictures: Path, call: Call, calls: list[str]) -> None:
    ended = call(train, "--image", TRAIN_IMAGE, "--data", pictures, "--name", "byoc-a", "--epochs", "1")
    assert ended.out == f"s3://{BUCKET}/byoc/byoc-a/output/model.tar.gz\n"
    ended.says(
        "created byoc-a",
        f"https://{REGION}.console.aws.amazon.com/sagemaker/home?region={REGION}#/jobs/byoc-a",
        f"1 x ml.g4dn.xlarge: 0.74 USD an hour on demand (us-west-2; {REGION} may differ",
        "it is stopped after 24 h (--max-run), 17.67 USD at most",
        f"next: scripts/deploy.py --job byoc-a --region {REGION}",
    )
    job = aws.client("sagemaker").describe_training_job(TrainingJobName="byoc-a")
    assert job["HyperParameters"] == {"epochs": "1"}
    keys = [one["Key"] for one in aws.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert "byoc/data/pets/train/01.red/000.jpg" in keys
    # What can be missing is looked for before anything is sent, and the job comes last.
    assert calls.index("ecr:BatchGetImage") < calls.index("s3:PutObject")
    created = calls.index("sagemaker:CreateTrainingJob")
    assert set(calls[created + 1 :]) == {"sagemaker:DescribeTrainingJob", "logs:DescribeLogStreams"}


@pytest.mark.usefixtures("image")
def test_without_waiting_the_commands_for_later_are_said(pictures: Path, call: Call) -> None:
    job = ("--image", TRAIN_IMAGE, "--data", pictures, "--name", "byoc-b", "--weights", "none")
    later = (f"scripts/train.py --{flag} byoc-b --region {REGION}" for flag in ("attach", "stop"))
    assert call(train, *job, "--no-wait").says(*later).out == "byoc-b\n"
    ended = call(train, "--attach", "byoc-b", "--json")
    assert (ended.code, ended.json["status"], ended.json["image"]) == (0, "Completed", TRAIN_IMAGE)
    assert ended.json["model"] == f"s3://{BUCKET}/byoc/byoc-b/output/model.tar.gz"


@pytest.mark.usefixtures("aws")
def test_an_image_that_is_not_in_ecr(pictures: Path, call: Call, calls: list[str]) -> None:
    ended = call(train, "--image", TRAIN_IMAGE, "--data", pictures)
    assert (ended.code, calls) == (1, ["ecr:BatchGetImage"])
    assert f"the image {TRAIN_IMAGE} is not in ECR: push it with scripts/push.sh" in ended.last


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize(
    ("problem", "code"), [(KeyboardInterrupt(), 130), (ReadTimeoutError(endpoint_url="https://x"), 1)]
)
def test_it_is_said_when_there_may_be_a_job(
    pictures: Path, call: Call, monkeypatch: Patch, problem: BaseException, code: int
) -> None:
    def send(*_: object) -> None:
        raise problem

    monkeypatch.setattr(creation, "send", send)
    ended = call(train, "--image", TRAIN_IMAGE, "--data", pictures, "--name", "byoc-d")
    ended.ends(code, f"scripts/train.py --stop byoc-d --region {REGION}")


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("flag", ["--attach", "--stop"])
def test_a_job_that_is_not_there(call: Call, flag: str) -> None:
    call(train, flag, "byoc-none").ends(1, f"there is no training job byoc-none in {REGION}")


def test_every_flag_is_honoured_left_out_or_refused(
    pictures: Path, tmp_path: Path, call: Call, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    given = (
        "--spot --max-wait 200000 --max-run 10 --checkpoints s3://bucket/x --volume-size 9 --input-mode FastFile"
        " --network-isolation --service-debugger --upload-to s3://bucket/y --role"
        f" {ROLE} --bucket mine --tags a=b --subnets s-1 --security-groups g-1 --output-kms-key k --volume-kms-key k"
        " --instance-type ml.m5.xlarge --max-usd 5 --no-wait --allow-unknown --keep-alive 60 --register g"
        " --serving-image i"
    ).split()
    ended = call(train, "--local", "--data", pictures, "--output", tmp_path / "out", *given)
    ended.ends(1, "no Docker daemon answers: install Docker, or start it")
    assert f"no effect in local mode: {', '.join(local_training.LEFT_OUT)}" in ended.err.splitlines()
    assert set(local_training.LEFT_OUT) == {word for word in given if word.startswith("--")}
    flags = {option for action in train.parser()._actions for option in action.option_strings if option != "-h"}
    honoured = (
        "--image --data --weights --output --name --environment --json --local --wait --help --version --region"
        " --project --config --from-tuning --instance-count"
    )
    refused = {"--dry-run", "--attach", "--stop"}
    hyperparameters = {f"--{name}" for name in OPTIONS}
    assert flags == {*honoured.split()} | refused | hyperparameters | set(local_training.LEFT_OUT)


# --- what a job may cost at most, also of tune.py


@pytest.mark.parametrize(
    ("script", "flags", "counted", "usd"),
    [
        (train, "--max-run 7200", "1 x ml.g4dn.xlarge, 2 h", "2.21"),
        (train, "--max-run 7200 --instance-count 3 --instance-type ml.g5.xlarge", "3 x ml.g5.xlarge, 2 h", "12.67"),
        (train, "--max-run 3600 --keep-alive 3600", "2 h, 3600 s of them kept for the next job", "2.21"),
        (train, "--max-run 3600 --instance-type ml.g4dn.xlarge,ml.g5.xlarge", "1 x ml.g5.xlarge, 1 h", "2.11"),
        (tune, "--max-run 3600 --trials 4", "4 h in 4 jobs", "4.42"),
        (tune, "--max-run 3600 --trials 4 --train-best", "5 h in 5 jobs", "5.52"),
    ],
)
def test_a_job_that_may_cost_more_is_refused(
    script: ModuleType, flags: str, counted: str, usd: str, call: Call
) -> None:
    arguments = (*BASE, *DATA, *flags.split(), "--max-usd")
    ended = call(script, *arguments, float(usd) - 0.01).ends(2, f"this may cost {usd} USD: ask for less")
    assert (ended.out, counted in ended.err) == ("", True)
    assert call(script, *arguments, float(usd) + 0.01).ends(0).json
