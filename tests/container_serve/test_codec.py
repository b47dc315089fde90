import base64
import csv
import io
import json
import random
from typing import Any

import pytest

from container_serve.codec import form
from container_serve.codec.answers import Row, render
from container_serve.codec.media import ANSWER_TYPES, IMAGE_TYPES, negotiate
from container_serve.codec.requests import DEFAULT_TOP_K, MAX_INSTANCES, Request, parse
from container_serve.errors import RequestError
from container_serve.predictor import Prediction

JPEG = b"\xff\xd8\xff\xe0 and so on"
B64 = base64.b64encode(JPEG).decode()


def document(**keys: Any) -> bytes:
    return json.dumps({"instances": [{"b64": B64}], **keys}).encode()


def refusal(
    body: bytes, content_type: str | None = "application/json", attributes: str | None = None, status: int = 400
) -> str:
    with pytest.raises(RequestError) as caught:
        parse(body, content_type, attributes)
    error = caught.value
    assert error.status == status
    message = str(error)
    assert "\n" not in message
    assert len(message) < 400
    assert json.loads(error.body())["message"] == message
    return message


# --- pictures ---


@pytest.mark.parametrize(
    "content_type", [*IMAGE_TYPES, "image/jpg", "image/pjpeg", "image/x-ms-bmp", "binary/octet-stream"]
)
def test_pictures_are_passed_on(content_type: str) -> None:
    expected = Request((b"any bytes",), DEFAULT_TOP_K, False)
    assert parse(b"any bytes", content_type) == expected
    assert parse(b"any bytes", f" {content_type.upper()} ; charset=binary") == expected


BODIES: tuple[bytes, ...] = (JPEG, b"\x89PNG\r\n\x1a\n", b"RIFF\n\0\0\0WEBPVP8 ", b"BM", b"GIF89a", b"II*\0", b"MM\0*")
BODIES += (b"\0\0\0\x1cftypavif", b"\0\0\0\x18ftypheic", b"\0\0\0\x18ftypmif1")


@pytest.mark.parametrize(
    ("body", "content_type"), [*((body, None) for body in BODIES), (JPEG, ""), (JPEG, " "), (JPEG, ";q=1")]
)
def test_without_a_type_the_first_bytes_decide(body: bytes, content_type: str | None) -> None:
    assert parse(body, content_type).images == (body,)


@pytest.mark.parametrize("body", [b"hello", b'{"instances": []}', b"RIFF\0\0\0\0WAVE", b"II*", b"\0\0\0\x18ftypmp42"])
def test_without_a_type_other_bytes_are_refused(body: bytes) -> None:
    message = refusal(body, "", status=415)
    assert message.startswith("there is no content type: send one of image/jpeg, ")


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "text/csv", "image/heic", "image/svg+xml", "application/x-npy", "application/pickle", "x"],
)
def test_other_types_are_refused_with_the_list(content_type: str) -> None:
    message = refusal(JPEG, content_type, status=415)
    assert message.startswith(f"the content type '{content_type}' is not taken")
    assert all(taken in message for taken in (*IMAGE_TYPES, "application/json"))


@pytest.mark.parametrize("content_type", ["image/png", "application/json", "", None])
def test_an_empty_body_is_refused(content_type: str | None) -> None:
    assert refusal(b"", content_type).startswith("the body is empty")


# --- forms ---

PART = b'Content-Disposition: form-data; name="f"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data; boundary=b", 'Multipart/Form-Data; BOUNDARY="b"', "multipart/form-data;boundary=b",
        "multipart/form-data; charset=utf-8; boundary=b; x=y",
    ],
)  # fmt: skip
def test_the_file_in_a_form(kind: str) -> None:
    for body in (JPEG, b"", b"\r\n\r\n--", b"--x--\r\n", bytes(range(256)) * 99):
        for around in (
            b"--b\r\n%b%b\r\n--b--\r\n",
            b"a preamble\r\n--b\r\n%b%b\r\n--b--",
            b"--b \r\n%b%b\r\n--b--\r\nx",
        ):
            assert form.file(around % (PART, body), kind) == (body, "image/jpeg")


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (PART.replace(b"\r\nContent-Type: image/jpeg", b""), "application/octet-stream"),
        (PART.replace(b"filename=", b"filename*=utf-8''"), "image/jpeg"),
        (PART.replace(b"Content-", b"content-"), "image/jpeg"),
        (b"Content-Type:text/csv; a=b\r\nX: y\r\nContent-Disposition: form-data;filename=x\r\n\r\n", "text/csv; a=b"),
    ],
)
def test_the_type_of_a_file_in_a_form(head: bytes, kind: str) -> None:
    assert form.file(b"--b\r\n" + head + JPEG + b"\r\n--b--", "multipart/form-data; boundary=b") == (JPEG, kind)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"--b--\r\n", b"--b\r\n", PART + JPEG, b"--c\r\n" + PART + JPEG + b"\r\n--c--",
        b"--b\r\n" + PART + JPEG, b"--b\r\n" + PART + JPEG + b"\r\n--b", b"--b\r\n" + PART + JPEG + b"--b--",
        (b"--b\r\n" + PART + JPEG + b"\r\n") * 2 + b"--b--",
        b"--b\r\n" + PART.replace(b"; filename=", b"; file=") + JPEG + b"\r\n--b--",
        b"--b\r\n" + PART[:-4] + b"\r\n--b--", b"--b--\r\n\r\n\r\n--b--",
        b"--b\r\nContent-Disposition: form-data\r\n\r\n; filename=\r\n--b--",
    ],
)  # fmt: skip
def test_any_other_form_is_refused(body: bytes) -> None:
    for kind in ("multipart/form-data; boundary=b", "multipart/form-data", "multipart/form-data; boundary="):
        with pytest.raises(RequestError, match="expected a whole form of one file with its name") as caught:
            form.file(body, kind)
        assert (caught.value.status, caught.value.kind) == (400, "InvalidForm")


# --- JSON ---


def test_one_instance() -> None:
    assert parse(document(), "application/json; charset=utf-8") == Request((JPEG,), DEFAULT_TOP_K, True)


def test_several_instances() -> None:
    body = document(instances=[{"b64": B64}, {"b64": f"data:image/jpeg;base64,{B64}"}, {"b64": "AAE="}], top_k=3)
    assert parse(body, "Application/JSON") == Request((JPEG, JPEG, b"\0\1"), 3, True)


def test_base64_with_broken_lines_as_mail_has_it() -> None:
    body = document(instances=[{"b64": base64.encodebytes(JPEG * 20).decode()}])
    assert parse(body, "application/json").images == (JPEG * 20,)


def test_the_greatest_number_of_instances() -> None:
    body = document(instances=[{"b64": "data:;BASE64," + B64}] * MAX_INSTANCES)
    assert parse(body, "application/json").images == (JPEG,) * MAX_INSTANCES
    message = refusal(document(instances=[{"b64": B64}] * (MAX_INSTANCES + 1)))
    assert f"expected a list of 1 to {MAX_INSTANCES} instances, got {MAX_INSTANCES + 1} of them" in message


def test_a_byte_order_mark_is_skipped() -> None:
    assert parse(b"\xef\xbb\xbf" + document(), "application/json").images == (JPEG,)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"instances": []}, "instances: expected a list of 1 to 64 instances, got 0 of them"),
        ({"instances": {"b64": B64}}, "instances: expected a list of 1 to 64 instances, got an object"),
        ({"instances": None}, "instances: expected a list of 1 to 64 instances, got null"),
        ({"instances": [B64]}, 'instances[0]: expected {"b64": "..."}, got \'/9j'),
        ({"instances": [{"b64": B64, "url": "x"}]}, "instances[0]: has the unknown key 'url'"),
        ({"top_K": 5}, "has the unknown key 'top_K', expected instances and top_k"),
        ({"\ud800": 5}, "has the unknown key '\\ud800'"),
        ({"k" * 10_000: 5}, "has the unknown key 'kkkk"),
    ],
)
def test_wrong_json_is_refused_by_name(keys: dict[str, Any], message: str) -> None:
    assert message in refusal(document(**keys))


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        ({}, "b64: expected an image in base64, got null"),
        ({"b64": 5}, "b64: expected an image in base64, got 5"),
        ({"b64": ""}, "b64: expected an image in base64, got ''"),
        ({"b64": B64 + "="}, "b64: is not base64"),
        ({"b64": B64[:-1]}, "b64: is not base64"),
        ({"b64": "/9j\n/4AA"}, "b64: is not base64"),
        ({"b64": "_9j-4AA="}, "b64: is not base64"),
        ({"b64": "AA==AA=="}, "b64: is not base64"),
        ({"b64": "bäh="}, "b64: is not base64"),
        ({"b64": "\ud800"}, "b64: is not base64"),
        ({"b64": "data:image/png;base64,"}, "b64: the image is empty"),
        ({"b64": "data:image/png," + B64}, "b64: expected a data: URL in base64, got 'data:image/png'"),
        ({"b64": "data:image/png;base64"}, "b64: expected a data: URL in base64"),
    ],
)
def test_a_picture_that_cannot_be_read_has_its_error_in_its_place(instance: dict[str, Any], message: str) -> None:
    request = parse(document(instances=[{"b64": B64}, instance, {"b64": B64}]), "application/json")
    first, error, last = request.images
    assert (first, last) == (JPEG, JPEG)
    assert isinstance(error, RequestError)
    assert (error.status, error.kind) == (400, "InvalidJSON")
    assert str(error).startswith(message)
    assert request.place(1) == "instances[1]"
    lines = parse(b"\n".join(json.dumps(each).encode() for each in ({"b64": B64}, instance)), LINES)
    assert str(lines.images[1]).startswith(message)
    assert lines.place(1) == "line 2"


# --- lines ---

LINES = "application/jsonlines"


@pytest.mark.parametrize("content_type", [LINES, "application/x-ndjson", "Application/JSONL; charset=utf-8"])
def test_each_line_is_a_picture(content_type: str) -> None:
    line = json.dumps({"b64": B64}).encode()
    single = document()
    for body in (line + b"\n" + single, line + b"\r\n" + single + b"\n", b"\xef\xbb\xbf" + line + b"\n" + single):
        assert parse(body, content_type, "top_k=2") == Request((JPEG, JPEG), 2, True, LINES)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "is not JSON: Expecting value"),
        (b"{", "is not JSON"),
        (b"\xff", "is not UTF-8"),
        (b"[1]", 'expected {"b64": "..."}, got a list'),
        (b'{"b64": "AAE=", "id": 3}', "has the unknown key 'id'"),
        (b'{"instances": []}', "with one instance and no other key"),
        (b'{"instances": [{"b64": "AAE="}, {"b64": "AAE="}]}', "with one instance and no other key"),
        (b'{"instances": [{"b64": "AAE="}], "top_k": 1}', "with one instance and no other key"),
        (b"[" * 100, "is too deep or has too many values"),
        (b'{"b64": NaN}', "holds NaN"),
        (b'{"b64": "AAE=", "b64": "AAE="}', "has the key 'b64' twice"),
    ],
)
def test_a_wrong_line_takes_its_place_too(line: bytes, message: str) -> None:
    good = json.dumps({"b64": B64}).encode()
    first, error, last = parse(b"\n".join((good, line, good)), LINES).images
    assert (first, last) == (JPEG, JPEG)
    assert isinstance(error, RequestError)
    assert message in str(error)


def test_more_lines_or_classes_than_one_answer_may_have_are_refused() -> None:
    assert len(parse(b"\n" * 10_000, LINES).images) == 10_000
    for body in (b"\n" * 10_001, b"a\n" * 10_000 + b"a"):
        assert "has 10001 lines: send at most 10000 at a time" in refusal(body, LINES)
    with pytest.raises(RequestError, match="has 65 lines: send at most 64 at a time"):
        parse(b"\n" * 65, LINES, max_lines=MAX_INSTANCES)
    assert parse(b"\n" * MAX_INSTANCES, LINES, "top_k=1000").top_k == 1000
    assert "top_k: expected at most 333 for so many lines" in refusal(b"\n" * 192, LINES, "top_k=334")


@pytest.mark.parametrize("value", [0, -1, 1001, 3.0, "3", True, None, [3], {"k": 3}, 10**400])
def test_a_wrong_top_k_is_refused_with_value_and_expectation(value: object) -> None:
    assert refusal(document(top_k=value)).startswith("top_k: expected a whole number from 1 to 1000, got ")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "is not JSON: "),
        (b"\xff\xfe{\0", "is not UTF-8"),
        (b'{"instances": "\xe4"}', "is not UTF-8"),
        (document() + b"x", "is not JSON: Extra data at line 1 column"),
        (document() + b"\n" + document(), "at line 2 column 1 (records by lines are application/jsonlines)"),
        (b"[]", 'has to be an object {"instances": [{"b64": "..."}]}, got an empty list'),
        (b"null", "got null"),
        (b'"text"', "got 'text'"),
        (b"{}", 'lacks the key "instances"'),
        (b'{"instances": [{"b64": "AAE="}], "top_k": 1, "top_k": 2}', "has the key 'top_k' twice"),
        (b'{"instances": [{"b64": "AAE=", "b64": "AAE="}]}', "has the key 'b64' twice"),
        (b'{"top_k": NaN}', "holds NaN, which is not JSON"),
        (b'{"top_k": -Infinity}', "holds -Infinity, which is not JSON"),
        (b'{"top_k": ' + b"1" * 5000 + b"}", "holds a number that cannot be read"),
        (b"[" * 900, "is not JSON"),
        (b"[" * 5_000_000, "is too deep or has too many values"),
        (b'{"instances": [' + b"{}," * 500_000 + b"{}]}", "is too deep or has too many values"),
        (b"[" + b"0," * 2_000_000 + b"0]", "is too deep or has too many values"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else None,
)
def test_what_is_no_good_json_is_refused(body: bytes, message: str) -> None:
    refused = refusal(body)
    assert refused.startswith("the JSON ")
    assert message in refused


def test_mutated_json_is_parsed_or_refused() -> None:
    dice = random.Random(3)
    original = document(instances=[{"b64": B64}, {"b64": B64}], top_k=3)
    parsed, refused = 0, set()
    for _ in range(2000):
        body = bytearray(original)
        for _ in range(dice.choice([1, 2, 5])):
            body[dice.randrange(len(body))] = dice.choice(b'{}[]",:\\0u\xff' + dice.randbytes(3))
        try:
            request = parse(bytes(body), "application/json")
        except RequestError as error:
            refused.add(error.status)
        else:
            assert all(request.images)
            parsed += 1
    assert parsed > 0
    assert refused == {400}


# --- top_k as an attribute ---


@pytest.mark.parametrize(
    ("attributes", "top_k"),
    [
        (None, DEFAULT_TOP_K),
        ("", DEFAULT_TOP_K),
        ("top_k=7", 7),
        (" TOP_K = 7 ", 7),
        ("trace=1,top_k=7", 7),
        ("trace=1; top_k=7 ;x", 7),
        ("trace=top_k", DEFAULT_TOP_K),
        ("c000b4f9-df62-4c85-a0bf-7c525f9104a4", DEFAULT_TOP_K),
        ("top_k=1000", 1000),
    ],
)
def test_top_k_in_custom_attributes(attributes: str | None, top_k: int) -> None:
    assert parse(JPEG, "image/jpeg", attributes).top_k == top_k
    assert parse(document(), "application/json", attributes).top_k == top_k


@pytest.mark.parametrize("value", ["", "0", "1001", "-1", "3.0", "five", "٣", "9" * 5000])
def test_a_wrong_top_k_in_custom_attributes_is_refused(value: str) -> None:
    message = refusal(JPEG, "image/jpeg", f"top_k={value}")
    assert message.startswith("top_k: expected a whole number from 1 to 1000, got ")


def test_top_k_in_the_body_wins() -> None:
    assert parse(document(top_k=2), "application/json", "top_k=9").top_k == 2


# --- answers ---


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        (None, "application/json"),
        ("", "application/json"),
        (" , ", "application/json"),
        ("*/*", "application/json"),
        ("*", "application/json"),
        ("application/*", "application/json"),
        ("text/*", "text/csv"),
        ("Text/CSV", "text/csv"),
        ("application/json; charset=utf-8", "application/json"),
        ("application/json;verbose", "application/json"),
        ("application/jsonlines", "application/jsonlines"),
        ("application/json, text/csv;q=0.5", "application/json"),
        ("application/json;q=0.4, text/csv;q=0.5", "text/csv"),
        ("text/html, text/csv; q=0.5", "text/csv"),
        ("text/html, */*;q=0.1", "application/json"),
        ("*/*, text/csv", "text/csv"),
        ("text/csv, application/json", "text/csv"),
        ("*/*, application/json;q=0", "text/csv"),
        ("application/*;q=0.2, application/json;q=0.1", "application/jsonlines"),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "application/json"),
        ("text/csv;q=high", "text/csv"),
    ],
)
def test_the_answers_type(accept: str | None, answer: str) -> None:
    assert negotiate(accept) == answer


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        (None, LINES), ("*/*", LINES), ("*/*;q=0.8", LINES), ("application/*", LINES), ("text/html, */*;q=0.1", LINES),
        ("application/json", "application/json"), ("text/csv, */*", "text/csv"), ("text/*", "text/csv"),
        ("application/json, application/jsonlines", "application/json"),
    ],
)  # fmt: skip
def test_the_preferred_type_is_given_where_any_is_as_good(accept: str | None, answer: str) -> None:
    assert negotiate(accept, LINES) == answer


@pytest.mark.parametrize(
    "accept", ["text/html", "image/*", "application/json;q=0", "*/*;q=0", "application", "x" * 10_000]
)
def test_no_type_that_fits_is_406_with_the_list(accept: str) -> None:
    with pytest.raises(RequestError) as caught:
        negotiate(accept)
    assert (caught.value.status, caught.value.kind) == (406, "NotAcceptable")
    assert ", ".join(ANSWER_TYPES) in str(caught.value)
    assert len(str(caught.value)) < 300


ROWS = [
    [Prediction(1, "Löwchen", 0.123456789), Prediction(0, 'Dandie "D" Dinmont, senior', 1.23456789e-09)],
    [Prediction(0, "a\nb", 1.0)],
]
MODEL = {"architecture": "resnet50", "precision": "fp32"}


def test_json_of_one_picture() -> None:
    body = render(ROWS[:1], "application/json", model=MODEL, batched=False)
    assert json.loads(body) == {
        "predictions": [
            {"index": 1, "label": "Löwchen", "probability": 0.123457},
            {"index": 0, "label": 'Dandie "D" Dinmont, senior', "probability": 1.23457e-09},
        ],
        "model": MODEL,
    }
    assert "Löwchen".encode() in body


def test_json_of_several_pictures() -> None:
    body = render(ROWS, "application/json", model=MODEL, batched=True)
    answer = json.loads(body)
    assert [[p["index"] for p in row] for row in answer["predictions"]] == [[1, 0], [0]]
    assert answer["model"] == MODEL


@pytest.mark.parametrize("batched", [True, False])
def test_csv_has_a_row_per_prediction(batched: bool) -> None:
    body = render(ROWS, "text/csv", model=MODEL, batched=batched)
    assert body.startswith("0,1,Löwchen,0.123457\n".encode())
    assert list(csv.reader(io.StringIO(body.decode(), newline=""))) == [
        ["0", "1", "Löwchen", "0.123457"],
        ["0", "0", 'Dandie "D" Dinmont, senior', "1.23457e-09"],
        ["1", "0", "a\nb", "1.0"],
    ]


def test_json_lines_has_a_line_per_picture() -> None:
    body = render(ROWS, "application/jsonlines", model=MODEL, batched=True)
    answers = [json.loads(line) for line in body.decode().split("\n")]
    assert [[p["label"] for p in answer["predictions"]] for answer in answers] == [
        ["Löwchen", 'Dandie "D" Dinmont, senior'],
        ["a\nb"],
    ]
    assert all(answer["model"] == MODEL for answer in answers)


ERROR = RequestError(400, "InvalidImage", 'broken, "truncated"')


def test_an_error_stands_in_the_place_of_its_picture() -> None:
    document = {"error": {"code": 400, "type": "InvalidImage", "message": 'broken, "truncated"'}}
    rows: list[Row] = [ROWS[1], ERROR]
    answer = json.loads(render(rows, "application/json", model=MODEL, batched=True))
    assert [answer["predictions"][0][0]["label"], answer["predictions"][1]] == ["a\nb", document]
    lines = render(rows, "application/jsonlines", model=MODEL, batched=True).split(b"\n")
    assert json.loads(lines[1]) == {**document, "model": MODEL}
    table = render(rows[::-1], "text/csv", model=MODEL, batched=True).decode()
    assert list(csv.reader(io.StringIO(table, newline=""))) == [
        ["0", "", 'InvalidImage: broken, "truncated"', ""],
        ["1", "0", "a\nb", "1.0"],
    ]


@pytest.mark.parametrize("kind", ["text/csv", "application/jsonlines"])
def test_answers_that_are_assembled_by_lines_have_no_empty_ones(kind: str) -> None:
    good: list[Row] = [*ROWS[:1]]
    one, other = (render(rows, kind, model=MODEL, batched=True) for rows in (good, [ERROR]))
    assert b"\n\n" not in one + b"\n" + other + b"\n"
    assert not one.endswith((b"\n", b"\r"))
