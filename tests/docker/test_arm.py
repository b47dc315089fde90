"""The serving image for ARM, where one was built: natively, or on a machine that emulates ARM."""

import json
from pathlib import Path

import pytest

from tests.contract.models import picture, write_model
from tests.contract.serving import Contained, running, until
from tests.docker import engine

pytestmark = [pytest.mark.docker, pytest.mark.full]


@pytest.mark.timeout(1200)
def test_the_image_for_arm_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = (f"label=byoc.content={engine.content('serve')}", "label=byoc.architecture=arm64")
    filters = [word for label in labels for word in ("--filter", label)]
    found = engine.docker("images", *filters, "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    if not found:
        # Not need(): few machines can build it.
        pytest.skip("needs the image that scripts/build.sh serve --platform linux/arm64 builds")
    machine = engine.run(found[0], "uname", "-m", options=("--platform", "linux/arm64")).stdout.strip()
    assert machine == "aarch64"
    monkeypatch.setattr(engine, "image", lambda name: found[0])
    server = Contained(write_model(tmp_path / "model"), tmp_path / "run", {}, ["--platform", "linux/arm64"], 21877)
    with running(server, ready=False):
        until(lambda: server.ping() == 200, "ready", 120)
        for colour in ("red", "green", "blue"):
            answer = server.invoke(picture(colour))
            assert answer.status == 200, answer.body
            assert json.loads(answer.body)["predictions"][0]["label"] == colour
