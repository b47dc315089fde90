"""scripts/report.py on what lies in S3, and on jobs by their names."""

import io
import tarfile
from pathlib import Path

import pytest
from boto3 import Session
from moto.sagemaker.models import sagemaker_backends

from scripts import report
from tests.cloud.conftest import ACCOUNT, BUCKET, REGION, Call
from tests.cloud.resources import create_job, put
from tests.container_train.profiler import made_up

JOB = "byoc-dogs-20261122-172000-a1b2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up.write(tmp_path_factory.mktemp("job"), seconds=20, steps=100, epochs=2, rules=made_up.SICK)


def put_archive(aws: Session, folder: Path, key: str) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        tar.add(folder, ".")
    put(aws, key, file.getvalue())


@pytest.mark.parametrize("address", ["/output/output.tar.gz", "/output", "/output/", "", "by name"])
def test_a_job_s_archive(aws: Session, folder: Path, tmp_path: Path, address: str, call: Call) -> None:
    put_archive(aws, folder, f"byoc/jobs/{JOB}/output/output.tar.gz")
    create_job(aws, JOB, OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/byoc/jobs/"})
    source = JOB if address == "by name" else f"s3://{BUCKET}/byoc/jobs/{JOB}{address}"
    assert call(report, source, "--out", tmp_path / "page.html", "--region", REGION).code == 0
    assert "4 warnings." in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("address", ["", "/profiler-output", "by name"])
def test_what_the_service_s_profiler_wrote(
    aws: Session, folder: Path, tmp_path: Path, address: str, call: Call
) -> None:
    """It may have been told to write elsewhere than the job."""
    system = folder / "profiler" / "system"
    for file in system.rglob("*.json"):
        key = f"profiles/{JOB}/profiler-output/system/{file.relative_to(system)}"
        put(aws, key, file.read_bytes())
    create_job(aws, JOB, OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/byoc/jobs/"})
    # Moto takes ProfilerConfig and forgets it.
    made = sagemaker_backends[ACCOUNT][REGION].training_jobs[JOB]
    made.profiler_config = {"S3OutputPath": f"s3://{BUCKET}/profiles"}
    source = JOB if address == "by name" else f"s3://{BUCKET}/profiles/{JOB}{address}"
    assert call(report, source, "--out", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert "chart-cpu" in page
    assert "chart-memory" in page


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (JOB, "has left no output.tar.gz"),
        ("byoc-no-such-job", f"and there is no training job byoc-no-such-job in {REGION}"),
        (f"s3://{BUCKET}/byoc/nothing", "holds no output.tar.gz and no profiler-output/"),
        (f"s3://{BUCKET}/byoc/nothing/output.tar.gz", "holds no output.tar.gz"),
        ("s3://no-such-bucket-anywhere/x", "NoSuchBucket"),
    ],
)
def test_what_is_not_there(aws: Session, tmp_path: Path, source: str, said: str, call: Call) -> None:
    create_job(aws, JOB, OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/byoc/jobs/"})
    ended = call(report, source, "--out", tmp_path / "page.html")
    assert (ended.code, ended.last.startswith("report.py: "), said in ended.last) == (1, True, True)
    assert not (tmp_path / "page.html").exists()


def test_no_region_is_asked_for_what_lies_here(folder: Path, tmp_path: Path, call: Call) -> None:
    assert call(report, folder, "--out", tmp_path / "page.html").code == 0
    ended = call(report, JOB, "--out", tmp_path / "other.html")
    ended.says(f"{JOB} is no folder or file here; for a training job of that name", code=2)
