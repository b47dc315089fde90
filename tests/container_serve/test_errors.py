import json
import pickle

from container_serve.errors import ArtifactError, RequestError, ServeError


def test_the_body_has_code_type_and_message() -> None:
    body = RequestError(415, "UnsupportedMediaType", "no").body()
    assert json.loads(body) == {"code": 415, "type": "UnsupportedMediaType", "message": "no"}


def test_a_message_that_quotes_a_lone_surrogate_can_be_sent() -> None:
    assert json.loads(RequestError(400, "InvalidJSON", "key '\ud800'").body())["message"] == "key '\ud800'"


def test_a_request_error_is_its_message_and_survives_pickling() -> None:
    error = RequestError(400, "InvalidImage", "the image is empty")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert isinstance(again, RequestError)
    assert (again.status, again.kind, str(again)) == (400, "InvalidImage", "the image is empty")


def test_both_errors_can_be_caught_as_one() -> None:
    assert issubclass(ArtifactError, ServeError)
    assert issubclass(RequestError, ServeError)
