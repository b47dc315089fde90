"""docker/versions: an image with a part that is too old is not built. The check itself needs no Docker."""

import importlib.util
import json
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from container_serve.supervisor import configuration
from tests.docker import engine

FOLDER = engine.ROOT / "docker" / "versions"
NETTY = {"java": {"netty": {"group": "io.netty", "classes": "io/netty/", "lowest": "4.2.18", "reason": "CVE-1"}}}
JAVA = {"runtime": {"java": {"lowest": "17.0.21", "reason": "old"}}}


def load() -> Any:
    spec = importlib.util.spec_from_file_location("check", FOLDER / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = load()


def jar(folder: Path, name: str, version: str | None) -> Path:
    """A jar with a class of netty; with what states its version, unless that is None."""
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("io/netty/util/Version.class", b"")
        if version is not None:
            archive.writestr("META-INF/maven/io.netty/netty-common/pom.properties", f"version={version}\n")
    return path


@pytest.mark.parametrize("version", ["4.2.18.Final", "4.2.19.Final", "4.10.0.Final", "5.0"])
def test_a_version_that_is_high_enough_passes(version: str, tmp_path: Path) -> None:
    assert check.wrong(NETTY, [jar(tmp_path, "a.jar", version)], tmp_path) == []


@pytest.mark.parametrize("version", ["4.2.17.Final", "4.2", "4.1.138.Final"])
def test_a_lower_one_is_a_line_that_says_package_and_versions(version: str, tmp_path: Path) -> None:
    jars = [jar(tmp_path, "a.jar", "4.2.18.Final"), jar(tmp_path, "b.jar", version)]
    assert check.wrong(NETTY, jars, tmp_path) == [f"netty in b.jar: version {version}, lowest good 4.2.18 (CVE-1)"]


def test_classes_of_an_unknown_version_and_none_at_all_fail(tmp_path: Path) -> None:
    assert "netty in a.jar: version unknown" in check.wrong(NETTY, [jar(tmp_path, "a.jar", None)], tmp_path)[0]
    assert check.wrong(NETTY, [], tmp_path)[0].startswith("netty: version unknown")


def test_the_runtime_is_the_one_whose_release_file_is_there(tmp_path: Path) -> None:
    release = tmp_path / "release"
    assert "version unknown" in check.wrong(JAVA, [], release)[0]
    release.write_text('JAVA_VERSION="17.0.9"\n')
    assert check.wrong(JAVA, [], release) == [f"java in {tmp_path}: version 17.0.9, lowest good 17.0.21 (old)"]
    release.write_text('IMPLEMENTOR="x"\nJAVA_VERSION="17.0.21.1"\n')
    assert check.wrong(JAVA, [], release) == []


def test_python_packages_are_those_that_are_installed(tmp_path: Path) -> None:
    table = {"python": {name: {"lowest": "9999", "reason": "r"} for name in ("numpy", "no-such-package")}}
    lines = check.wrong(table, [], tmp_path)
    assert lines[0].startswith("numpy: version 2.")
    assert lines[1] == "no-such-package: version unknown, lowest good 9999 (r)"


def test_multi_model_servers_own_libraries_are_found_too_old(tmp_path: Path) -> None:
    table = tomllib.loads((FOLDER / "lowest.toml").read_text())
    lines = check.wrong({"java": table["java"]}, [configuration.model_server_jar()], tmp_path)
    assert [line.split(":")[0] for line in lines] == ["netty in model-server.jar", "log4j in model-server.jar"]


def test_each_entry_gives_a_version_and_a_reason() -> None:
    table = tomllib.loads((FOLDER / "lowest.toml").read_text())
    for kind in ("java", "runtime", "python"):
        for name, rule in table[kind].items():
            assert check.numbers(rule["lowest"]), name
            assert len(rule["reason"]) > 10, name
    assert {"netty", "log4j"} <= set(table["java"])
    assert {"pillow", "openvino", "multi-model-server", "numpy", "sagemaker-inference"} <= set(table["python"])


# Starts the front end and lists where Java took some classes from.
LOADED = """
import http.client, json, os, re, subprocess, tempfile, time
from pathlib import Path
from container_serve.supervisor import configuration
from container_serve.resources import Share, memory
from container_serve.settings import Settings
with tempfile.TemporaryDirectory() as folder:
    run, share, divided = Path(folder), Share(1, 1, 1), memory(1, 0, 1, 1)
    settings = Settings.read({"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_BIND_TO_PORT": "20001"})
    configuration.write(run, settings, share, divided)
    command = [one for one in configuration.command(run, settings, divided) if one != "-Xlog:disable"]
    command.insert(1, f"-Xlog:class+load:file={run}/loaded")
    env = configuration.environment(os.environ, run, settings, share, 1)
    java = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=env)
    while java.poll() is None:
        try:
            http.client.HTTPConnection("127.0.0.1", settings.port).connect()
        except OSError:
            time.sleep(0.05)
        else:
            break
    java.kill()
    java.wait()
    loaded = (run / "loaded").read_text()
found = re.findall(r"((?:io.netty|org.apache.logging)\\S+) source: (?:shared objects file|file:(\\S+))", loaded)
print(json.dumps(found))
"""


@pytest.mark.docker
@pytest.mark.parametrize("options", [(), ("--env", "JAVA_TOOL_OPTIONS=-Xshare:off")], ids=["archive", "jars"])
def test_the_image_loads_the_new_netty_with_native_epoll_and_the_new_log4j(options: tuple[str, ...]) -> None:
    done = engine.run(engine.image("serve"), "python", "-c", LOADED, options=options)
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    assert {"io.netty.channel.epoll.EpollServerSocketChannel", "org.apache.logging.log4j.core.LoggerContext"} <= set(
        found
    )
    assert "io.netty.channel.nio.NioEventLoop" not in found
    jars = {Path(jar).name for jar in found.values() if jar}
    if options:
        assert {"netty-transport-classes-epoll-4.2.18.Final.jar", "log4j-core-2.26.1.jar"} <= jars
    assert all(jar.startswith(("netty-", "log4j-")) for jar in jars), jars


@pytest.mark.docker
def test_the_check_in_the_image_fails_for_a_higher_bar(tmp_path: Path) -> None:
    for file in FOLDER.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    options = ("--volume", f"{tmp_path}:/mnt:ro")
    assert engine.run(engine.image("serve"), "python", "/mnt/check.py", options=options).returncode == 0
    table = tmp_path / "lowest.toml"
    table.write_text(table.read_text().replace('lowest = "4.2.18"', 'lowest = "4.2.19"'))
    done = engine.run(engine.image("serve"), "python", "/mnt/check.py", options=options, check=False)
    assert done.returncode == 1
    assert all(line.startswith("netty in ") and "version 4.2.18.Final" in line for line in done.stderr.splitlines())
