"""A real registry (Debian's docker-registry, with a password) in the place of ECR's, moto for what is asked of ECR."""

import base64
import contextlib
import hashlib
import json
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.client
import requests

from tests.cloud.conftest import ACCOUNT, REGION
from tests.conftest import Patch, need
from tests.contract.serving import free_port

USER = "AWS"
OK = SimpleNamespace(status_code=200)
ECR_HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"


class Server:
    """docker-registry on a port of its own; it can be killed and started again over the same files."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("docker-registry")
        need(program and shutil.which("htpasswd"), "docker-registry and htpasswd")
        assert program
        self.password = secrets.token_hex(24)
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.log = folder / "registry.log"
        users, config = folder / "htpasswd", folder / "registry.yml"
        # Cost 5: every request is checked, and the default takes longer than all the rest.
        made = subprocess.run(
            ["htpasswd", "-iBnC", "5", USER], input=self.password, capture_output=True, text=True, check=True
        )
        users.write_text(made.stdout)
        settings = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
            "http": {"addr": self.host},
            "auth": {"htpasswd": {"realm": "test", "path": str(users)}},
        }
        config.write_text(json.dumps(settings))
        self._command = [program, "serve", str(config)]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        url = path if path.startswith("http") else f"http://{self.host}/v2/{path}"
        return requests.request(method, url, auth=(USER, self.password), timeout=20, **options)

    def manifest(self, repository: str, tag: str) -> dict[str, Any]:
        accepted = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
        answer = self.request("GET", f"{repository}/manifests/{tag}", headers=accepted)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def put_blob(self, repository: str, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        place = self.request("POST", f"{repository}/blobs/uploads/").headers["Location"]
        self.request("PUT", place, params={"digest": digest}, data=content).raise_for_status()
        return digest

    def put_manifest(self, repository: str, tag: str, manifest: Mapping[str, Any]) -> str:
        content = json.dumps(manifest).encode()
        headers = {"Content-Type": manifest["mediaType"]}
        self.request("PUT", f"{repository}/manifests/{tag}", data=content, headers=headers).raise_for_status()
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    def tags(self, repository: str) -> list[str]:
        found: list[str] = self.request("GET", f"{repository}/tags/list").json().get("tags") or []
        return found

    def uploads(self) -> int:
        """Blobs and manifests that clients have sent."""
        return self.log.read_text().count('"PUT ')


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    running = Server(folder)
    try:
        yield running
    finally:
        running.kill()


class Gate:
    """A way to the registry that lets `limit` bytes of a push through, and no more until it is opened."""

    def __init__(self, port: int, limit: int) -> None:
        self.limit = limit
        self.reached = threading.Event()
        self.opened = threading.Event()
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self._passed = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.opened.set()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    registry = socket.create_connection(("127.0.0.1", self._target), 20)
                except OSError:
                    client.close()
                    continue
                for source, sink, counted in ((client, registry, True), (registry, client, False)):
                    threading.Thread(target=self._pass, args=(source, sink, counted), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if counted and not self.opened.is_set():
                    self._passed += len(data)
                    if self._passed > self.limit:
                        self.reached.set()
                        self.opened.wait(60)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class StandIn:
    """ECR: what moto answers, with the addresses of a real registry; images are read from that registry."""

    def __init__(self, registry: Server, host: str) -> None:
        self.registry = registry
        self.host = host

    def uri(self, printed: str) -> str:
        """The address that ECR would have given it."""
        return printed.replace(self.host, ECR_HOST)

    def answer(self, operation: str, request: Mapping[str, Any], ask_moto: Callable[[], Any]) -> Any:
        """(HTTP answer, parsed answer), as botocore's clients make them."""
        if operation == "GetAuthorizationToken":
            token = base64.b64encode(f"{USER}:{self.registry.password}".encode()).decode()
            return OK, {"authorizationData": [{"authorizationToken": token, "proxyEndpoint": f"https://{ECR_HOST}"}]}
        if operation == "BatchGetImage":
            return OK, self._images(request)
        if operation == "GetDownloadUrlForLayer":
            place = f"{USER}:{self.registry.password}@{self.registry.host}"
            return OK, {"downloadUrl": f"http://{place}/v2/{request['repositoryName']}/blobs/{request['layerDigest']}"}
        http, answer = ask_moto()
        for repository in [answer.get("repository"), *answer.get("repositories", [])]:
            if repository:
                repository["repositoryUri"] = repository["repositoryUri"].replace(ECR_HOST, self.host)
        return http, answer

    def _images(self, request: Mapping[str, Any]) -> dict[str, Any]:
        images = []
        for wanted in request["imageIds"]:
            reference = wanted.get("imageDigest") or wanted["imageTag"]
            accepted = {"Accept": ", ".join(request["acceptedMediaTypes"])}
            path = f"{request['repositoryName']}/manifests/{reference}"
            answer = self.registry.request("GET", path, headers=accepted)
            if answer.ok:
                digest = answer.headers["Docker-Content-Digest"]
                images.append({"imageId": {"imageDigest": digest}, "imageManifest": answer.text})
        return {"images": images, "failures": []}


def install(monkeypatch: Patch, stand_in: StandIn) -> None:
    """Every ECR client of this process speaks to the stand-in."""
    original = botocore.client.BaseClient._make_request

    def make(client: Any, operation: Any, request: dict[str, Any], context: Any) -> Any:
        if client.meta.service_model.service_name != "ecr":
            return original(client, operation, request, context)
        return stand_in.answer(
            operation.name, json.loads(request["body"]), lambda: original(client, operation, request, context)
        )

    monkeypatch.setattr(botocore.client.BaseClient, "_make_request", make)


def logged_in(folder: Path, host: str, user: str, password: str) -> Path:
    """A folder as `docker login` leaves it."""
    folder.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return folder
