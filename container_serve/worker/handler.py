"""The handler that multi-model-server calls in its workers: `handle(None, context)` loads the model, then once per
request.
"""

import logging
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from container_serve import log
from container_serve.errors import ServeError
from container_serve.processes import alive, die_with_parent
from container_serve.settings import LOAD_FAILURE, LOADING, MODELS, Settings
from container_serve.worker.service import Service

LOG = logging.getLogger("worker")

_parent = os.getpid()  # of the process that imports this, from which the workers are forked
_service: Service | None = None


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[Any] | None:
    """multi-model-server's entry point."""
    global _service
    if data is None:
        _service = _load(context)
        return None
    assert _service is not None
    return _service.answer(data, context)


def _load(context: Any) -> Service:
    """Load the model, or leave the process: an exception that is raised here would leave it half alive."""
    die_with_parent(_parent)
    # The model server's own handler goes on, without the socket on which the others' successors have to be asked for.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    settings = Settings.read(os.environ)
    log.configure(settings.log_level)
    logging.getLogger("mms").setLevel(logging.WARNING)  # its metrics, a line per request
    begun = time.perf_counter()
    run = Path(os.environ["BYOC_RUN_DIRECTORY"])
    model_dir = (run / MODELS / context.model_name).resolve()
    context.system_properties["model_dir"] = str(model_dir)  # the model server knows an empty folder only
    loading, failure = run / f"{LOADING}{os.getpid()}", run / f"{LOAD_FAILURE}{context.model_name}"
    try:
        with suppress(OSError):  # a full disk: it names who was killed while loading, no more
            loading.write_text(context.model_name)
        service = Service(settings, model_dir, context)
    except Exception as error:
        one_line = " ".join(str(error).split()) or type(error).__name__
        reason = one_line if isinstance(error, ServeError) else f"{model_dir}: {type(error).__name__}: {one_line}"
        LOG.error("cannot load the model: %s", reason, exc_info=not isinstance(error, ServeError))
        with suppress(OSError):  # a full disk: the log has the reason at least
            partial = loading.with_suffix(".failed")
            partial.write_text(reason)
            partial.replace(failure)
            loading.unlink(missing_ok=True)
        sys.stdout.flush()
        os._exit(1)
    # What kept earlier workers from loading the model is over; left, it would explain the next trouble wrongly.
    loading.unlink(missing_ok=True)
    failure.unlink(missing_ok=True)
    for path in run.glob(f"{LOADING}*"):
        pid = path.name.removeprefix(LOADING)
        if pid.isdecimal() and not alive(int(pid)):
            path.unlink(missing_ok=True)
    LOG.info("model loaded in %.2f s, %d thread(s)", time.perf_counter() - begun, settings.threads or 1)
    return service
