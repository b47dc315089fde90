"""The content of the images."""

import hashlib
import re

import pytest

from container_serve import __version__
from tests.conftest import need
from tests.docker import engine

pytestmark = pytest.mark.docker
BOTH = ("train", "serve")


def find_files(*names: str) -> list[str]:
    """A command that lists the image's files and folders of these names."""
    any_of = [word for name in names for word in ("-o", "-iname", name)][1:]
    return ["find", "/", "-xdev", "(", *any_of, ")"]


@pytest.mark.parametrize("name", BOTH)
def test_the_image_says_what_it_is(name: str) -> None:
    description = engine.inspect(engine.image(name))
    labels = description["Config"]["Labels"]
    assert (description["Os"], description["Architecture"]) == ("linux", engine.native())
    assert labels["byoc.architecture"] == engine.native()
    assert labels["org.opencontainers.image.title"] == f"byoc-{name}"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert re.fullmatch(r"https://[^@\s]+|unknown", labels["org.opencontainers.image.source"])
    assert re.fullmatch(r"[0-9a-f]{40}(-changed)?|unknown", labels["org.opencontainers.image.revision"])
    assert description["Config"]["Cmd"] == [name]
    assert not description["Config"]["Entrypoint"]
    assert f"BYOC_TARGET={name}" in description["Config"]["Env"]


@pytest.mark.parametrize("name", BOTH)
def test_the_image_holds_its_licence(name: str) -> None:
    licence = engine.run(engine.image(name), "cat", "/opt/program/LICENSE").stdout
    assert licence == (engine.ROOT / "LICENSE").read_text()


def test_the_serving_image_announces_its_capabilities() -> None:
    config = engine.inspect(engine.image("serve"))["Config"]
    for capability in ("accept-bind-to-port", "multi-models"):
        assert config["Labels"][f"com.amazonaws.sagemaker.capabilities.{capability}"] == "true"
    assert "8080/tcp" in config["ExposedPorts"]


@pytest.mark.parametrize("name", BOTH)
def test_no_build_tools(name: str) -> None:
    tools = "gcc cc g++ make javac mvn uv git"
    look = f"for tool in {tools}; do command -v $tool; done; ls -d /opt/uv /tmp/build /root/.cache"
    found = engine.run(engine.image(name), "sh", "-c", look, check=False)
    assert found.stdout == ""


def test_no_cuda_and_no_torch_in_the_serving_image() -> None:
    names = ("libcuda*", "libcudart*", "libcudnn*", "libcublas*", "libnccl*", "nvidia*", "libtorch*", "torch-*")
    assert engine.run(engine.image("serve"), *find_files(*names)).stdout == ""


def test_cuda_libraries_are_found_by_the_same_look_in_the_training_image() -> None:
    assert engine.run(engine.image("train"), *find_files("libcudart*", "torch-*")).stdout


@pytest.mark.parametrize("name", BOTH)
def test_everything_belongs_to_root_and_only_root_may_write(name: str) -> None:
    look = "find /opt /usr/local/bin ! -type l \\( ! -user root -o ! -group root -o -perm -o+w \\)"
    assert engine.run(engine.image(name), "sh", "-c", look).stdout == ""


@pytest.mark.parametrize("name", BOTH)
def test_the_packages_fit_together(name: str) -> None:
    uv = engine.ROOT / ".venv" / "bin" / "uv"
    need(uv.is_file(), "uv in .venv")
    options = ("--volume", f"{uv}:/usr/bin/uv:ro")
    engine.run(
        engine.image(name), "/usr/bin/uv", "pip", "check", "--no-cache", "--python", "/opt/venv", options=options
    )


def test_the_training_image_imports_its_stack() -> None:
    modules = "torch, torchvision, timm, smdebug.pytorch, sagemaker_training, openvino, bokeh, nncf"
    program = f"import {modules}, container_train.export; print(torch.__version__)"
    assert engine.run(engine.image("train"), "python", "-c", program).stdout.splitlines()[-1].startswith("2.13.0")


def test_the_front_end_in_the_image_is_the_one_in_the_repository() -> None:
    path = "container_serve/frontend/frontend.jar"
    there = engine.run(engine.image("serve"), "sha256sum", f"/opt/program/{path}").stdout.split()[0]
    assert there == hashlib.sha256((engine.ROOT / path).read_bytes()).hexdigest()


@pytest.mark.parametrize("name", BOTH)
def test_the_program_is_compiled_and_has_no_leftovers(name: str) -> None:
    look = "cd /opt/program && ls && find . -name '*.pyc' | wc -l && find . -name '*.py' | wc -l"
    *folders, compiled, sources = engine.run(engine.image(name), "sh", "-c", look).stdout.split()
    assert folders == ["LICENSE", "container_serve", *(["container_train"] if name == "train" else [])]
    assert compiled == sources != "0"


@pytest.mark.parametrize(("name", "budget"), [("train", 5000), ("serve", 285)])
def test_what_an_image_adds_to_its_base_stays_within_its_budget(name: str, budget: int) -> None:
    """In MB; the first of our layers copies install_python.sh."""
    layout = "{{.Size}} {{.CreatedBy}}"
    layers = engine.docker("history", "--no-trunc", "--human=false", "--format", layout, engine.image(name)).stdout
    ours, first, _ = layers.partition("COPY docker/install_python.sh")
    assert first
    assert sum(int(line.split()[0]) for line in ours.splitlines()) / 1e6 <= budget
