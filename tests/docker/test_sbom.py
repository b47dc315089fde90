"""Files that scripts/build.sh writes beside an image: its components, their licences, the advisories against them."""

import functools
import http.server
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need
from tests.docker import engine
from tests.docker.index import http_server

pytestmark = pytest.mark.docker
TAG = "byoc-test-sbom"
NAME = f"byoc-serve_{TAG}"
SECONDS = 600
NETTY = "4.2.18.final"  # in small letters


def build(tree: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """scripts/build.sh of the serving image: from the cache, but for what dist/ gets."""
    command = [str(tree / "scripts" / "build.sh"), "serve", "--tag", TAG, *engine.build_options(), *args]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=SECONDS)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    need(engine.available(), "a Docker engine")
    engine.image("serve")
    yield engine.copy_tree(tmp_path_factory.mktemp("sbom"))
    engine.docker("rmi", f"byoc-serve:{TAG}", check=False)


class Osv(http.server.BaseHTTPRequestHandler):
    """Answers as osv.dev does: against Pillow, a part of netty, and scipy, whose files the image has not."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]
        name = asked.get("name", asked.get("purl", "")).lower()
        package = {"name": "pillow", "ecosystem": "PyPI"}
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}]
        advisory = {"id": "GHSA-test", "aliases": ["CVE-1"], "affected": [{"package": package, "ranges": ranges}]}
        of_java = {"id": "GHSA-java", "affected": [{"ranges": ranges}]}
        known = {"pillow": [advisory], "scipy": [advisory], f"pkg:maven/io.netty/netty-codec-http@{NETTY}": [of_java]}
        body = json.dumps({"vulns": known[name]} if name in known else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@functools.cache
def listed(tree: Path) -> tuple[dict[str, Any], str]:
    """The components by name, and what the build printed, where no advisory service answers."""
    done = build(tree, "--osv-url", "http://127.0.0.1:9/")
    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads((tree / "dist" / f"{NAME}.cdx.json").read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    references = [component["bom-ref"] for component in document["components"]]
    assert len(set(references)) == len(references)
    itself = document["metadata"]["component"]
    assert (itself["name"], itself["version"]) == ("byoc-serve", TAG)
    assert itself["properties"] == [{"name": "byoc:image-id", "value": engine.inspect(f"byoc-serve:{TAG}")["Id"]}]
    own = [component for component in document["components"] if "byoc:in" not in json.dumps(component)]
    return {component["name"].lower().replace("_", "-"): component for component in own}, done.stdout


@pytest.mark.timeout(SECONDS)
def test_every_package_of_the_lock_is_listed_with_its_version(tree: Path) -> None:
    components, _ = listed(tree)
    lock = (engine.ROOT / "docker" / "serve.lock").read_text()
    locked: dict[str, set[str]] = {}  # several for several versions of Python; those for other systems are left out
    for name, version, marker in re.findall(r"^([a-zA-Z0-9_.-]+)==([^ ]+)(.*) \\$", lock, re.MULTILINE):
        if "platform" not in marker:
            locked.setdefault(name.replace("_", "-").lower(), set()).add(version)
    assert {"numpy", "pillow", "openvino", "multi-model-server"} <= set(locked)
    removed = {  # by the build: no request touches them
        *("scipy", "boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "urllib3", "retrying"),
        *("setuptools", "future", "model-archiver"),
    }
    assert {name for name in locked if components.get(name, {}).get("version") not in locked[name]} == removed


@pytest.mark.timeout(SECONDS)
def test_java_and_the_system_are_listed_and_the_tools_are_not(tree: Path) -> None:
    components, _ = listed(tree)
    assert components["openjdk runtime"]["version"].startswith("17.")
    assert components["netty-codec-http"]["purl"] == "pkg:maven/io.netty/netty-codec-http@4.2.18.Final"
    assert components["log4j-core"]["version"] == components["log4j-api"]["version"] == "2.26.1"
    assert {"netty-transport-native-epoll", "slf4j-api", "jctools-core"} <= set(components)
    assert "version" not in components["gson"]  # the jar does not say it
    assert re.match(r"pkg:deb/(debian|ubuntu)/libc6@", components["libc6"]["purl"])
    assert {"cyclonedx-bom", "pip-audit", "uv", "gcc", "torch"} & set(components) == set()


@pytest.mark.timeout(SECONDS)
def test_licences_are_a_table(tree: Path) -> None:
    components, printed = listed(tree)
    rows = [line.split("\t") for line in (tree / "dist" / f"{NAME}.licenses.txt").read_text().splitlines()]
    whole = json.loads((tree / "dist" / f"{NAME}.cdx.json").read_text())["components"]
    assert len(rows) == len(whole) > len(components)
    libraries = {one["name"]: one["properties"][0]["value"] for one in whole if one not in components.values()}
    assert libraries["libwebp"].startswith("pillow-")  # decodes what callers send
    licenses = {name.lower().replace("_", "-"): names for name, _, names in rows}
    assert licenses["pillow"] == "MIT-CMU"
    assert licenses["openjdk runtime"] == "GPL-2.0-only WITH Classpath-exception-2.0"
    assert licenses["openvino"] != "not stated"
    unstated = sum(names == "not stated" for names in licenses.values())
    assert f"{len(rows)} components, {unstated} of them without a stated licence" in printed
    assert unstated < len(rows) / 4


@pytest.mark.timeout(SECONDS)
def test_an_advisory_service_out_of_reach_is_said_and_fails_on_demand_only(tree: Path) -> None:
    _, printed = listed(tree)
    [line] = [line for line in printed.splitlines() if "advisories:" in line]
    assert "not checked: the service gave no answer (20" in line
    assert "Connection refused" in line
    done = build(tree, "--osv-url", "http://127.0.0.1:9/", "--fail-on-advisory")
    assert done.returncode == 1
    assert f"could not be asked for: byoc-serve:{TAG}" in done.stderr.splitlines()[-1]


@pytest.mark.timeout(SECONDS)
def test_a_known_advisory_is_told_and_stands_until_it_is_accepted(tree: Path) -> None:
    need("host" in engine.build_options() or os.environ.get("BYOC_NETWORK") == "host", "builds on the host's network")
    with http_server(Osv) as port:
        url = f"http://127.0.0.1:{port}/"
        done = build(tree, "--osv-url", url, "--fail-on-advisory")
        assert done.returncode == 1
        assert re.search(r"advisories: 2 known against \d+ Python packages and \d+ Java libraries ", done.stdout)
        assert re.search(r"advisories: pillow [0-9.]+: CVE-1, GHSA-test; fixed in 99\.0\n", done.stdout)
        assert f"netty-codec-http {NETTY.replace('f', 'F')}: GHSA-java; fixed in 99.0\n" in done.stdout
        reasons = "cve-1 only in code that is not called\nGHSA-java not reached\nCVE-2 of long ago\n"
        (tree / "docker" / "accepted_advisories.txt").write_text(reasons)
        done = build(tree, "--osv-url", url, "--fail-on-advisory")
        assert done.returncode == 0, done.stderr[-3000:]
        assert "fixed in 99.0; accepted: only in code that is not called\n" in done.stdout
        assert "advisories: CVE-2: accepted, but not known against this image\n" in done.stdout
        (tree / "docker" / "accepted_advisories.txt").write_text("CVE-1\n")
        done = build(tree, "--osv-url", url)
    assert done.returncode == 1
    assert "gives no reason for CVE-1" in done.stderr
    assert list((tree / "dist").iterdir()) == []  # nor what was known of the image before
