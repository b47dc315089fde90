"""Requests and answers that an endpoint has captured, in a database on disk: memory does not grow with their number.

The service writes ENDPOINT/VARIANT/YEAR/MONTH/DAY/HOUR/NAME.jsonl below the prefix, a line for each request
(https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture.html).
"""

import base64
import binascii
import csv
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from container_serve.codec.media import CSV, JSON_LINES
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.console.command import progress
from scripts.endpoints.deployment import SHADOW
from scripts.s3 import bucket, objects

LONGEST = 64 * 2**20  # bytes of a line: a request of 6 MiB in base64 needs 8 MiB
PLACE = re.compile(r"(?:.*/)?(?P<endpoint>[^/]+)/(?P<variant>[^/]+)/\d{4}/\d\d/\d\d/\d\d/[^/]+\.jsonl\Z")
_TABLES = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE requests (id INTEGER PRIMARY KEY, variant, hour, kind, bytes, inference);
    CREATE TABLE answers (request, position, label, probability);
"""
# Requests whose inference id no other one of the variant has, of both variants; then their answers side by side.
_PAIRS = """
    CREATE INDEX by_request ON answers (request);
    CREATE TABLE single AS SELECT variant, inference, min(id) AS id FROM requests WHERE inference IS NOT NULL
        GROUP BY variant, inference HAVING count(*) = 1;
    CREATE INDEX by_inference ON single (inference, variant);
    CREATE TABLE pairs AS
        SELECT a.label AS live, b.label AS shadow, a.probability AS p, b.probability AS q
        FROM single AS one JOIN single AS other ON other.inference = one.inference AND other.variant = :shadow
        JOIN answers AS a ON a.request = one.id
        JOIN answers AS b ON b.request = other.id AND b.position = a.position
        WHERE one.variant = :live;
"""


class Captured:
    """`variant`: the one that callers get answers of; `unreadable`: lines that are no record of a capture."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file)
        self._database.executescript(_TABLES)
        self.endpoints: set[str] = set()
        self.unreadable = 0

    @property
    def variant(self) -> str:
        return str(
            self.ask("SELECT variant FROM requests GROUP BY 1 ORDER BY variant = ?, count(*) DESC", SHADOW)[0][0]
        )

    @property
    def has_shadow(self) -> bool:
        return bool(self.ask("SELECT 1 FROM requests WHERE variant = ? LIMIT 1", SHADOW)) and self.variant != SHADOW

    def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self._database.execute(query, values).fetchall()

    def pair(self) -> None:
        """Make the table `pairs` (live, shadow: labels; p, q: probabilities) of images that both variants answered."""
        names = {"live": self.variant, "shadow": SHADOW}
        for statement in filter(str.strip, _PAIRS.split(";")):
            self._database.execute(statement, names if ":" in statement else {})

    def add(self, file: Path, name: str) -> None:
        """Add the records of one file; `name` is its key, or its path."""
        found = PLACE.match(name)
        if found:
            self.endpoints.add(found["endpoint"])
        with file.open("rb") as lines:
            while line := lines.readline(LONGEST):
                if line.strip():
                    self._add(line, found["variant"] if found else "AllTraffic")

    def _add(self, line: bytes, variant: str) -> None:
        try:
            record = json.loads(line)
            data, event = record["captureData"], record["eventMetadata"]
            given = data.get("endpointInput") or {}
            hour = _text(event["inferenceTime"])[:13].replace("T", " ")
            kind = _text(given.get("observedContentType") or "not captured")
            inference = _text(event["inferenceId"]) if event.get("inferenceId") else None
            values = (variant, hour, kind, _size(given), inference)
            answers = list(_answers(data.get("endpointOutput") or {}))
        except (ValueError, LookupError, TypeError, AttributeError):
            self.unreadable += 1
            return
        added = self._database.execute("INSERT INTO requests VALUES (NULL, ?, ?, ?, ?, ?)", values).lastrowid
        rows = ((added, position, *answer) for position, answer in enumerate(answers))
        self._database.executemany("INSERT INTO answers VALUES (?, ?, ?, ?)", rows)


def read(source: str, scratch: Path, aws: Any) -> Captured:
    """Return the requests below an S3 prefix or in a folder; `aws()` gives the account. Raises CloudError."""
    found = Captured(scratch / "captured.sqlite")
    if source.startswith("s3://"):
        for key, file in _downloaded(aws(), S3Uri.parse(source, "--captured"), scratch):
            found.add(file, key)
    elif Path(source).is_dir():
        for file in sorted(Path(source).rglob("*.jsonl")):
            found.add(file, str(file.resolve()))
    else:
        raise CloudError(f"--captured {source}: no such folder; expected s3://BUCKET/PREFIX or a folder", 2)
    if not found.ask("SELECT 1 FROM requests LIMIT 1"):
        unreadable = f"; {found.unreadable} lines are no records of a capture" if found.unreadable else ""
        raise CloudError(f"--captured {source}: no captured requests below it{unreadable}")
    if len(found.endpoints) > 1:
        several = ", ".join(sorted(found.endpoints))
        raise CloudError(f"--captured {source} has requests to several endpoints: add one of {several}", 2)
    return found


def _downloaded(aws: Aws, prefix: S3Uri, scratch: Path) -> Iterator[tuple[str, Path]]:
    """The keys and files below a prefix, one at a time."""
    bucket.require(aws, prefix.bucket)
    progress(f"reading what is below {prefix}")
    file = scratch / "part.jsonl"
    for name, _ in bucket.below(aws, prefix):
        if name.endswith(".jsonl") and objects.download(aws, prefix / name, file):
            yield (prefix / name).key, file


def _size(part: dict[str, Any]) -> int:
    """Bytes of a captured body, which is text or base64."""
    data = part.get("data", "")
    if part.get("encoding") == "BASE64":
        return int(len(data) * 3 // 4 - data[-2:].count("="))
    return len(data.encode())


def _answers(part: dict[str, Any]) -> Iterator[tuple[str | None, float | None]]:
    """The most probable class of each image, with its probability; None where there was an error instead."""
    text = part.get("data", "")
    if part.get("encoding") == "BASE64":
        try:
            text = base64.b64decode(text, validate=True).decode()
        except binascii.Error as error:
            raise ValueError(str(error)) from None
    kind = str(part.get("observedContentType", "")).partition(";")[0].strip()
    if kind == CSV:
        table = {row[0]: row for row in reversed(list(csv.reader(text.splitlines())))}  # the first row of each image
        for row in reversed(table.values()):
            yield _best(row[2], row[3]) if row[3] else (None, None)
        return
    for document in map(json.loads, text.splitlines() if kind == JSON_LINES else filter(None, [text])):
        images = document.get("predictions", [document])
        for image in [images] if images and "label" in images[0] else images:
            best = image[0] if isinstance(image, list) else None
            yield _best(best["label"], best["probability"]) if best else (None, None)


def _best(label: object, probability: Any) -> tuple[str, float]:
    share = float(probability)
    if not 0 <= share <= 1:
        raise ValueError(f"the probability {share} is no share of 1")
    return _text(label), share


def _text(value: object) -> str:
    """As the database takes it: JSON may escape half of a character."""
    return str(value).encode(errors="replace").decode()
