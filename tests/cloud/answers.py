"""Canned answers of AWS for states that flaky_aws.py does not reach: through botocore's own hooks, as its Stubber."""

from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

from scripts.aws.account import Aws
from tests.conftest import Patch

PASS = None  # in a row of answers: let this one go to moto


def error(code: str, message: str, **more: Any) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}, **more}, "Operation")


def ctrl_c(*_: object) -> None:
    raise KeyboardInterrupt


def give(monkeypatch: Patch, operation: str, *answers: dict[str, Any] | BaseException | None) -> None:
    """The scripts' calls of `operation` get these, one after the other; the last one stays. What is given later counts.

    A ClientError is answered by the service, any other exception raised on the way to it.
    """
    original = Aws.client
    given: dict[str, list[Any]] | None = getattr(original, "given", None)
    if given is not None:
        given[operation] = list(answers)
        return
    rows = {operation: list(answers)}

    def handler(model: Any, **_: Any) -> tuple[AWSResponse, dict[str, Any]] | None:
        row = rows.get(model.name, [PASS])
        answer = row.pop(0) if len(row) > 1 else row[0]
        if isinstance(answer, ClientError):
            return AWSResponse(None, 400, {}, None), answer.response
        if isinstance(answer, BaseException):
            raise answer
        return None if answer is PASS else (AWSResponse(None, 200, {}, None), answer)

    def client(aws: Aws, service: str) -> Any:
        made = original(aws, service)
        made.meta.events.register("before-call", handler, unique_id="answers")
        return made

    client.given = rows  # type: ignore[attr-defined]
    monkeypatch.setattr(Aws, "client", client)
