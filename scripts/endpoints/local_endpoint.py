"""An endpoint on this machine, through the SDK's local mode: its image, its start, its end."""

import argparse
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from container_serve import scratch
from container_serve.settings import MAX_PORT, PAGE
from local_test import engine as local_engine
from local_test import pack
from local_test import server as local_server
from local_test.errors import ignoring_signals
from scripts.aws.errors import CloudError
from scripts.aws.settings import Settings
from scripts.console.command import progress, tell_loading
from scripts.endpoints import model_data
from scripts.images import engine
from scripts.jobs.local_mode import REGION, Engine, log_line

FIRST_PORT = 8080
START_SECONDS = 600.0
ANYWHERE = "0.0.0.0"


def run(flags: argparse.Namespace, chosen: Settings, environment: Mapping[str, str]) -> int:
    """`deploy.py --local`: serve until Ctrl-C. Raises CloudError where something is missing, or the port is taken."""
    environment = {**environment, PAGE: "true"} if flags.page else environment
    with endpoint(flags.image, flags.model_data, flags.port, chosen, environment) as (url, image):
        progress(
            f"try it: scripts/predict.py --local {url} IMAGE" + (f", or {url}/ in a browser" if flags.page else "")
        )
        print(json.dumps({"url": url, "image": image}) if flags.json else url, flush=True)
        wait(url)
    return 0


@contextmanager
def endpoint(
    image: str | None, model: str | None, port: int | None, chosen: Settings, environment: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """The URL of a model's server, once /ping there is 200, and its image; afterwards nothing of it is left.

    `model` is a file or in S3. Raises CloudError.
    """
    if not model:
        raise CloudError("no model: give --model-data FILE/model.tar.gz, such as local_test/out/model/model.tar.gz", 2)
    in_s3 = model.startswith("s3://")
    artifact = model_data.s3_uri(model) if in_s3 else model_data.file(model)
    if in_s3:
        chosen.need_region()
    here = Engine()
    image = image or local_engine.find_image("serve")
    if image is None:
        raise CloudError("there is no serving image of these files yet: build it with scripts/build.sh serve")
    engine.need_image(here.client, image)
    if port is not None:
        local_server.check_port(port, ANYWHERE)
    port = port or local_server.free_port(range(FIRST_PORT, MAX_PORT), ANYWHERE)
    local_image = engine.find_image(here.client, image)
    server = model_data.Server.of(image, local_image.labels if local_image else {}, environment)
    with scratch.folder() as work:
        if isinstance(artifact, Path):
            pack.unpack(artifact, work / "model")
        else:
            model_data.fetch(chosen.aws(), artifact, work / "model")
        progress(model_data.check(work / "model", model, server, image))
        tell_loading()
        progress(f"starting {image} through the SageMaker SDK's local mode")
        from scripts.jobs import sdk

        label, url = uuid.uuid4().hex, f"http://localhost:{port}"
        with sdk.LocalMode(work, here.service(label, work), REGION, _log, port) as mode:
            mode.serve(image, work / "model", {**here.environment(), **environment})

            def ended() -> str | None:
                return mode.problem and f"the container did not start: {mode.problem}; its log stands above"

            try:
                begun = time.monotonic()
                local_server.wait_until_ready(url, ended, START_SECONDS)
                progress(f"ready after {time.monotonic() - begun:.1f} s")
                yield url, image
            finally:
                with ignoring_signals():
                    here.stop(label)
                    mode.end_compose(5.0)
                    # Only now can Compose make nothing more.
                    here.remove(label)


def wait(url: str) -> None:
    """Until Ctrl-C or SIGTERM. Raises CloudError when the server is gone before."""
    progress("serving on all of this machine's interfaces; Ctrl-C ends it")
    gone = 0
    try:
        while gone < 5:
            time.sleep(1)
            gone = 0 if local_server.ping(url) is not None else gone + 1
    except KeyboardInterrupt:
        progress("stopping")
        return
    raise CloudError(f"the server at {url} has ended; its log stands above")


def _log(line: str) -> None:
    if text := log_line(line)[0].strip():
        progress(f"  {text}")
