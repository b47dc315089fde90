"""The end of a script: one line for what AWS refuses, which says what to do; signals."""

import signal
from collections.abc import Sequence
from typing import Any

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore import exceptions
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from container_train.errors import DataError
from local_test.errors import Stopped
from scripts.aws.errors import CloudError, explain
from scripts.console.command import Interrupted, run
from scripts.jobs import local_mode
from tests.conftest import Capture


def refused(code: str, message: str, operation: str = "CreateTrainingJob") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


REFUSED = [
    ("AccessDeniedException", "User: x is not authorized to perform: y", "a permission is missing; scripts/iam"),
    ("403", "Forbidden", "a permission is missing"),
    ("ExpiredTokenException", "The security token is expired", "aws sso login"),
    ("UnrecognizedClientException", "The security token is invalid", "aws configure"),
    ("ResourceLimitExceeded", "The limit 'ml.g4dn.xlarge for training job usage' is 0", "Service Quotas console"),
    ("ThrottlingException", "Rate exceeded", "wait a minute"),
    ("PermanentRedirect", "The bucket must be addressed elsewhere", "--region"),
    ("NoSuchBucket", "The specified bucket does not exist", "aws s3 mb"),
    ("ValidationException", "Could not assume role arn:aws:iam::1:role/x.", "trust policy must let sagemaker"),
    ("ValidationException", "Requested image 1.dkr.ecr.eu-central-1.amazonaws.com/x:1 not found.", "push the image"),
    ("ValidationException", "Something\nelse\n", "CreateTrainingJob: Something else (ValidationException)"),
    ("ResourceInUse", "Training job names must be unique", "another --name"),
    ("ResourceNotFound", "Could not find", "check the name and --region"),
]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((refused(code, message), expected) for code, message, expected in REFUSED),
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
    missing = FileNotFoundError(2, "No such file or directory", "a.jpg")
    assert ends_with(missing) == (1, "x.py: a.jpg: No such file or directory\n")
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


@pytest.mark.parametrize("interrupt", [signal.SIG_IGN, signal.SIG_DFL, signal.default_int_handler])
def test_sigterm_ends_a_script_and_stops_a_training_also_where_ctrl_c_is_ignored(interrupt: Any) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ignored = interrupt is signal.SIG_IGN
    ended: list[str] = []

    def main(_: object) -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            ended.append("cleaned up")
        return 0

    try:
        signal.signal(signal.SIGINT, interrupt)
        assert (run("x.py", main, []), ended) == (143, ["cleaned up"])
        with local_mode._Stop(lambda: ended.append("stopped")) as stop:
            signal.raise_signal(signal.SIGTERM)
            assert stop.asked
            if ignored:
                signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM if ignored else signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)  # the third: it ends already
        assert ended == ["cleaned up", "stopped"]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
