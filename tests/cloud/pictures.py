"""Small sets of pictures, what lies in a bucket, and calls that fail when a test wants them to."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import botocore.client
from PIL import Image

from container_train.data.labels import SPLITS
from tests.conftest import Patch

CLASSES = ("001.cat", "002.dog")


def jpeg(number: int) -> bytes:
    """A picture of its own for every number."""
    body = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256 % 256, 120)).save(body, "JPEG")
    return body.getvalue()


def fill(root: Path, each: int = 2) -> Path:
    """root/SPLIT/CLASS/NNNN.jpg, `each` in every class of every split: 6 * each pictures."""
    number = 0
    for split in SPLITS:
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(each):
                (folder / f"{index:04d}.jpg").write_bytes(jpeg(number))
                number += 1
    return root


def bodies(root: Path) -> dict[str, bytes]:
    """The expected content of a prefix: every picture of `root` by its relative path."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.jpg")}


def stored(session: Any, bucket: str, prefix: str) -> dict[str, bytes]:
    """Return what is below a prefix, without the manifest."""
    s3 = session.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
    return {
        key.removeprefix(prefix): s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        for key in keys
        if key != f"{prefix}manifest.json"
    }


def intercept(monkeypatch: Patch, before: Callable[[str, Mapping[str, Any]], None]) -> None:
    """before(operation, request) is called ahead of every call of the scripts, and fails it by raising."""
    original = botocore.client.BaseClient._make_api_call

    def call(client: Any, operation: str, request: Mapping[str, Any]) -> Any:
        if "byoc-image-classifier" in (client.meta.config.user_agent_extra or ""):
            before(operation, request)
        return original(client, operation, request)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
