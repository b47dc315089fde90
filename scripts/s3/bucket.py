"""The bucket: whose it is, where it lies, and making the default one."""

import re
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from scripts.aws import requests
from scripts.aws.account import Aws
from scripts.aws.errors import POLICY, CloudError, code_of
from scripts.aws.names import S3Uri
from scripts.aws.requests import Request
from scripts.console.command import progress

_DEFAULT = re.compile(r"sagemaker-([a-z0-9-]+)-(\d{12})\Z")


def owner(bucket: str) -> dict[str, str]:
    """The account that must own a default bucket, as a part of a request: anybody may take a name that is free.

    Of a bucket with another name the owner is not known: data may be in another account.
    """
    match = _DEFAULT.match(bucket)
    return {"ExpectedBucketOwner": match[2]} if match else {}


def below(aws: Aws, prefix: S3Uri) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the objects below a prefix: keys relative to it, and what a listing says of each (Size, ETag)."""
    start = f"{prefix.key}/" if prefix.key else ""
    pages = aws.client("s3").get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=prefix.bucket, Prefix=start, **owner(prefix.bucket)):
        for item in page.get("Contents", ()):
            yield item["Key"].removeprefix(start), item


def creation(bucket: str, region: str) -> list[Request]:
    """Make it as SageMaker's own tools do, closed to the public. It has no tags: it is not this project's alone."""
    create: dict[str, object] = {"Bucket": bucket}
    if region != "us-east-1":  # which is where it lies without being told, and may not be named
        create["CreateBucketConfiguration"] = {"LocationConstraint": region}
    closed = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    return [
        Request("s3", "CreateBucket", create),
        Request(
            "s3", "PutPublicAccessBlock", {"Bucket": bucket, "PublicAccessBlockConfiguration": closed, **owner(bucket)}
        ),
    ]


def require(aws: Aws, bucket: str, *, create: bool = False) -> None:
    """Raises CloudError unless the bucket is there, may be read and is in this region.

    With `create` the caller's own default bucket is made where it is missing.
    """
    s3 = aws.client("s3")
    try:
        answer = s3.head_bucket(Bucket=bucket, **owner(bucket))
    except ClientError as error:
        if code_of(error) in {"404", "NoSuchBucket"}:
            _make(aws, bucket, create)
            return
        _say_why(s3, bucket)
        raise
    region = answer.get("BucketRegion") or aws.region
    if region != aws.region:
        raise CloudError(f"s3://{bucket} is in {region}, and the region is {aws.region}: give another bucket or region")


def _say_why(s3: Any, bucket: str) -> None:
    """An answer to HEAD has no body: ask again in a way that names the reason, and raise it."""
    try:
        s3.list_objects_v2(Bucket=bucket, MaxKeys=1, **owner(bucket))
    except ClientError as error:
        if code_of(error) != "AccessDenied":
            raise
        whose = owner(bucket).get("ExpectedBucketOwner")
        other = f"it belongs to another account than {whose}, or " if whose else ""
        why = f"{other}the permission s3:ListBucket is missing ({POLICY} has it)"
        raise CloudError(f"s3://{bucket} may not be read: {why}") from None


def _make(aws: Aws, bucket: str, create: bool) -> None:
    match = _DEFAULT.match(bucket)
    if not create or not match:
        raise CloudError(f"s3://{bucket} is not there: make it with `aws s3 mb s3://{bucket}`, or name another bucket")
    if match[1] != aws.region or match[2] != aws.identity.account:
        only = f"only account {match[2]} can make it in {match[1]} (this is {aws.identity.account}, {aws.region})"
        raise CloudError(f"s3://{bucket} is not there, and {only}: check --role and --region, or name another bucket")
    create_it, close_it = creation(bucket, aws.region)
    try:
        requests.send(aws, create_it)
    except ClientError as error:
        if code_of(error) == "BucketAlreadyExists":
            whose = f"belongs to another account, though by its name it should be {match[2]}'s"
            raise CloudError(f"s3://{bucket} {whose}: give a --bucket of your own") from None
        # Made by a first try whose answer was lost, or by another call just now.
        if code_of(error) != "BucketAlreadyOwnedByYou":
            raise
    requests.send(aws, close_it)
    progress(f"created the bucket s3://{bucket}, closed to the public")
