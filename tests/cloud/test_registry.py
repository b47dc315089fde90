"""ECR: repositories, made once; images, found and read."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boto3 import Session

from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import Image
from scripts.aws.settings import Settings
from scripts.images import registry
from scripts.images.registry import DOCKER_LIST, DOCKER_MANIFEST, OCI_MANIFEST
from tests.cloud import stand_in
from tests.cloud.answers import error, give
from tests.cloud.conftest import REGION
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.stand_in import ECR_HOST, Server, StandIn
from tests.conftest import Patch

NAME = "byoc-serve"
SETTINGS = Settings(region=REGION, tags={"team": "vision"})
LABELS = {"org.opencontainers.image.title": "byoc-serve", "byoc.content": "0123456789ab"}


def image(reference: str) -> Image:
    separator = "@" if reference.startswith("sha256:") else ":"
    return Image.parse(f"{ECR_HOST}/{NAME}{separator}{reference}", REGION)


# Repositories


def test_a_repository_is_made_once(aws: Session, calls: list[str]) -> None:
    ecr = aws.client("ecr")
    made = registry.ensure_repository(Aws(REGION), NAME, SETTINGS)
    assert (made["repositoryUri"], made["imageTagMutability"]) == (f"{ECR_HOST}/{NAME}", "IMMUTABLE")
    made_with = ["ecr:CreateRepository", "ecr:PutLifecyclePolicy"]
    assert calls == ["ecr:DescribeRepositories", *made_with, "ecr:DescribeRepositories", "sts:GetCallerIdentity"]
    [found] = ecr.describe_repositories(repositoryNames=[NAME])["repositories"]
    assert found["imageTagMutability"] == "IMMUTABLE"
    assert found["imageScanningConfiguration"] == {"scanOnPush": True}
    assert found["encryptionConfiguration"] == {"encryptionType": "AES256"}
    tags = ecr.list_tags_for_resource(resourceArn=found["repositoryArn"])["tags"]
    assert tags == [{"Key": "byoc-project", "Value": "byoc"}, {"Key": "team", "Value": "vision"}]
    policy = json.loads(ecr.get_lifecycle_policy(repositoryName=NAME)["lifecyclePolicyText"])
    assert policy == registry.LIFECYCLE

    calls.clear()
    assert registry.ensure_repository(Aws(REGION), NAME, SETTINGS) == made
    assert calls == ["ecr:DescribeRepositories"]


def test_a_repository_whose_answer_is_lost_has_its_rules(aws: Session, flaky: FlakyAws) -> None:
    flaky.break_after("CreateRepository")
    flaky.break_after("PutLifecyclePolicy")
    registry.ensure_repository(Aws(REGION), NAME, SETTINGS)
    text = aws.client("ecr").get_lifecycle_policy(repositoryName=NAME)["lifecyclePolicyText"]
    assert json.loads(text) == registry.LIFECYCLE


def test_a_repository_that_exists_is_used_as_it_is(aws: Session, calls: list[str], monkeypatch: Patch) -> None:
    aws.client("ecr").create_repository(repositoryName=NAME)
    assert registry.ensure_repository(Aws(REGION), NAME, SETTINGS)["imageTagMutability"] == "MUTABLE"
    assert calls == ["ecr:DescribeRepositories"]
    # Another call made it at this moment.
    original = registry.described
    answers = [None]

    def described(ecr: Any, name: str) -> Any:
        return answers.pop() if answers else original(ecr, name)

    monkeypatch.setattr(registry, "described", described)
    assert registry.ensure_repository(Aws(REGION), NAME, SETTINGS)["repositoryUri"] == f"{ECR_HOST}/{NAME}"


# Images, in moto's registry


def config() -> bytes:
    return json.dumps({"os": "linux", "architecture": "amd64", "config": {"Labels": LABELS}}).encode()


def manifest(media_type: str = DOCKER_MANIFEST) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(config()).hexdigest()}"
    entry = {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest, "size": len(config())}
    return {"schemaVersion": 2, "mediaType": media_type, "config": entry, "layers": []}


@pytest.fixture
def pushed(aws: Session) -> str:
    """The digest of an image in ECR, tag `one`."""
    ecr = aws.client("ecr")
    ecr.create_repository(repositoryName=NAME)
    answer = ecr.put_image(repositoryName=NAME, imageManifest=json.dumps(manifest()), imageTag="one")
    digest: str = answer["image"]["imageId"]["imageDigest"]
    return digest


def test_an_image_is_found_by_tag_and_by_digest(pushed: str, monkeypatch: Patch) -> None:
    assert registry.find(Aws(REGION), image("one")) == pushed
    assert registry.find(Aws(REGION), image(pushed)) == pushed
    give(monkeypatch, "GetDownloadUrlForLayer", error("AccessDeniedException", "not authorized"))
    assert registry.image_labels(Aws(REGION), image("one")) == {}
    assert registry.image_architecture(Aws(REGION), image("one")) is None


@pytest.mark.parametrize("look", [registry.find, registry.image_labels, registry.image_architecture])
def test_an_image_that_is_not_there(aws: Session, look: Any) -> None:
    with pytest.raises(CloudError, match=rf"{NAME}:one is not in ECR: push it with scripts/push.sh"):
        look(Aws(REGION), image("one"))
    aws.client("ecr").create_repository(repositoryName=NAME)
    for reference in ("one", f"sha256:{'0' * 64}"):
        with pytest.raises(CloudError, match=r"is not in ECR: push it with scripts/push\.sh"):
            look(Aws(REGION), image(reference))


# Images, in a real registry


@pytest.fixture
def server(tmp_path: Path, aws: Session, monkeypatch: Patch) -> Iterator[Server]:
    with stand_in.server(tmp_path) as running:
        stand_in.install(monkeypatch, StandIn(running, running.host))
        running.put_blob(NAME, config())
        yield running


def test_labels(server: Server) -> None:
    for media_type in (DOCKER_MANIFEST, OCI_MANIFEST):
        digest = server.put_manifest(NAME, "one", manifest(media_type))
        assert registry.find(Aws(REGION), image("one")) == digest
        assert registry.image_labels(Aws(REGION), image("one")) == LABELS
        assert registry.image_labels(Aws(REGION), image(digest)) == LABELS
        assert registry.image_architecture(Aws(REGION), image(digest)) == "amd64"
    # An image may have none, and those of a list of images are not read.
    entry = {**manifest()["config"], "digest": server.put_blob(NAME, b'{"config": {}}')}
    server.put_manifest(NAME, "bare", {**manifest(), "config": entry})
    assert registry.image_labels(Aws(REGION), image("bare")) == {}
    platform = {"os": "linux", "architecture": "amd64"}
    entries = [{"mediaType": DOCKER_MANIFEST, "digest": digest, "size": 1, "platform": platform}]
    server.put_manifest(NAME, "all", {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries})
    assert registry.image_labels(Aws(REGION), image("all")) == {}
