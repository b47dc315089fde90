"""Objects: read, looked at, written and deleted; one file as an object, and whether it is there already."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from container_train.errors import DataError
from scripts.aws import requests
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, code_of
from scripts.aws.names import S3Uri
from scripts.aws.requests import Request
from scripts.aws.settings import Settings
from scripts.s3.bucket import owner

MAX_KEY_BYTES = 1024  # of a whole key, UTF-8
DELETED_AT_ONCE = 1000  # the service's limit
HASH = "sha256"  # name of the objects' metadata
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def put(path: Path, sha256: str, uri: S3Uri, settings: Settings) -> Request:
    """One file, whole, its Body named by its path. S3 compares the checksum with what arrives, and keeps it."""
    checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
    request = {**s3_location(uri), "Body": str(path), "ChecksumSHA256": checksum, "Metadata": {HASH: sha256}}
    return Request("s3", "PutObject", {**request, **encryption(settings)})


def s3_location(uri: S3Uri) -> dict[str, Any]:
    return {"Bucket": uri.bucket, "Key": uri.key, **owner(uri.bucket)}


def send(aws: Aws, request: Request, path: Path) -> str:
    """The ETag that the object got."""
    try:
        with path.open("rb") as body:
            answer = requests.send(aws, replace(request, request={**request.request, "Body": body}))
    except ClientError as error:
        if code_of(error) in {"BadDigest", "IncompleteBody"}:
            raise CloudError(f"{path} was changed while it was being sent: call this again") from None
        raise
    return str(answer["ETag"]).strip('"')


def head(aws: Aws, uri: S3Uri) -> dict[str, Any] | None:
    """Return what S3 says of an object (ContentLength, Metadata ...); None where there is none."""
    found: dict[str, Any] | None = _of(aws.client("s3").head_object, s3_location(uri))
    return found


def opened(aws: Aws, uri: S3Uri) -> dict[str, Any] | None:
    """Return an object whose Body is read by the caller, with its ContentLength; None where there is none."""
    found: dict[str, Any] | None = _of(aws.client("s3").get_object, s3_location(uri))
    return found


def read(aws: Aws, uri: S3Uri) -> bytes | None:
    """Return the content of an object; None where there is none."""
    found = opened(aws, uri)
    content: bytes | None = None if found is None else found["Body"].read()
    return content


def download(aws: Aws, uri: S3Uri, target: Path) -> bool:
    """Fetch an object of any size into a file; return whether there is one."""
    place = s3_location(uri)
    names = {"Bucket": place.pop("Bucket"), "Key": place.pop("Key"), "Filename": str(target), "ExtraArgs": place}
    return _of(aws.client("s3").download_file, names, missing=False) is None


def _of(call: Callable[..., Any], parameters: dict[str, Any], missing: Any = None) -> Any:
    try:
        return call(**parameters)
    except ClientError as error:
        if code_of(error) in _MISSING:
            return missing
        raise


def write(aws: Aws, uri: S3Uri, content: bytes, settings: Settings, content_type: str) -> None:
    """Put it there, encrypted as the settings say."""
    request = {**s3_location(uri), "Body": content, "ContentType": content_type, **encryption(settings)}
    requests.send(aws, Request("s3", "PutObject", request))


def is_there(aws: Aws, uri: S3Uri, sha256: str, size: int, settings: Settings) -> bool:
    """Tell whether the object has this hash, which travels with it, and is encrypted as asked for."""
    found = head(aws, uri)
    if found is None:
        return False
    key = settings.output_kms_key
    # An alias cannot be told from another key's; then it is sent again.
    encrypted = key is None or str(found.get("SSEKMSKeyId", "")).endswith(key)
    return bool(encrypted and found["ContentLength"] == size and found.get("Metadata", {}).get(HASH) == sha256)


def delete(aws: Aws, bucket: str, keys: Sequence[str]) -> None:
    """Delete objects, in this order. Raises CloudError where one cannot be deleted."""
    for start in range(0, len(keys), DELETED_AT_ONCE):
        some = [{"Key": key} for key in keys[start : start + DELETED_AT_ONCE]]
        request = {"Bucket": bucket, "Delete": {"Objects": some, "Quiet": True}, **owner(bucket)}
        for failed in requests.send(aws, Request("s3", "DeleteObjects", request)).get("Errors", ()):
            reason = f"{failed.get('Message')} ({failed.get('Code')})"
            raise CloudError(f"s3://{bucket}/{failed.get('Key')} could not be deleted: {reason}")


def check_key(key: str, path: Path) -> None:
    """Raises DataError for what S3 does not take, cannot list, or would not find again."""
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        raise DataError(f"{str(path)!r}: its name is not UTF-8, which S3 needs: rename it") from None
    if any(ord(character) < 32 or ord(character) == 127 for character in key):
        raise DataError(f"{str(path)!r}: its name has a control character, which S3 cannot list: rename it")
    if {".", ".."} & set(key.split("/")):
        raise DataError(f"{path}: its key {key!r} has a part . or .., which is lost on the way to S3: rename it")
    if length > MAX_KEY_BYTES:
        raise DataError(f"{path}: its key {key!r} has {length} bytes, S3 takes {MAX_KEY_BYTES}: rename it")


def encryption(settings: Settings) -> dict[str, Any]:
    """Return the encryption of an object, as a part of its request; without a key, as the bucket does by itself."""
    if settings.output_kms_key is None:
        return {}
    # With a key of the bucket's own, S3 asks KMS once for many objects: fewer calls, lower costs.
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": settings.output_kms_key, "BucketKeyEnabled": True}
