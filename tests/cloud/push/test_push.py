"""scripts/push.sh: what it pushes, and what lies in the registry afterwards."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_test import engine as local_engine
from scripts.aws.names import Image
from scripts.console.command import run
from scripts.images import engine as docker_engine
from scripts.images import push as module
from scripts.images.engine import LocalImage
from scripts.images.registry import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from tests.cloud.conftest import ACCOUNT, REGION
from tests.cloud.push.conftest import NAME, TARGET, Make, Push
from tests.cloud.stand_in import Server, StandIn
from tests.conftest import Capture, Patch
from tests.docker import engine

pytestmark = pytest.mark.docker


# What is pushed, and what is not


def test_pushed_and_the_second_time_nothing_is_done(ecr: StandIn, make: Make, push: Push, calls: list[str]) -> None:
    identifier = make()
    first = push(TARGET).says(f"created the repository {NAME} in {REGION}, account {ACCOUNT}")
    assert re.fullmatch(rf"{ecr.host}/{NAME}@sha256:[0-9a-f]{{64}}\n", first.out)
    # What train.py and deploy.py take, had ECR been ECR.
    image = Image.parse(ecr.uri(first.out.strip()), REGION)
    [tag] = ecr.registry.tags(NAME)
    assert tag.endswith(f"-{identifier.removeprefix('sha256:')[:8]}")
    assert ecr.registry.manifest(NAME, tag)["config"]["digest"] == identifier
    assert image.repository == NAME

    sent = ecr.registry.uploads()
    calls.clear()
    second = push(TARGET, "--json").says("already")
    facts = {"uri": first.out.strip(), "repository": f"{ecr.host}/{NAME}", "tag": tag, "digest": image.digest}
    assert second.json == {"images": [{"target": TARGET, "pushed": False, **facts}]}
    assert ecr.registry.uploads() == sent
    assert not {"ecr:CreateRepository", "ecr:PutLifecyclePolicy"} & set(calls)


def test_both_images_are_pushed_where_none_is_named(ecr: StandIn, make: Make, push: Push) -> None:
    make("train")
    make("serve")
    repositories = [line.partition("@")[0] for line in push().ends(0).out.splitlines()]
    assert repositories == [f"{ecr.host}/byoc-train", f"{ecr.host}/byoc-serve"]


def test_another_build_of_the_same_files_has_a_tag_of_its_own(ecr: StandIn, make: Make, push: Push) -> None:
    for _ in range(2):
        make()
        assert push(TARGET).code == 0
    assert len(ecr.registry.tags(NAME)) == 2


def test_a_tag_that_cannot_be_moved_is_not_tried(ecr: StandIn, make: Make, push: Push) -> None:
    make()
    uri = push(TARGET, "--tag", "dev").ends(0).out.strip()
    make()
    sent = ecr.registry.uploads()
    push(TARGET, "--tag", "dev").ends(1, "another image", "--tag", uri)
    assert ecr.registry.uploads() == sent


def test_elsewhere_a_tag_is_moved_and_that_is_said(elsewhere: str, server: Server, make: Make, push: Push) -> None:
    make()
    first = push(TARGET, "--registry", f"{elsewhere}/team/", "--tag", "dev").ends(0).out
    assert first.startswith(f"{elsewhere}/team/{NAME}@sha256:")
    identifier = make()
    moved = f"was another image, {first.strip().partition('@')[2]}"
    push(TARGET, "--registry", f"{elsewhere}/team", "--tag", "dev").says(moved)
    assert server.manifest(f"team/{NAME}", "dev")["config"]["digest"] == identifier


def test_what_is_not_built_is_built(
    elsewhere: str, tree: Path, make: Make, tmp_path: Path, monkeypatch: Patch, capfd: Capture
) -> None:  # fmt: skip
    identifier = make()
    name = engine.inspect(identifier)["RepoTags"][0]
    engine.docker("tag", name, "byoc-test-aside:now")
    engine.docker("rmi", name)
    # A build of seconds in the place of one of minutes: the content is the real one's.
    root = tmp_path / "tree"
    (root / "scripts").mkdir(parents=True)
    script = root / "scripts" / "build.sh"
    script.write_text(
        f"#!/bin/sh\n[ $1 != --content ] || exec {tree}/scripts/build.sh $@\n"
        f"echo a table\nexec docker tag byoc-test-aside:now {name}\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(local_engine, "ROOT", root)
    try:
        assert run("push.sh", module.main, (TARGET, "--registry", elsewhere)) == 0
        out, err = capfd.readouterr()
        assert out.startswith(f"{elsewhere}/{NAME}@sha256:")
        assert "byoc-train is not built yet: building it" in err
        assert "a table" in err

        engine.docker("rmi", "--force", identifier)
        script.write_text(script.read_text().replace("exec docker tag", "exit 1 #"))
        assert run("push.sh", module.main, (TARGET, "--registry", elsewhere)) == 1
        out, err = capfd.readouterr()
        assert (out, "push.sh: byoc-train was not built" in err) == ("", True)
    finally:
        engine.docker("rmi", "byoc-test-aside:now", check=False)


def test_an_image_for_another_platform_is_refused_before_anything_is_sent(
    elsewhere: str, server: Server, make: Make, push: Push
) -> None:
    make(architecture="arm64", said="amd64")
    said = "is for linux/arm64, not linux/amd64: build it again with scripts/build.sh"
    push(TARGET, "--registry", elsewhere).ends(1, said)
    assert server.uploads() == 0


def test_of_two_images_that_of_the_platform_asked_for_is_pushed(
    elsewhere: str, server: Server, make: Make, push: Push
) -> None:
    identifiers = {architecture: make(architecture=architecture) for architecture in ("amd64", "arm64")}
    for architecture, identifier in identifiers.items():
        flags = ("--registry", elsewhere, "--platform", f"linux/{architecture}", "--tag", architecture)
        assert push(TARGET, *flags).code == 0
        pushed = server.manifest(f"byoc-{TARGET}", architecture)["config"]["digest"]
        assert pushed == identifier


def test_an_image_that_the_engine_keeps_as_oci_is_refused_before_anything_is_sent(
    elsewhere: str, server: Server, make: Make, push: Push, monkeypatch: Patch
) -> None:
    make()
    original = docker_engine.find_image

    def as_containerd_says(client: Any, name: str) -> LocalImage | None:
        found = original(client, name)
        return found and replace(found, media_type=OCI_INDEX)

    monkeypatch.setattr(docker_engine, "find_image", as_containerd_says)
    push(TARGET, "--registry", elsewhere).ends(1, f"is stored as {OCI_INDEX}")
    assert server.uploads() == 0


# What lies in the registry afterwards


def lies_as(server: Server, kind: str, reference: str) -> None:
    """Put in the place of what was pushed what other engines or builders would have left."""
    repository, _, tag = reference.partition("/")[2].rpartition(":")
    manifest = server.manifest(repository, tag)
    as_oci = {
        **manifest,
        "mediaType": OCI_MANIFEST,
        "config": {**manifest["config"], "mediaType": "application/vnd.oci.image.config.v1+json"},
    }
    if kind == OCI_MANIFEST:
        server.put_manifest(repository, tag, as_oci)
    elif kind in (OCI_INDEX, DOCKER_LIST):
        digest = server.put_manifest(repository, f"{tag}-one", as_oci if kind == OCI_INDEX else manifest)
        entry = {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1}
        entry["platform"] = {"os": "linux", "architecture": "amd64"}
        server.put_manifest(repository, tag, {"schemaVersion": 2, "mediaType": kind, "manifests": [entry]})
    else:
        config = json.dumps({"os": "linux", "architecture": "arm64"}).encode()
        entry = {**manifest["config"], "digest": server.put_blob(repository, config), "size": len(config)}
        server.put_manifest(repository, tag, {**manifest, "config": entry})


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (OCI_MANIFEST, f"is there as {OCI_MANIFEST}, and SageMaker takes application/vnd.docker"),
        (OCI_INDEX, f"is there as {OCI_INDEX}"),
        (DOCKER_LIST, f"is there as {DOCKER_LIST}"),
        ("another", "is another image"),
    ],
)
def test_what_sagemaker_does_not_take_is_found_after_the_push(
    ecr: StandIn, make: Make, push: Push, kind: str, said: str, monkeypatch: Patch
) -> None:
    make()
    original = docker_engine.push

    def pushes(client: Any, image: LocalImage, repository: str, tag: str, credentials: Any) -> None:
        original(client, image, repository, tag, credentials)
        lies_as(ecr.registry, kind, f"{repository}:{tag}")

    monkeypatch.setattr(docker_engine, "push", pushes)
    push(TARGET, "--tag", "one").ends(1, said)
    # And again where the tag is there already: not skipped, no advice to use it.
    line = push(TARGET, "--tag", "one").ends(1, said).last
    assert "--tag" in line or "build.sh" in line


def test_an_image_that_is_gone_after_the_push_is_not_reported_as_pushed(
    ecr: StandIn, make: Make, push: Push, monkeypatch: Patch
) -> None:
    make()
    monkeypatch.setattr(docker_engine, "push", lambda *_: None)
    push(TARGET).ends(1, "was pushed and is not there")
