"""What AWS refuses is told in one line that says what to do, and never as a traceback."""

import signal
from collections.abc import Sequence

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore import exceptions
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from container_train.errors import DataError
from local_test.errors import Stopped
from scripts.aws.errors import CloudError, explain
from scripts.console.command import Interrupted, run
from tests.conftest import Capture


def refused(code: str, message: str, operation: str = "CreateTrainingJob") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            refused("AccessDeniedException", "User: x is not authorized to perform: sagemaker:CreateTrainingJob"),
            "a permission is missing; scripts/iam/scripts.json",
        ),
        (refused("403", "Forbidden", "HeadObject"), "a permission is missing"),
        (refused("ExpiredTokenException", "The security token is expired"), "aws sso login"),
        (refused("UnrecognizedClientException", "The security token is invalid"), "aws configure"),
        (
            refused(
                "ResourceLimitExceeded",
                "The account-level service limit 'ml.g4dn.xlarge for training job usage' is 0 Instances",
            ),
            "Service Quotas console",
        ),
        (refused("ThrottlingException", "Rate exceeded"), "wait a minute"),
        (refused("PermanentRedirect", "The bucket must be addressed elsewhere", "PutObject"), "--region"),
        (refused("NoSuchBucket", "The specified bucket does not exist", "PutObject"), "aws s3 mb"),
        (
            refused("ValidationException", "Could not assume role arn:aws:iam::1:role/x. Please ensure"),
            "trust policy must let sagemaker.amazonaws.com",
        ),
        (
            refused("ValidationException", "Requested image 1.dkr.ecr.eu-central-1.amazonaws.com/x:1 not found."),
            "push the image first (scripts/push.sh",
        ),
        (
            refused("ValidationException", "Something\nelse\n"),
            "CreateTrainingJob: Something else (ValidationException)",
        ),
        (refused("ResourceInUse", "Training job names must be unique"), "another --name"),
        (refused("ResourceNotFound", "Could not find"), "check the name and --region"),
        (exceptions.NoCredentialsError(), "no usable AWS credentials"),
        (exceptions.ProfileNotFound(profile="x"), "AWS_PROFILE"),
        (exceptions.EndpointConnectionError(endpoint_url="https://api"), "cannot be reached"),
        (exceptions.ConnectTimeoutError(endpoint_url="https://api"), "cannot be reached"),
        (exceptions.NoRegionError(), "--region"),
        (ResponseParserError("Unable to parse response: no element found"), "what answered is not AWS"),
    ],
)
def test_one_line_that_says_what_to_do(error: Exception, expected: str) -> None:
    said = str(explain(error))
    assert expected in said
    assert "\n" not in said


def test_every_way_to_end_has_its_exit_code_and_its_line(capsys: Capture) -> None:
    def ends_with(error: BaseException) -> tuple[int, str]:
        def main(_: Sequence[str]) -> int:
            raise error

        code = run("x.py", main, [])
        captured = capsys.readouterr()
        assert captured.out == ""
        return code, captured.err

    assert run("x.py", lambda _: 0, []) == 0
    assert ends_with(CloudError("wrong call", 2)) == (2, "x.py: wrong call\n")
    assert ends_with(DataError("no pictures")) == (1, "x.py: no pictures\n")
    assert ends_with(Interrupted("the job goes on")) == (130, "x.py: the job goes on\n")
    assert ends_with(KeyboardInterrupt()) == (130, "x.py: interrupted\n")
    assert ends_with(FileNotFoundError(2, "No such file or directory", "a.jpg")) == (
        1,
        "x.py: a.jpg: No such file or directory\n",
    )
    ended = Interrupted("the job goes on")
    ended.__context__ = Stopped(signal.SIGTERM)
    assert ends_with(ended) == (143, "x.py: the job goes on\n")
    code, line = ends_with(refused("ThrottlingException", "Rate exceeded"))
    assert code == 1
    assert line.startswith("x.py: CreateTrainingJob: Rate exceeded")
    # boto3's transfers wrap what the service said.
    wrapped = S3UploadFailedError("Failed to upload")
    wrapped.__cause__ = refused("NoSuchBucket", "The specified bucket does not exist", "PutObject")
    assert "aws s3 mb" in ends_with(wrapped)[1]
