"""Builds for the places where people build: behind a proxy, with another client first on PATH, with a torch mirror."""

import hashlib
import http.server
import json
import os
import re
import secrets
import ssl
import subprocess
import tarfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar

import pytest

from tests.conftest import need
from tests.contract.models import picture, write_model
from tests.contract.serving import free_port
from tests.docker import engine
from tests.docker.index import http_server
from tests.docker.test_commands import get, wait_until_ready

pytestmark = pytest.mark.docker
TAG = engine.TEST_TAG


def build(tree: Path, name: str, *args: str, env: dict[str, str] | None = None) -> str:
    """The name of the image that scripts/build.sh made of `tree`."""
    command = [str(tree / "scripts" / "build.sh"), name, "--tag", TAG, "--no-sbom", *engine.build_options(), *args]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | (env or {}), timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    return f"byoc-{name}:{TAG}"


@pytest.fixture(autouse=True)
def _no_image_is_left() -> Iterator[None]:
    need(engine.available(), "a Docker engine")
    yield
    engine.docker("rmi", f"byoc-serve:{TAG}", check=False)


def found_in(stream: IO[bytes], words: list[bytes]) -> bool:
    tail = b""
    while block := stream.read(1 << 20):
        if any(word in tail + block for word in words):
            return True
        tail = block[-100:]
    return False


def is_tar(stream: IO[bytes]) -> bool:
    head = stream.read(512)
    stream.seek(0)
    return head[257:262] == b"ustar" or head[:2] == b"\x1f\x8b"  # engines differ in whether a layer is compressed


def files_with(image: str, words: list[bytes], scratch: Path) -> list[str]:
    """The files in all layers of `image`, and its configuration, that hold one of `words`."""
    saved = scratch / "image.tar"
    engine.docker("save", "--output", str(saved), image, timeout=600)
    found = []
    with tarfile.open(saved) as outer:
        for member in outer:
            stream = outer.extractfile(member) if member.isfile() else None
            if stream is None:
                continue
            if not is_tar(stream):  # a description: JSON
                found += [member.name] if found_in(stream, words) else []
                continue
            with tarfile.open(fileobj=stream) as layer:
                for inner in layer:
                    content = layer.extractfile(inner) if inner.isfile() else None
                    found += [inner.name] if content is not None and found_in(content, words) else []
    saved.unlink()
    return found


def test_secrets_of_a_build_are_in_no_layer(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    engine.copy_tree(tree)
    marker = f"marker-{secrets.token_hex(16)}"
    for name in ("install_builder.sh", "make_venv.sh"):  # whatever this machine has built before, it builds again
        with (tree / "docker" / name).open("a") as script:
            script.write(f"# {secrets.token_hex(8)}\n")
    known = os.environ.get("BYOC_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    need(known, "a bundle of CA certificates")
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(f"# {marker}\n{Path(str(known)).read_text()}")
    settings = tmp_path / "settings.xml"
    settings.write_text(f"<settings><!-- {marker} --></settings>")
    given = ("--ca-bundle", str(bundle), "--maven-settings", str(settings))
    # Hosts that are never asked: what counts is that the values went through the build.
    image = build(tree, "serve", *given, env={"UV_INSECURE_HOST": f"{marker}.example"})

    words = [marker.encode(), str(bundle).encode()]
    assert found_in(bundle.open("rb"), words)
    assert files_with(image, words, tmp_path) == []
    assert files_with(image, [b"com.amazonaws.sagemaker.capabilities"], tmp_path)  # the search finds what is there
    assert marker not in engine.docker("history", "--no-trunc", image).stdout
    assert "/run/secrets" not in engine.run(image, "env").stdout


def test_a_newer_client_without_buildx_is_passed_over(tmp_path: Path) -> None:
    client = tmp_path / "docker"
    client.write_text('#!/bin/sh\ncase $1 in --version) echo "Docker version 29.1.0, build x" ;; *) exit 1 ;; esac\n')
    client.chmod(0o755)
    engine.image("serve")  # so that this build comes from the cache
    build(engine.ROOT, "serve", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})


class Registry(http.server.BaseHTTPRequestHandler):
    """As much of a registry as a push needs; keeps the manifests and forgets the layers."""

    protocol_version = "HTTP/1.1"
    manifests: ClassVar[list[tuple[str, dict[str, object]]]] = []
    sizes: ClassVar[dict[str, int]] = {}  # of uploads by their path, of finished blobs by their digest

    def answer(self, status: int, length: int = 0, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def pieces(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") != "chunked":
            yield self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def do_GET(self) -> None:
        self.answer(200)

    def do_HEAD(self) -> None:
        size = self.sizes.get(self.path.rpartition("/")[2])
        self.answer(404 if size is None else 200, size or 0)

    def do_POST(self) -> None:
        list(self.pieces())
        self.answer(202, Location=f"/v2/x/blobs/uploads/{secrets.token_hex(8)}", Range="0-0")

    def do_PATCH(self) -> None:
        self.sizes[self.path] = size = sum(len(piece) for piece in self.pieces())
        self.answer(202, Location=self.path, Range=f"0-{size - 1}")

    def do_PUT(self) -> None:
        body = b"".join(self.pieces())
        if "/manifests/" in self.path:
            self.manifests.append((self.headers["Content-Type"], json.loads(body)))
            self.answer(201, Docker_Content_Digest=f"sha256:{hashlib.sha256(body).hexdigest()}")
        else:
            path, _, query = self.path.partition("?")
            self.sizes[urllib.parse.unquote(query.rpartition("digest=")[2])] = self.sizes.get(path, 0) + len(body)
            self.answer(201)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_what_is_pushed_is_one_docker_manifest() -> None:
    """The service has refused OCI media types, and an index with attestations is no image to it."""
    with http_server(Registry) as port:
        name = f"127.0.0.1:{port}/byoc-serve:{TAG}"
        engine.docker("tag", engine.image("serve"), name)
        try:
            engine.docker("push", name, timeout=600)
        finally:
            engine.docker("rmi", name)
    docker = "application/vnd.docker"
    [(kind, manifest)] = Registry.manifests
    assert kind == manifest["mediaType"] == f"{docker}.distribution.manifest.v2+json"
    text = json.dumps(manifest)
    kinds = set(re.findall(r'"mediaType": "([^"]*)"', text)) - {kind}
    assert kinds == {f"{docker}.container.image.v1+json", f"{docker}.image.rootfs.diff.tar.gzip"}


PROGRAM = """
import json
import torch

def model_fn(model_dir):
    return torch.nn.Identity()

def input_fn(body, content_type):
    return torch.tensor([float(len(body))])

def predict_fn(data, model):
    return model(data)

def output_fn(prediction, accept):
    return json.dumps({"bytes": prediction.item(), "torch": torch.__version__, "cuda": torch.version.cuda}), accept
"""


def test_the_torch_target_runs_a_users_program(tmp_path: Path) -> None:
    image = engine.image("serve-torch")
    assert "BYOC_TARGET=serve-torch" in engine.inspect(image)["Config"]["Env"]
    model = write_model(tmp_path / "model")
    (model / "code").mkdir()
    (model / "code" / "inference.py").write_text(PROGRAM)
    port = free_port()
    volume = ("--volume", f"{model}:/opt/ml/model:ro")
    with engine.container(image, "serve", options=("--publish", f"127.0.0.1:{port}:8080", *volume)) as identifier:
        wait_until_ready(identifier, port)
        body = picture("red")
        status, answer = get(port, "/invocations", body)
        assert status == 200, engine.logs(identifier)
        assert json.loads(answer) == {"bytes": len(body), "torch": "2.13.0+cpu", "cuda": None}

    refused = engine.run(engine.image("serve"), "serve", options=volume, check=False)
    assert refused.returncode != 0
    assert "serve-torch" in refused.stdout + refused.stderr
