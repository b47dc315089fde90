"""Prepares Java's classes, so that the server starts in half the time: `python -m container_serve.frontend.archive`.

Writes frontend.jsa (25 MB) beside frontend.jar. It holds for this Java and these jars at these paths only, so it is
made where the server will run: in a step of the image's build. Without it, or with one that does not fit, the server
starts all the same.
"""

import http.client
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from container_serve.supervisor import configuration, privileges


def make(archive: Path) -> None:
    """List the classes that a server without a model needs until it answers, and archive them."""
    with tempfile.TemporaryDirectory() as folder:
        listed, port = Path(folder) / "classes.lst", random.randrange(20000, 32000)
        environment = {
            **os.environ,
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "SAGEMAKER_MULTI_MODEL": "true",
            "BYOC_USER": privileges.ROOT,  # another user may not write to the folder
            "JAVA_TOOL_OPTIONS": f"-XX:DumpLoadedClassList={listed}",
        }
        serve = [sys.executable, "-m", "container_serve"]
        with subprocess.Popen(serve, env=environment, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            if not any("ready after" in line for line in server.stdout):
                raise SystemExit(f"the server does not start (exit code {server.wait()}); its messages say why")
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)  # through no proxy
            connection.request("GET", "/ping")
            connection.getresponse().read()
            server.terminate()
            server.communicate()  # its last words, too
        options = [f"-XX:SharedClassListFile={listed}", f"-XX:SharedArchiveFile={archive}", "-XX:+UseSerialGC"]
        dump = [configuration.java(), "-Xshare:dump", *options, "-cp", configuration.class_path()]
        done = subprocess.run(dump, capture_output=True, text=True)
        if done.returncode != 0 or not archive.exists():
            raise SystemExit(f"Java made no archive: {done.stdout[-500:]}{done.stderr[-500:]}")


if __name__ == "__main__":
    make(configuration.CLASS_ARCHIVE)
