"""train.py: the requests it makes, what it refuses, and a whole call against moto's server."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from container_train.training.metrics import DEFINITIONS
from scripts import train
from scripts.aws import creation
from scripts.console import command
from scripts.jobs import watch
from tests import trees
from tests.cloud.conftest import ACCOUNT, REGION, ROLE

IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/byoc-train:0.1.0-abc"
BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"
BASE = ("--image", IMAGE, "--region", REGION, "--role", ROLE, "--name", "byoc-job-1")
DATA = ("--data", "s3://my-data/dogs")
RULES_IMAGE = f"482524230118.dkr.ecr.{REGION}.amazonaws.com/sagemaker-debugger-rules:latest"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.0)


def dry(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert train.main([*arguments, "--dry-run"]) == 0
    shown: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return shown


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a call of the script; never a traceback."""
    code = command.run("train.py", train.main, arguments)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a call that is refused as wrong."""
    code, out, err = call(capsys, *arguments)
    last = err.splitlines()[-1]
    assert (code, out) == (2, ""), err
    assert last.startswith("train.py: ")
    return last


def channel(name: str, uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"DataSource": {"S3DataSource": source}, "ChannelName": name}


PLAIN: dict[str, Any] = {
    "TrainingJobName": "byoc-job-1",
    "AlgorithmSpecification": {
        "TrainingInputMode": "File",
        "TrainingImage": IMAGE,
        "MetricDefinitions": DEFINITIONS,
    },
    "RoleArn": ROLE,
    "InputDataConfig": [
        channel("train", "s3://my-data/dogs/train/"),
        channel("valid", "s3://my-data/dogs/valid/"),
        channel("test", "s3://my-data/dogs/test/"),
    ],
    "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/byoc"},
    "ResourceConfig": {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
    "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
    "HyperParameters": {"epochs": "3", "lr": "0.01"},
    "Environment": {"BYOC_IMAGE": IMAGE},
    "Tags": [{"Key": "byoc-project", "Value": "byoc"}],
    "ProfilerConfig": {"DisableProfiler": True},
}


def test_the_plain_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert dry(capsys, *BASE, *DATA, "--epochs", "3", "--lr=0.01") == [
        {"service": "sagemaker", "operation": "CreateTrainingJob", "request": PLAIN}
    ]


def test_the_request_with_everything(capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--instance-type", "ml.m5.xlarge", "--instance-count", "2", "--volume-size", "50",
        "--spot", "--max-run", "3600", "--max-wait", "7200", "--checkpoints", "s3://old/job/checkpoints/",
        "--input-mode", "FastFile", "--network-isolation", "--weights", "s3://my-weights/resnet50.pth",
        "--environment", "A=1", "--environment", "B=x=y", "--output", "s3://results/here/", "--project", "byoc-dogs",
        "--tags", "team=vision", "--subnets", "subnet-1,subnet-2", "--security-groups", "sg-1",
        "--output-kms-key", "alias/out", "--volume-kms-key", "1234abcd-key",
        "--batch_size", "32", "--augment", "flip", "--freeze-until", "layer3",
    ]  # fmt: skip
    (shown,) = dry(capsys, *BASE, *DATA, *options)
    weights = channel("weights", "s3://my-weights/resnet50.pth") | {"InputMode": "File"}
    assert shown["request"] == PLAIN | {
        "AlgorithmSpecification": PLAIN["AlgorithmSpecification"] | {"TrainingInputMode": "FastFile"},
        "InputDataConfig": [*PLAIN["InputDataConfig"], weights],
        "OutputDataConfig": {"S3OutputPath": "s3://results/here", "KmsKeyId": "alias/out"},
        "ResourceConfig": {
            "InstanceType": "ml.m5.xlarge",
            "InstanceCount": 2,
            "VolumeSizeInGB": 50,
            "VolumeKmsKeyId": "1234abcd-key",
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200},
        "HyperParameters": {"batch-size": "32", "augment": "flip", "freeze-until": "layer3"},
        "Environment": {"BYOC_IMAGE": IMAGE, "A": "1", "B": "x=y"},
        "Tags": [{"Key": "byoc-project", "Value": "byoc-dogs"}, {"Key": "team", "Value": "vision"}],
        "VpcConfig": {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
        "EnableNetworkIsolation": True,
        "EnableManagedSpotTraining": True,
        "CheckpointConfig": {"S3Uri": "s3://old/job/checkpoints"},
    }


def test_the_request_with_the_services_debugger(capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = dry(capsys, *BASE, *DATA, "--epochs", "3", "--lr", "0.01", "--service-debugger")
    output = f"s3://{BUCKET}/byoc"

    def rule(name: str) -> dict[str, Any]:
        parameters = {"rule_to_invoke": name}
        return {"RuleConfigurationName": name, "RuleEvaluatorImage": RULES_IMAGE, "RuleParameters": parameters}

    collections = shown["request"]["DebugHookConfig"].pop("CollectionConfigurations")
    assert sorted(collections, key=lambda one: str(one["CollectionName"])) == [
        {"CollectionName": "gradients", "CollectionParameters": {"save_interval": "10"}},
        {"CollectionName": "losses", "CollectionParameters": {"save_interval": "10"}},
        {
            "CollectionName": "relu_input",
            "CollectionParameters": {"include_regex": ".*relu_input", "save_interval": "10"},
        },
    ]
    assert shown["request"] == PLAIN | {
        "DebugHookConfig": {"S3OutputPath": output},
        "DebugRuleConfigurations": [
            rule("VanishingGradient"),
            rule("Overfit"),
            rule("LossNotDecreasing"),
            rule("PoorWeightInitialization"),
        ],
        "ProfilerRuleConfigurations": [rule("ProfilerReport")],
        "ProfilerConfig": {
            "S3OutputPath": output,
            "DisableProfiler": False,
            "ProfilingIntervalInMilliseconds": 500,
        },
    }


def test_spot_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = dry(capsys, *BASE, *DATA, "--spot", "--max-run", "600")
    assert shown["request"]["StoppingCondition"] == {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 600 + 86400}
    assert shown["request"]["CheckpointConfig"] == {"S3Uri": f"s3://{BUCKET}/byoc/byoc-job-1/checkpoints"}


def test_a_job_without_a_name_gets_one_that_begins_with_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = dry(capsys, *BASE[:-2], *DATA, "--project", "byoc-x")
    assert re.fullmatch(r"byoc-x-train-\d{8}-\d{6}-[0-9a-f]{4}", shown["request"]["TrainingJobName"])


def test_a_folder_and_a_weights_file_are_uploaded_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = trees.fill(tmp_path / "pets", {"train": 2, "valid": 1, "test": 1})
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"weights")
    shown = dry(capsys, *BASE, "--data", str(pictures), "--weights", str(weights))
    operations = [(one["service"], one["operation"]) for one in shown]
    assert operations == [("s3", "PutObject")] * 14 + [("sagemaker", "CreateTrainingJob")]
    bodies = {one["request"]["Key"]: one["request"]["Body"] for one in shown[:-1]}
    assert bodies["byoc/data/pets/train/01.red/000.jpg"] == str(pictures / "train/01.red/000.jpg")
    assert len([key for key in bodies if key.startswith("byoc/data/pets/train/")]) == 6
    channels = {one["ChannelName"]: one["DataSource"]["S3DataSource"]["S3Uri"]
                for one in shown[-1]["request"]["InputDataConfig"]}  # fmt: skip
    assert channels["train"] == f"s3://{BUCKET}/byoc/data/pets/train/"
    key = channels["weights"].removeprefix(f"s3://{BUCKET}/")
    assert re.fullmatch(r"byoc/weights/[0-9a-f]{16}/w.pth", key)
    assert bodies[key] == str(weights)
    assert "weights" not in shown[-1]["request"].get("HyperParameters", {})


def test_the_sample_is_uploaded_elsewhere_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    shown = dry(capsys, *BASE, "--data", "sample", "--upload-to", "s3://mine/sample", "--lr", "0.5")
    assert {one["request"]["Bucket"] for one in shown[:-1]} == {"mine"}
    assert len(shown) == 10 * 36 + 2  # pictures, the manifest, the job
    assert shown[-1]["request"]["HyperParameters"] == {"epochs": "60", "lr": "0.5"}
    assert shown[-1]["request"]["InputDataConfig"][0] == channel("train", "s3://mine/sample/train/")


def test_a_word_for_weights_is_a_hyperparameter(capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = dry(capsys, *BASE, *DATA, "--weights", "none", "--network-isolation")
    assert shown["request"]["HyperParameters"] == {"weights": "none"}
    assert len(shown["request"]["InputDataConfig"]) == 3


def test_disks_that_are_encrypted_anyway_get_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*BASE, *DATA, "--volume-kms-key", "1234abcd-key", "--dry-run"]
    code, out, err = call(capsys, *arguments)
    assert code == 0
    assert "VolumeKmsKeyId" not in out
    assert "ml.g4dn.xlarge has disks of its own, encrypted in hardware" in err


def test_several_instances_get_all_pictures_each(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--instance-count", "2", "--subnets", "subnet-1", "--security-groups", "sg-1", "--dry-run")
    code, out, err = call(capsys, *BASE, *DATA, *options)
    assert code == 0
    assert "--instance-count 2: the instances share each batch, and each is billed" in err
    assert "one of them has to let the instances reach each other" in err
    assert '"InstanceCount": 2' in out
    assert out.count('"S3DataDistributionType": "FullyReplicated"') == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*BASE, *DATA, "--learning-rate", "0.1"), "learning-rate (value '0.1'): did you mean lr?"),
        ((*BASE, *DATA, "--epohcs", "3"), "did you mean --epochs?"),
        ((*BASE, *DATA, "--instance-typ", "ml.m5.large"), "did you mean --instance-type?"),
        ((*BASE, *DATA, "--epochs", "0"), "hyperparameter epochs has value '0': expected an integer from 1"),
        ((*BASE, *DATA, "--weights", "IMAGENET1K_V9", "--dry-run"),
            "hyperparameter weights has value 'IMAGENET1K_V9': expected DEFAULT, none or one of IMAGENET1K_V2"),
        ((*BASE, *DATA, "--freeze-until", "layer9", "--dry-run"),
            "hyperparameter freeze-until has value 'layer9': expected backbone, none or a module of resnet50"),
        ((*BASE, *DATA, "--freeze-until", "layer4.9"), "has no such module before its last layer, but layer4."),
        ((*BASE, *DATA, "--resize-size", "100", "--image-size", "224.0"), "resize-size has value 100: expected at"),
        ((*BASE, *DATA, "--rule", "overfitt:patience=3", "--dry-run"), "unknown rule 'overfitt': known are"),
        (("--local", "--data", "sample", "--weights", "IMAGENET1K_V9"), "hyperparameter weights has value"),
        ((*BASE, *DATA, "extra"), "unexpected argument 'extra'"),
        ((*BASE, *DATA, "--instance-type", "ml.m5.tiny"), "ResourceConfig.InstanceType has value 'ml.m5.tiny'"),
        ((*BASE, *DATA, "--instance-count", "99999999"), "'99999999' must be an integer from 1 to 1000"),
        ((*BASE, *DATA, "--max-run", "99999999999"), "'99999999999' must be an integer from 1 to 2419200"),
        ((*BASE, *DATA, "--volume-size", "99999"), "'99999' must be an integer from 1 to 16384"),
        (
            (*BASE, *DATA, "--spot", "--max-wait", "99999999999"),
            "StoppingCondition.MaxWaitTimeInSeconds has value 99999999999: expected at most 2147483647",
        ),
        ((*BASE, *DATA, "--environment", "A=1", "--environment", "A=2"), "--environment has A twice: '1' and '2'"),
        (("--image", IMAGE, "--data", "tests"), "no region"),
        ((*BASE, *DATA, "--keep-alive", "3601"), "'3601' must be an integer from 0 to 3600"),
        ((*BASE, *DATA, "--keep-alive", "60", "--spot"), "--keep-alive cannot be combined with --spot"),
        ((*BASE, *DATA, "--instance-type", "ml.m5.large,ml.m5.large"), "names a type twice"),
        ((*BASE, *DATA, "--instance-type", "ml.m5.large,ml.p3.2xlarge"), "--instance-type ml.p3.2xlarge has a GPU"),
        ((*BASE, *DATA, "--instance-type", "ml.m5.large,"), "--instance-type has value '': expected one such as"),
        ((*BASE, *DATA, "--instance-type", "ml.m5.large,ml.c5.large", "--no-wait"), "combined with --no-wait"),
        (
            (*BASE, *DATA, "--instance-type", "ml.g5.xlarge,ml.c5.large", "--volume-kms-key", "alias/x"),
            "training takes a key's id or ARN here, not an alias",
        ),
        ((*BASE, *DATA, "--max-wait", "10"), "--max-wait is for spot instances"),
        ((*BASE, *DATA, "--spot", "--max-run", "100", "--max-wait", "99"), "--max-wait 99 is less than --max-run 100"),
        ((*BASE, *DATA, "--network-isolation"), "could not download the ImageNet weights"),
        ((*BASE, *DATA, "--environment", "NOVALUE"), "--environment has value 'NOVALUE': expected KEY=VALUE"),
        ((*BASE, *DATA, "--weights", "gone.pth"), "--weights gone.pth: no such file"),
        ((*BASE, *DATA, "--weights", ""), "--weights is empty"),
        ((*BASE, *DATA, "--name", "under_score"), "--name has value 'under_score'"),
        ((*BASE, *DATA, "--checkpoints", "/tmp/x"), "--checkpoints has value '/tmp/x': expected s3://"),
        ((*BASE, *DATA, "--output", "results"), "--output has value 'results': expected s3://"),
        ((*BASE, *DATA, "--upload-to", "s3://x/y"), "--upload-to is for a folder"),
        ((*BASE[2:], *DATA), "no --image"),
        (BASE, "no --data"),
        ((*BASE, "--dry-run", "--foo"), "--foo has no value"),
        ((*BASE, *DATA, "--instance-type", "ml.m5.xlarge", "--volume-kms-key", "alias/x"), "not an alias"),
        (("--image", IMAGE, *DATA, "--role", ROLE), "no region"),
        (("--image", IMAGE, *DATA, "--region", REGION), "no role"),
        (("--image", IMAGE, *DATA, "--role", ROLE, "--region", "us-east-1"), "takes images of its own region"),
        (("--attach", "a", "--stop", "b"), "cannot be combined"),
        (("--attach", "a", "--epochs", "3"), "--attach is for a job that exists"),
        (("--stop", "a", "--local"), "--stop is for a job that exists, and --local for a new one"),
        (("--local", *DATA), "--data s3://my-data/dogs: --local neither reads nor writes in S3"),
        (("--local", "--data", "sample", "--output", "s3://bucket/c"), "--output s3://bucket/c: --local"),
        (("--local", "--data", "sample", "--weights", "s3://bucket/c"), "--weights s3://bucket/c: --local"),
        (("--local", "--data", "sample", "--dry-run"), "--local sends nothing"),
    ],
)  # fmt: skip
def test_refused_before_anything_is_sent(
    capsys: pytest.CaptureFixture[str], calls: list[str], arguments: tuple[str, ...], words: str
) -> None:
    assert words in refusal(capsys, *arguments)
    assert calls == []


def test_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = call(capsys, *BASE, "--data", str(tmp_path / "gone"))
    assert code == 2
    assert f"{tmp_path / 'gone'} is not there" in err


def test_a_dry_run_asks_nobody(capsys: pytest.CaptureFixture[str], calls: list[str]) -> None:
    dry(capsys, *BASE, *DATA)
    assert calls == []


def test_the_script_itself_prints_the_requests_and_nothing_else() -> None:
    script = Path(train.__file__)
    done = subprocess.run([script, *BASE, *DATA, "--dry-run"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[0]["request"]["TrainingJobName"] == "byoc-job-1"


# --- against moto


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return trees.fill(tmp_path / "pets", {"train": 1, "valid": 1, "test": 1})


@pytest.mark.usefixtures("image")
def test_from_a_folder_to_the_artifact(
    aws: boto3.Session, pictures: Path, capsys: pytest.CaptureFixture[str], calls: list[str]
) -> None:
    code, out, err = call(capsys, "--image", IMAGE, "--data", str(pictures), "--name", "byoc-a", "--epochs", "1")
    assert code == 0, err
    artifact = f"s3://{BUCKET}/byoc/byoc-a/output/model.tar.gz"
    assert out == f"{artifact}\n"
    assert "created byoc-a" in err
    assert f"https://{REGION}.console.aws.amazon.com/sagemaker/home?region={REGION}#/jobs/byoc-a" in err
    assert f"1 x ml.g4dn.xlarge: 0.74 USD an hour on demand (us-west-2; {REGION} may differ" in err
    assert "it is stopped after 24 h (--max-run), at 17.67 USD at most" in err
    assert f"next: scripts/deploy.py --job byoc-a --region {REGION}" in err
    job = aws.client("sagemaker").describe_training_job(TrainingJobName="byoc-a")
    assert job["HyperParameters"] == {"epochs": "1"}
    keys = [one["Key"] for one in aws.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert "byoc/data/pets/train/01.red/000.jpg" in keys
    # What can be missing is looked for before anything is sent, and the job comes last.
    assert calls.index("ecr:BatchGetImage") < calls.index("s3:PutObject")
    created = calls.index("sagemaker:CreateTrainingJob")
    assert set(calls[created + 1 :]) == {"sagemaker:DescribeTrainingJob", "logs:DescribeLogStreams"}


@pytest.mark.usefixtures("image")
def test_without_waiting_the_commands_for_later_are_said(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--image", IMAGE, "--data", str(pictures), "--name", "byoc-b", "--no-wait", "--weights", "none")
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (0, "byoc-b\n")
    assert f"scripts/train.py --attach byoc-b --region {REGION}" in err
    assert f"scripts/train.py --stop byoc-b --region {REGION}" in err
    code, out, _ = call(capsys, "--attach", "byoc-b", "--json")
    assert code == 0
    done = json.loads(out)
    assert {key: done[key] for key in ("name", "status", "model", "image", "instance_type", "failure")} == {
        "name": "byoc-b",
        "status": "Completed",
        "model": f"s3://{BUCKET}/byoc/byoc-b/output/model.tar.gz",
        "image": IMAGE,
        "instance_type": "ml.g4dn.xlarge",
        "failure": None,
    }


@pytest.mark.usefixtures("aws")
def test_an_image_that_is_not_in_ecr(pictures: Path, capsys: pytest.CaptureFixture[str], calls: list[str]) -> None:
    code, _, err = call(capsys, "--image", IMAGE, "--data", str(pictures))
    assert code == 1
    assert f"the image {IMAGE} is not in ECR: push it with scripts/push.sh" in err.splitlines()[-1]
    assert calls == ["ecr:BatchGetImage"]


@pytest.mark.usefixtures("image")
def test_a_prefix_without_pictures(capsys: pytest.CaptureFixture[str], calls: list[str]) -> None:
    code, _, err = call(capsys, "--image", IMAGE, "--data", f"s3://{BUCKET}/byoc/data/none")
    assert code == 1
    assert "has no images below train/ and valid/ and test/" in err.splitlines()[-1]
    assert "sagemaker:CreateTrainingJob" not in calls


@pytest.mark.usefixtures("image")
def test_a_name_that_is_taken(pictures: Path, capsys: pytest.CaptureFixture[str], fail: Callable[..., None]) -> None:
    fail("CreateTrainingJob", "ResourceInUse", "Job name must be unique", 400)
    code, _, err = call(capsys, "--image", IMAGE, "--data", str(pictures), "--name", "byoc-taken")
    assert code == 1
    assert "give another --name" in err.splitlines()[-1]


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize(
    ("problem", "code"), [(KeyboardInterrupt(), 130), (ReadTimeoutError(endpoint_url="https://x"), 1)]
)
def test_it_is_said_when_there_may_be_a_job(
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    problem: BaseException,
    code: int,
) -> None:
    def send(*_: object) -> None:
        raise problem

    monkeypatch.setattr(creation, "send", send)
    ended, _, err = call(capsys, "--image", IMAGE, "--data", str(pictures), "--name", "byoc-d")
    assert ended == code
    assert f"scripts/train.py --stop byoc-d --region {REGION}" in err.splitlines()[-1]


def test_without_credentials(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, *BASE, *DATA)
    assert code == 1
    assert "no usable AWS credentials" in err.splitlines()[-1]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let an operation be answered with an error."""

    def arrange(operation: str, code: str, message: str, status: int = 400) -> None:
        original = botocore.client.BaseClient._make_api_call

        def answer(client: Any, name: str, request: Any) -> Any:
            if name == operation:
                error = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
                raise ClientError(error, name)
            return original(client, name, request)

        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", answer)

    return arrange


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("flag", ["--attach", "--stop"])
def test_a_job_that_is_not_there(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    code, _, err = call(capsys, flag, "byoc-none")
    assert code == 1
    assert f"there is no training job byoc-none in {REGION}" in err.splitlines()[-1]


@pytest.mark.usefixtures("image")
def test_a_job_that_has_ended_is_not_stopped_again(
    pictures: Path, capsys: pytest.CaptureFixture[str], calls: list[str]
) -> None:
    call(capsys, "--image", IMAGE, "--data", str(pictures), "--name", "byoc-c", "--no-wait")
    code, out, err = call(capsys, "--stop", "byoc-c", "--json")
    assert code == 0
    assert json.loads(out) == {"name": "byoc-c", "status": "Completed"}
    assert "has ended already: Completed" in err
    assert "sagemaker:StopTrainingJob" not in calls
