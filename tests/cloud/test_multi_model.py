"""Several models at one endpoint: a real server that holds two of three, predict.py --model in front of it."""

import contextlib
from pathlib import Path
from typing import Any

import psutil
import pytest
from boto3 import Session

from local_test import pack
from scripts import deploy, predict
from tests.cloud.conftest import BUCKET, SERVE_IMAGE, Call
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.platform import MultiModel
from tests.contract.models import picture, write_model
from tests.contract.serving import serving

MANY = f"s3://{BUCKET}/byoc/models"
CLASSES = {"english": ("red", "green", "blue"), "german": ("rot", "gruen", "blau"), "short": ("r", "g", "b")}


@pytest.mark.parametrize("kind", ["process", pytest.param("docker", marks=pytest.mark.docker)])
def test_models_are_loaded_and_unloaded_as_memory_allows(
    kind: str, aws: Session, flaky: FlakyAws, labels: dict[str, str], tmp_path: Path, call: Call
) -> None:
    for name, classes in CLASSES.items():
        archive = tmp_path / f"{name}.tar.gz"
        pack.pack(write_model(tmp_path / "made" / name, classes=classes), archive)
        assert call(deploy, "--multi-model", MANY, "--add", name, archive).code == 0
    ended = call(deploy, "--image", SERVE_IMAGE, "--multi-model", MANY, "--name", "byoc-many")
    ended.says(f"3 models below {MANY}: english, german, short")
    container = aws.client("sagemaker").describe_model(ModelName="byoc-many")["PrimaryContainer"]
    assert (container["Mode"], container["ModelDataUrl"]) == ("MultiModel", f"{MANY}/")

    folder = tmp_path / "unpacked"
    folder.mkdir()
    # Each worker may take 37 % of what is free to decode an image: two models fit, three do not.
    share = str(psutil.virtual_memory().available * 37 // 100)
    environment = {"SAGEMAKER_MULTI_MODEL": "true", "BYOC_PICTURE_BYTES": share}
    (tmp_path / "red.jpg").write_bytes(picture("red"))

    def asked(model: str, *where: str) -> str:
        ended = call(predict, *(where or ("byoc-many",)), tmp_path / "red.jpg", "--model", model, "--json")
        return str(ended.json["results"][0]["predictions"][0]["label"])

    with serving(folder, tmp_path / "run", environment, kind=kind) as server:
        service = MultiModel(aws, server, MANY, folder, "/opt/ml/model" if kind == "docker" else str(folder))
        flaky.runtime = service.invoke
        assert [asked(name) for name in CLASSES] == ["red", "rot", "r"]
        assert service.unloaded == ["english"]
        assert asked("german") == "rot"
        assert asked("english") == "red"
        assert service.unloaded == ["english", "short"]
        # Of a pipeline's containers, all other ports belong to the others.
        sockets: list[Any] = []
        for process in (server.root, *server.descendants()):
            with contextlib.suppress(psutil.NoSuchProcess):  # of a model that was unloaded
                sockets += process.net_connections("inet")
        assert {one.laddr.port for one in sockets if one.status == psutil.CONN_LISTEN} == {server.port}
        # The server itself takes the same names on this machine.
        assert asked("german", "--local", f"http://127.0.0.1:{server.port}") == "rot"
        # One that is removed is served from memory, one that was never there is not found.
        assert call(deploy, "--multi-model", MANY, "--remove", "english").code == 0
        assert asked("english") == "red"
        call(predict, "byoc-many", tmp_path / "red.jpg", "--model", "french").ends(1, "french.tar.gz")
        assert call(deploy, "--multi-model", MANY, "--add", "french", tmp_path / "short.tar.gz").code == 0
        assert asked("french") == "r"
