"""The Docker client: the images that it knows, and pushing one of them."""

import contextlib
import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from scripts.aws.errors import CloudError, one_line
from scripts.console.command import progress
from scripts.images.distribution import Broken, Denied

ANSWER_SECONDS = 120.0
LOG_EVERY = 30.0  # seconds between two lines on a push, where standard error is no terminal

# (what Docker says, what to do). `{host}` is the registry; whatever is not here may go well when it is tried again.
_FINAL = (
    (r"immutable", "another push was faster: give another --tag"),
    (r"no space left", "the disk of the engine or of the registry is full; `docker system prune` frees the engine's"),
    (r"Cannot connect to the Docker daemon|daemon running\?", "start Docker and call this again"),
    (r"HTTP response to HTTPS", 'list {host} in "insecure-registries" of the engine\'s daemon.json'),
    (r"x509|certificate", "put the registry's CA into /etc/docker/certs.d/{host}/ca.crt on the engine's machine"),
    (r"name unknown|[Nn]ame_?[Uu]nknown|[Rr]epository .* (not found|does not exist)", "make the repository first"),
    (r"invalid reference|No such image|does not exist locally", "check the registry's name and --tag"),
)
_DENIED = r"denied|[Ff]orbidden|\b403\b|unauthorized|\b401\b|authentication required|no basic auth|incorrect username"


@dataclass(frozen=True)
class LocalImage:
    """`id` is the digest of the image's configuration or, in containerd's store, of its manifest."""

    name: str
    id: str
    platform: str  # linux/amd64
    bytes: int
    layers: int
    labels: Mapping[str, str]
    media_type: str | None  # of the manifest, where the engine knows it before a push


class Docker:
    """A client whose daemon answers."""

    def __init__(self, program: str) -> None:
        self.program = program

    @classmethod
    def find(cls) -> "Docker":
        """The first client on PATH that its daemon answers: old daemons turn newer clients away. Raises CloudError."""
        programs = [found for folder in os.get_exec_path() if (found := shutil.which("docker", path=folder))]
        if not programs:
            raise CloudError("no docker client on PATH: install Docker")
        reason = ""
        for program in dict.fromkeys(programs):
            docker = cls(program)
            try:
                done = docker.call("version", "--format", "{{.Server.Version}}")
            except CloudError as error:
                reason = reason or str(error)
                continue
            if done.returncode == 0:
                return docker
            reason = reason or one_line(done.stderr)
        raise CloudError(f"no Docker daemon answers: start Docker and call this again ({reason})")

    def call(self, *arguments: str, seconds: float = 0.0) -> "subprocess.CompletedProcess[str]":
        """For what the engine answers at once, or at the latest after `seconds`."""
        limit = seconds + ANSWER_SECONDS
        try:
            return subprocess.run([self.program, *arguments], capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            raise CloudError(f"docker {arguments[0]} gives no answer within {limit:g} s: restart Docker") from None

    def inspect(self, name: str) -> LocalImage | None:
        """None where there is no image of this name."""
        done = self.call("image", "inspect", name)
        if done.returncode != 0:
            if "no such image" in done.stderr.lower():
                return None
            raise explain(done.stderr, "the engine")
        found = json.loads(done.stdout)[0]
        return LocalImage(
            name=name,
            id=found["Id"],
            platform=f"{found.get('Os')}/{found.get('Architecture')}",
            bytes=found.get("Size", 0),
            layers=len(set((found.get("RootFS") or {}).get("Layers") or [])),
            labels=(found.get("Config") or {}).get("Labels") or {},
            media_type=(found.get("Descriptor") or {}).get("mediaType"),
        )

    def allows_insecure(self, host: str) -> bool:
        """Whether the engine speaks to this registry without TLS, or without checking its certificate."""
        done = self.call("info", "--format", "{{json .RegistryConfig}}")
        try:
            config: dict[str, Any] = json.loads(done.stdout) or {}
        except ValueError:
            return False
        entry = config.get("IndexConfigs", {}).get(host)
        if entry is not None:
            return not entry.get("Secure", True)
        try:
            addresses = {item[4][0] for item in socket.getaddrinfo(re.sub(r":\d+$", "", host), None)}
        except OSError:
            return False
        networks = [ipaddress.ip_network(text) for text in config.get("InsecureRegistryCIDRs") or []]
        return any(ipaddress.ip_address(address) in network for address in addresses for network in networks)

    def push(self, image: LocalImage, reference: str, environment: Mapping[str, str]) -> None:
        """Name the image `reference` and push it; its progress goes to standard error.

        Layers that are there are not sent again. Raises Denied, Broken (worth another try) or CloudError.
        """
        host = reference.split("/")[0]
        tagged = self.call("tag", image.name, reference)
        if tagged.returncode != 0:
            raise explain(tagged.stderr, host)
        code, said = self._transfer("push", reference, environment, image)
        if code != 0:
            raise explain(said or f"docker push ended with {code}", host)

    def pull(self, reference: str) -> str | None:
        """Fetch an image, however long it takes, with its progress on a terminal; the reason why it cannot be had."""
        code, said = self._transfer("pull", reference, os.environ)
        return None if code == 0 else one_line(said) or f"docker pull ended with {code}"

    def _transfer(
        self, verb: str, reference: str, environment: Mapping[str, str], image: LocalImage | None = None
    ) -> tuple[int, str]:
        """Exit code and standard error of a push or pull; of `image`, what has arrived is said now and then."""
        terminal = sys.stderr.isatty()
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [self.program, verb, reference],
                env={**environment, "DOCKER_CLI_HINTS": "false"},
                stdin=subprocess.DEVNULL,
                # On a terminal Docker draws its own bars; standard output is for results.
                stdout=sys.stderr if terminal else subprocess.PIPE,
                stderr=errors,
            )
            try:
                if process.stdout is not None:
                    _log(process.stdout, reference, image)
                code = process.wait()
            finally:
                _end(process)
            errors.seek(0)
            return code, errors.read().decode(errors="replace")


def compose() -> list[str] | None:
    """The command of Docker Compose on this machine, as a plugin or as a program; None where there is none."""
    for command in (["docker", "compose"], ["docker-compose"]):
        with contextlib.suppress(OSError):
            if subprocess.run([*command, "version"], capture_output=True).returncode == 0:
                return command
    return None


def explain(said: str, host: str) -> CloudError:
    """The one line for what the client printed."""
    text = one_line(said)
    if re.search(r"token has expired", text):
        return Broken(text)
    for pattern, remedy in _FINAL:
        if re.search(pattern, text):
            return CloudError(f"{text}: {remedy.format(host=host)}")
    return Denied(text) if re.search(_DENIED, text) else Broken(text)


def _log(output: IO[bytes], reference: str, image: LocalImage | None) -> None:
    """A line now and then, until the process has closed its output."""
    done: set[bytes] = set()

    def read() -> None:
        for line in output:
            layer, _, state = line.strip().partition(b": ")
            if state.startswith((b"Pushed", b"Layer already exists", b"Mounted from", b"Pull complete")):
                done.add(layer)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    while reader.is_alive():
        reader.join(LOG_EVERY)
        if reader.is_alive():
            of, name = (f" of {image.layers}", image.name) if image else ("", reference)
            progress(f"{name}: {len(done)}{of} layers are there")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """However the wait for it ended: an abandoned client would go on pushing."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def sizes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{max(number / 1e6, 0.1):.1f} MB"
