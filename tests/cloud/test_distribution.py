"""Reading a registry over HTTP: signing in as registries ask for it, and what goes wrong there."""

import base64
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from scripts.aws.errors import CloudError
from scripts.images.credentials import Credentials
from scripts.images.distribution import DOCKER_MANIFEST, Broken, Denied, Registry
from tests.cloud import stand_in
from tests.conftest import need

ANN = Credentials("ann", "secret")
CONFIG = json.dumps({"os": "linux", "architecture": "amd64"}).encode()
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": {"digest": "sha256:c"}}).encode()

# (status, headers, body) for a method, a path with its query, and the headers of a request.
Answer = tuple[int, Mapping[str, str], bytes]
Answering = Callable[[str, str, Mapping[str, str], bytes], Answer]


@contextmanager
def registry(answer: Answering, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, content = answer(self.command, self.path, dict(self.headers), body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def content(path: str) -> Answer:
    return (200, {}, CONFIG) if "/blobs/" in path else (200, {"Content-Type": DOCKER_MANIFEST}, MANIFEST)


def test_a_real_registry_with_a_password(tmp_path: Path) -> None:
    with stand_in.server(tmp_path) as server:
        config = server.put_blob("team/x", CONFIG)
        written = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "layers": []}
        entry = {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(CONFIG), "digest": config}
        digest = server.put_manifest("team/x", "one", {**written, "config": entry})
        registry = Registry(server.host, Credentials(stand_in.USER, server.password), insecure=True)
        found = registry.manifest("team/x", "one")
        assert found
        assert (found.media_type, found.digest, found.config, found.platform) == (
            DOCKER_MANIFEST,
            digest,
            config,
            "linux/amd64",
        )
        assert registry.manifest("team/x", digest) == found
        assert registry.manifest("team/x", "two") is None
        assert registry.manifest("team/y", "one") is None
        for wrong in (None, Credentials(stand_in.USER, "wrong")):
            with pytest.raises(Denied, match=r"denies reading team/x: authentication required"):
                Registry(server.host, wrong, insecure=True).manifest("team/x", "one")


@pytest.mark.parametrize("credentials", [ANN, Credentials("", "", "refresh-me"), None])
def test_a_registry_that_gives_tokens(credentials: Credentials | None) -> None:
    """As Docker Hub, GHCR and Harbor do: a token for each repository, for whoever is signed in, or for anybody."""
    asked: list[tuple[str, dict[str, list[str]], str]] = []

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if path.startswith("/token"):
            fields = parse_qs(body.decode() if method == "POST" else urlsplit(path).query)
            asked.append((method, fields, headers.get("Authorization", "")))
            return 200, {}, b'{"access_token": "t0"}'
        if headers.get("Authorization") != "Bearer t0":
            challenge = f'Bearer realm="http://{headers["Host"]}/token",service="here",scope="repository:x:pull"'
            return 401, {"WWW-Authenticate": challenge}, b""
        return content(path)

    with registry(answer) as host:
        found = Registry(host, credentials, insecure=True).manifest("x", "one")
    assert found
    assert found.platform == "linux/amd64"
    [(method, fields, authorization)] = asked
    assert (fields["service"], fields["scope"]) == (["here"], ["repository:x:pull"])
    if credentials == ANN:
        assert (method, authorization) == ("GET", f"Basic {base64.b64encode(b'ann:secret').decode()}")
    elif credentials:
        assert (method, authorization) == ("POST", "")
        assert (fields["grant_type"], fields["refresh_token"]) == (["refresh_token"], ["refresh-me"])
    else:
        assert (method, authorization) == ("GET", "")


def test_the_password_is_not_sent_on_to_where_blobs_lie() -> None:
    """ECR answers with a signed address in S3, which takes no second authorization."""
    seen: list[Mapping[str, str]] = []

    def bucket(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        seen.append(headers)
        return 200, {}, CONFIG

    with registry(bucket) as elsewhere:

        def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
            if "Authorization" not in headers:
                return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
            if "/blobs/" in path:
                return 307, {"Location": f"http://localhost:{elsewhere.partition(':')[2]}/signed"}, b""
            return content(path)

        with registry(answer) as host:
            found = Registry(host, ANN, insecure=True).manifest("x", "one")
    assert found
    assert found.platform == "linux/amd64"
    assert len(seen) == 1
    assert "Authorization" not in seen[0]


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (503, b"busy", Broken, "answers 503"),
        (429, b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "slow\\ndown"}]}', Broken, "answers 429: slow down"),
        (403, b'{"errors": [{"message": "not ann"}]}', Denied, "denies reading x: not ann"),
        (405, b"{}", CloudError, "answers 405"),
        (200, b"<html>", CloudError, "speaks no registry protocol"),
    ],
)
def test_answers_that_are_no_manifest(status: int, body: bytes, kind: type[CloudError], said: str) -> None:
    with registry(lambda *_: (status, {}, body)) as host, pytest.raises(CloudError) as caught:
        Registry(host, ANN, insecure=True).manifest("x", "one")
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nobody_listens() -> None:
    with registry(lambda *_: (200, {}, b"")) as host:
        pass
    for insecure in (False, True):
        with pytest.raises(Broken, match=f"{host} cannot be reached"):
            Registry(host, ANN, insecure).manifest("x", "one")


def test_a_certificate_that_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openssl = shutil.which("openssl")
    need(openssl, "openssl")
    assert openssl
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    made += ["-days", "2", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with registry(lambda method, path, *_: content(path), context) as host:
        for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(CloudError, match=r"is not trusted .* put its CA into /etc/docker/certs\.d/") as caught:
            Registry(host, ANN).manifest("x", "one")
        assert not isinstance(caught.value, Broken)
        # As Docker does with registries that it may speak to insecurely; and with a CA of one's own, securely.
        assert Registry(host, ANN, insecure=True).manifest("x", "one")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        assert Registry(host, ANN).manifest("x", "one")
