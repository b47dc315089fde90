"""Prepares Java's classes, so that the server starts in half the time: `python -m container_serve.frontend.archive`.

Writes frontend.jsa (25 MB) beside frontend.jar. It holds for this Java and these jars at these paths only, so it is
made where the server will run: in a step of the image's build. Without it, or with one that does not fit, the server
starts all the same.
"""

import argparse
import http.client
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from container_serve import configuration
from container_serve.resources import MIB, Memory, Share
from container_serve.settings import Settings

SECONDS = 60


def make(archive: Path) -> None:
    """List the classes that a server without a model needs until it answers, and archive them."""
    with tempfile.TemporaryDirectory() as folder:
        run, listed = Path(folder), Path(folder) / "classes.lst"
        settings = Settings.read({"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_BIND_TO_PORT": str(_free_port())})
        share, memory = Share(1, 1, 1), Memory(MIB, MIB, MIB, 128 * MIB, MIB)
        configuration.write(run, settings, share, memory)
        command = configuration.command(run, settings, memory)
        environment = configuration.environment(os.environ, run, share, 1)
        program, options = command[0], command[1:]
        java = subprocess.Popen(
            [program, f"-XX:DumpLoadedClassList={listed}", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment,
        )
        try:
            _wait(settings.port)
        finally:
            java.terminate()
            java.wait()
        dump = [program, "-Xshare:dump", f"-XX:SharedClassListFile={listed}", f"-XX:SharedArchiveFile={archive}"]
        dump += [option for option in options[: options.index("byoc.FrontEnd")] if "SharedArchiveFile" not in option]
        done = subprocess.run(dump, capture_output=True, text=True)
        if done.returncode != 0 or not archive.exists():
            raise SystemExit(f"Java made no archive: {done.stdout[-500:]}{done.stderr[-500:]}")


def _wait(port: int) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/ping")
            connection.getresponse().read()
        except OSError:
            time.sleep(0.05)
        else:
            return
        finally:
            connection.close()
    raise SystemExit(f"the front end did not answer within {SECONDS} s")


def _free_port() -> int:
    for port in range(20000, 32000):  # multi-model-server takes none above 32766
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port
    raise SystemExit("there is no free port from 20000 to 31999")


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare Java's classes for a quick start.")
    parser.add_argument("--output", type=Path, default=configuration.CLASS_ARCHIVE)
    make(parser.parse_args().output)


if __name__ == "__main__":
    main()
