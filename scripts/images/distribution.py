"""What lies in an image registry, read over its HTTP protocol (OCI distribution specification, v2).

Docker's own `manifest inspect` is no help here: depending on its version it does not see OCI manifests, and it reports
a denied or a failed request as an image that is not there.
"""

import base64
import hashlib
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import urllib3

from scripts.aws.errors import CloudError, one_line
from scripts.images.credentials import HUB, Credentials

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
MANIFESTS = (DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX)
TIMEOUT = (10, 60)  # seconds: to connect, between two pieces of an answer


class Broken(CloudError):
    """It may go well when it is tried again."""


class Denied(CloudError):
    """The registry wants other credentials, or the same with more rights."""


@dataclass(frozen=True)
class Manifest:
    """`config` (a digest; in Docker's classic store the image's id) and `platform` are None for lists of manifests."""

    media_type: str
    digest: str
    config: str | None
    platform: str | None


class Registry:
    """`insecure`: plain HTTP, or a certificate that nobody vouches for, as Docker's `insecure-registries` allow."""

    def __init__(self, host: str, credentials: Credentials | None, insecure: bool = False) -> None:
        self.host = host
        self.credentials = credentials
        self.insecure = insecure
        self._session = requests.Session()
        # Otherwise a .netrc would stand in for missing credentials.
        self._session.auth = _NoAuthorization()
        self._session.verify = False if insecure else _certificates(host)
        self._base: str | None = None
        self._tokens: dict[str, str] = {}

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        """What a tag or digest names; None where there is no such repository or tag."""
        answer = self._get(repository, f"manifests/{reference}", {"Accept": ", ".join(MANIFESTS)})
        if answer is None:
            return None
        body = self._json(answer)
        media_type = body.get("mediaType") or answer.headers.get("Content-Type", "").split(";")[0]
        digest = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        config = body.get("config", {}).get("digest")
        if config is None:
            return Manifest(media_type, digest, None, None)
        description = self._get(repository, f"blobs/{config}", {})
        if description is None:
            raise CloudError(f"{self.host}/{repository}:{reference} lacks its configuration {config}: push it again")
        image = self._json(description)
        return Manifest(media_type, digest, config, f"{image.get('os')}/{image.get('architecture')}")

    def _get(self, repository: str, path: str, headers: dict[str, str]) -> requests.Response | None:
        url = f"{self._url()}/v2/{repository}/{path}"
        answer = self._send("GET", url, headers={**headers, **self._authorization(repository)})
        if answer.status_code == 401 and self._sign_in(repository, answer.headers.get("WWW-Authenticate", "")):
            answer = self._send("GET", url, headers={**headers, **self._authorization(repository)})
        if answer.status_code == 404:
            return None
        if answer.status_code in (401, 403):
            raise Denied(f"{self.host} denies reading {repository}: {_reason(answer)}")
        if answer.status_code == 429 or answer.status_code >= 500:
            raise Broken(f"{self.host} answers {answer.status_code}: {_reason(answer)}")
        if not answer.ok:
            raise CloudError(f"{self.host} answers {answer.status_code} to {url}: {_reason(answer)}")
        return answer

    def _url(self) -> str:
        if self._base is None:
            host = "registry-1.docker.io" if self.host == HUB else self.host
            self._base = f"https://{host}"
            if self.insecure:
                try:
                    self._send("GET", f"{self._base}/v2/")
                except CloudError:
                    self._base = f"http://{host}"
        return self._base

    def _authorization(self, repository: str) -> dict[str, str]:
        token = self._tokens.get(repository)
        return {"Authorization": token} if token else {}

    def _sign_in(self, repository: str, challenge: str) -> bool:
        """Answer the challenge of a 401; False where nothing more can be offered than was."""
        if repository in self._tokens:
            return False
        scheme, _, rest = challenge.partition(" ")
        known = self.credentials
        if scheme.lower() == "basic" and known and known.user:
            pair = base64.b64encode(f"{known.user}:{known.password}".encode()).decode()
            self._tokens[repository] = f"Basic {pair}"
            return True
        if scheme.lower() != "bearer":
            return False
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if "realm" not in fields:
            return False
        asked = {"service": fields.get("service", ""), "scope": f"repository:{repository}:pull"}
        if known and known.identity_token:
            form = {**asked, "grant_type": "refresh_token", "refresh_token": known.identity_token, "client_id": "byoc"}
            answer = self._send("POST", fields["realm"], data=form)
        else:
            login = (known.user, known.password) if known else None
            answer = self._send("GET", fields["realm"], params=asked, auth=login)
        if not answer.ok:
            raise Denied(f"{self.host} refuses the credentials: {_reason(answer)}")
        body = self._json(answer)
        self._tokens[repository] = f"Bearer {body.get('token') or body.get('access_token', '')}"
        return True

    def _send(self, method: str, url: str, **options: Any) -> requests.Response:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
                return self._session.request(method, url, timeout=TIMEOUT, **options)
        except requests.exceptions.SSLError as error:
            raise CloudError(
                f"the certificate of {self.host} is not trusted ({one_line(str(error))}): put its CA into"
                f" /etc/docker/certs.d/{self.host}/ca.crt, or name a bundle in AWS_CA_BUNDLE"
            ) from None
        except requests.exceptions.RequestException as error:
            # The innermost reason; around it stand addresses and retries that nobody asked for.
            reason = getattr(error.args[0], "reason", error) if error.args else error
            text = re.sub(r"^.*?(?:\)|>): ", "", one_line(str(reason)))
            raise Broken(f"{self.host} cannot be reached: {text}") from None

    def _json(self, answer: requests.Response) -> dict[str, Any]:
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise CloudError(f"{self.host} speaks no registry protocol: {answer.url} is no JSON object")
        return body


class _NoAuthorization(requests.auth.AuthBase):
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def _certificates(host: str) -> str | bool:
    """The CA bundle to trust: Docker's own for this registry, else the one that the environment names."""
    own = Path("/etc/docker/certs.d") / host / "ca.crt"
    if own.is_file():
        return str(own)
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        if Path(os.environ.get(name) or "/nonexistent").is_file():
            return os.environ[name]
    return True


def _reason(answer: requests.Response) -> str:
    """The registry's own words, short."""
    try:
        error = answer.json()["errors"][0]
        text = str(error.get("message") or error.get("code"))
    except (ValueError, LookupError, TypeError, AttributeError):
        text = answer.reason or answer.text
    return one_line(text)[:300]
