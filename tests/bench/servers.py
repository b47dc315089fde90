"""The servers that bench_serving compares: their artifact, how each is started, and their pictures."""

import base64
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import skimage
from PIL import Image

from container_serve import artifact, resources
from tests.bench import load
from tests.docker import engine

ROOT = Path(__file__).resolve().parents[2]
PEERS = Path(__file__).parent / "peers"
SMALL, LARGE = "500x375", "12 MP"
SIZES = {SMALL: (500, 375), LARGE: (4000, 3000)}
START_SECONDS = 240


@dataclass
class Server:
    """A running server, and how long it took to answer."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    start_seconds: float

    def load(self, images: Sequence[bytes], connections: int, seconds: float) -> load.Load:
        """Send the images as this server takes them."""
        if self.name != "litserve":
            return load.run(self.port, images, connections, seconds)
        bodies = [json.dumps({"image": base64.b64encode(image).decode()}).encode() for image in images]
        return load.run(self.port, bodies, connections, seconds, content_type="application/json")

    def memory(self) -> float:
        """MB of the process and all below it; what they share is counted once."""
        total = 0
        for process in family(self.process.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total / 1e6


def family(pid: int) -> list[psutil.Process]:
    """The process, all below it, and those of its session, where some go that are started in the background."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == pid:
                found[process.pid] = process
    with contextlib.suppress(psutil.NoSuchProcess):
        main = psutil.Process(pid)
        found |= {process.pid: process for process in (main, *main.children(recursive=True))}
    return list(found.values())


def pictures() -> dict[str, list[bytes]]:
    """JPEGs of photographs at the sizes that are measured."""
    names = ("coffee.png", "chelsea.png", "rocket.jpg", "astronaut.png")
    result: dict[str, list[bytes]] = {}
    for kind, size in SIZES.items():
        result[kind] = []
        for name in names:
            with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
                buffer = io.BytesIO()
                image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=88)
            result[kind].append(buffer.getvalue())
    return result


def prepare(folder: Path, given: Path | None) -> Path:
    """The artifact, int8 with model.pth beside it, and in `folder` what the peers serve: the same network."""
    import numpy as np
    import torch
    import torchvision

    from container_train.data.files import Files, Split
    from container_train.export import exporter, quantize
    from container_train.model import builder

    made = given
    if made is None:
        network = torchvision.models.resnet50(num_classes=120).eval()
        for norm in (module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)):
            # As after training: with equal ones ONNX's exporter shares them, and ONNX Runtime then quantises less.
            torch.nn.init.uniform_(norm.bias, -0.1, 0.1)
            assert norm.running_mean is not None
            torch.nn.init.uniform_(norm.running_mean, -0.1, 0.1)
        exported = exporter.export(
            network, folder / "artifact", arch="resnet50", classes=tuple(f"class {i}" for i in range(120)),
            preprocessing=builder.preprocessing_of("resnet50", 0, 0), details={},
        )  # fmt: skip
        names = [f"{index}.jpg" for index in range(len(pictures()[SMALL]))]
        for name, body in zip(names, pictures()[SMALL], strict=True):
            (folder / name).write_bytes(body)
        shutil.copytree(exported.directory, folder / "fp32")
        split = Split("train", Files(folder, names), np.arange(len(names)))
        made = quantize.choose(exported, {"valid": split}, precision="int8", train=split).artifact.directory
    found = artifact.read(made)
    if found.precision != "int8":
        sys.exit(f"bench_serving: {made} is {found.precision}, not int8")
    network = torchvision.models.resnet50(num_classes=len(found.classes)).eval()
    network.load_state_dict(torch.load(made / artifact.WEIGHTS, weights_only=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # dynamo=False: the newer exporter needs a package more.
        torch.onnx.export(
            network, (torch.zeros(1, 3, 224, 224),), str(folder / "model.onnx"), input_names=["picture"], dynamo=False
        )
    (folder / "model" / "code").mkdir(parents=True)
    shutil.copy(made / artifact.WEIGHTS, folder / "model" / "model.pth")
    shutil.copy(PEERS / "inference.py", folder / "model" / "code")
    return made


def commands(
    made: Path, folder: Path, ports: dict[str, int], by_hand: Path | None = None
) -> dict[str, tuple[list[str], dict[str, str]]]:
    """The command that starts each server. `by_hand`: the Python of an environment with the int8 peers' packages."""
    from container_serve.supervisor.configuration import java

    int8 = {
        "PYTHONPATH": str(ROOT),
        "GRAPH": str(made / artifact.GRAPH),
        "THREADS": str(min(resources.THREADS, resources.cpu_count())),
    }
    peers = {} if by_hand is None else {
        "openvino": (
            [str(by_hand), "-m", "uvicorn", "tests.bench.peers.openvino_app:app", "--workers", "2",
             "--port", str(ports["openvino"]), "--log-level", "error"],
            int8,
        ),
        "litserve": (
            [str(by_hand), "-m", "tests.bench.peers.litserve_app"], {"PORT": str(ports["litserve"]), **int8}
        ),
    }  # fmt: skip
    tools = os.pathsep.join([str(Path(java()).parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {
        "ours": (
            [sys.executable, "-m", "container_serve", "--model-dir", str(made), "--port", str(ports["ours"])],
            {"PYTHONPATH": str(ROOT)},
        ),
        "mms": (
            [sys.executable, str(PEERS / "mms_start.py")],
            {
                "SAGEMAKER_BASE_DIR": str(folder), "SAGEMAKER_BIND_TO_PORT": str(ports["mms"]),
                "SAGEMAKER_PROGRAM": "inference.py", "PATH": tools,
            },
        ),
        "fastapi": (
            [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--app-dir", str(PEERS),
             "--port", str(ports["fastapi"]), "--log-level", "error"],
            {"ONNX_MODEL": str(folder / "model.onnx")},
        ),
        **peers,
    }  # fmt: skip


@contextlib.contextmanager
def in_image(made: Path, port: int) -> Iterator[tuple[list[str], dict[str, str]] | None]:
    """The command that starts the serving image of this very tree, where there is one; what it started is removed."""
    tagged = engine.tagged("serve") if engine.available() else []
    if not tagged:
        yield None
        return
    container = f"byoc-bench-{port}"
    command = ["docker", "run", "--rm", "--name", container, "--publish", f"127.0.0.1:{port}:8080"]
    try:
        yield [*command, "--volume", f"{made}:/opt/ml/model:ro", tagged[0], "serve"], {}
    finally:
        engine.docker("rm", "--force", container, check=False)


@contextlib.contextmanager
def serving(
    name: str, command: list[str], env: dict[str, str], port: int, folder: Path, body: bytes
) -> Iterator[Server]:
    own = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/tmp"))
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SAGEMAKER_", "BYOC_", "MMS_"))}
    begun = time.monotonic()
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**clean, "TMPDIR": str(own), **env}, cwd=own, stdout=log, stderr=log, start_new_session=True
        )
    try:
        server = Server(name, port, process, 0.0)
        while 200 not in server.load([body], 1, 0.01).statuses:
            if process.poll() is not None or time.monotonic() - begun > START_SECONDS:
                sys.exit(f"bench_serving: {name} did not start: {(folder / f'{name}.log').read_text()[-2000:]}")
        server.start_seconds = time.monotonic() - begun
        yield server
    finally:
        for member in family(process.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        shutil.rmtree(own, ignore_errors=True)


def free_ports(names: list[str]) -> dict[str, int]:
    ports: dict[str, int] = {}
    candidate = 21000 + os.getpid() % 5000
    for name in names:
        while True:
            candidate += 1
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", candidate)) != 0:
                    break
        ports[name] = candidate
    return ports
