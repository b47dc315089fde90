"""Held-out images posted with curl, and the table of the answers."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from container_train.data import splits
from container_train.data.labels import class_of, natural
from local_test.errors import LocalError
from local_test.text import table

ROWS = 10
CURL_SECONDS = 60
MAX_BYTES = 6_291_456  # what the platform takes in one request


@dataclass(frozen=True)
class Row:
    image: str
    true: str
    predicted: str
    probability: float


def choose(test: Path, labels: Sequence[str], rows: int = ROWS) -> list[tuple[Path, str]]:
    """Images and their labels, spread over the classes: all of them where there are no more than `rows`."""
    classes = splits.class_files(test).classes
    names = list(classes)
    if len(names) > rows:
        names = [names[index * (len(names) - 1) // (rows - 1)] for index in range(rows)]
    # Lazily: a class may hold thousands of images, of which one or two are opened.
    usable = {name: filter(_is_usable, classes[name]) for name in names}
    chosen: list[tuple[Path, str]] = []
    while usable and len(chosen) < rows:
        for name in list(usable):
            image = next(usable[name], None)
            if image is None:
                del usable[name]
            elif len(chosen) < rows:
                chosen.append((image, class_of(name, labels) or name))
    if not chosen:
        raise LocalError(f"{test} has no readable image of at most {MAX_BYTES} bytes to post")
    return sorted(chosen, key=lambda item: natural(str(item[0])))


def post(image: Path, url: str) -> tuple[str, float]:
    """The most probable class and its probability. Raises LocalError for any answer but a good one."""
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", str(CURL_SECONDS)]
    command += ["--header", "Content-Type: application/x-image", "--header", "Accept: application/json"]
    command += ["--data-binary", f"@{image}", "--write-out", "\n%{http_code}", url]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise LocalError(f"curl could not post {image.name}: {done.stderr.strip()}")
    body, _, status = done.stdout.rpartition("\n")
    if status != "200":
        raise LocalError(f"the server answered {status} to {image.name}: {body[:500]}")
    try:
        first = json.loads(body)["predictions"][0]
        return str(first["label"]), float(first["probability"])
    except (ValueError, KeyError, IndexError, TypeError):
        raise LocalError(f"the server's answer to {image.name} has no predictions: {body[:500]}") from None


def render(rows: list[Row]) -> str:
    heads = ("image", "true class", "predicted class", "probability")
    lines = [(row.image, row.true, row.predicted, f"{row.probability:.3f}") for row in rows]
    correct = sum(row.true == row.predicted for row in rows)
    return f"{table(heads, lines)}\n{correct} of {len(rows)} correct"


def _is_usable(path: Path) -> bool:
    try:
        if path.stat().st_size > MAX_BYTES:
            return False
        with Image.open(path) as image:
            image.load()
    except Exception:  # Pillow's decoders raise almost anything
        return False
    return True
