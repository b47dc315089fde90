"""The supervisor: starts the Java server, says when it is ready, watches it, drains it, ends it."""

import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from container_serve import artifact, processes, resources
from container_serve.errors import ServeError
from container_serve.scratch import run_directory
from container_serve.settings import Settings
from container_serve.supervisor import configuration, privileges
from container_serve.worker import precompile, user_code

LOG = logging.getLogger("server")
TICK = 0.5  # seconds between two looks; the Java side takes 3 s of silence for our death
STARTING_TICK = 0.02
DRAIN_SECONDS = 25  # the platform kills 30 s after SIGTERM
END_SECONDS = 29
RECOVERY_SECONDS = 10  # until workers that died must have been replaced
LOOK_SECONDS = 2
# For the report of a front end that does not listen (yet), or says nothing.
SILENT: dict[str, Any] = {"state": "silent", "workers": -1, "in_flight": 0, "failing": False, "failure": None}


def serve(settings: Settings, environ: Mapping[str, str]) -> None:
    """Serve until a signal says to stop. Raises ServeError when that is not possible (any more)."""
    stop = Stop()
    workers = 1 if settings.multi_model and settings.workers is None else settings.workers  # per model
    model_bytes = check_model(settings)
    share = resources.plan(workers, settings.threads, model_bytes)
    waiting = settings.queue_size + share.workers
    memory = resources.memory(share.workers, model_bytes, settings.max_request_bytes, waiting)
    # Nobody knows how many models there will be.
    image_bytes = settings.image_bytes or (resources.MODEL_IMAGE_BYTES if settings.multi_model else memory.image)
    check_port(settings.port)
    user = privileges.find(settings.user or (privileges.NOBODY if settings.target else None))
    with privileges.dropped(user, None if settings.multi_model else settings.model_dir) as model_dir:
        if model_dir is not None and model_dir != settings.model_dir:
            settings = moved(settings, model_dir)
        with run_directory() as run:
            configuration.write(run, settings, share, memory)
            LOG.info(
                "starting %d worker(s) with %d thread(s) each on port %d", share.workers, share.threads, settings.port
            )
            if image_bytes < resources.MAX_PIXEL_BYTES * settings.max_pixels and not settings.multi_model:
                LOG.info("memory is short: images that take over %d MB to decode are refused", image_bytes // 10**6)
            if memory.largest < settings.max_request_bytes:
                LOG.warning(
                    "SAGEMAKER_MAX_REQUEST_SIZE=%d: the memory of %d MB holds bodies of up to %d bytes;"
                    " larger ones are refused: give the container more memory, or set a lower limit",
                    settings.max_request_bytes,
                    resources.memory_limit() // 10**6,
                    memory.largest,
                )
            environment = configuration.environment(environ, run, settings, share, image_bytes)
            server = Server(settings, run, memory, environment)
            threading.Thread(target=_force_exit, args=(server, stop), daemon=True).start()
            try:
                if user_code.is_absent(settings):
                    precompile.start(settings.model_dir, run, share.threads)
                # Every byte of the artifact, while Java starts; /ping stays red until it is through.
                if not settings.multi_model and (settings.model_dir / artifact.MODEL_JSON).exists():
                    artifact.read(settings.model_dir, verify=True)
                server.start(stop)
                server.watch(stop)
                server.drain()
            finally:
                server.end()
            LOG.info("stopped")


def _force_exit(server: "Server", stop: "Stop") -> None:
    """Exit if the end takes too long, as when nobody reads the log that it writes to."""
    stop.wait()
    time.sleep(END_SECONDS)
    processes.kill_descendants()
    shutil.rmtree(server.run, ignore_errors=True)
    os._exit(1)


def moved(settings: Settings, copy: Path) -> Settings:
    """Settings with the model's folder, and the user's program where it is in there, at `copy`."""
    code = settings.submit_directory
    if code is not None and code.is_relative_to(settings.model_dir):
        code = copy / code.relative_to(settings.model_dir)
    return replace(settings, model_dir=copy, submit_directory=code)


def check_model(settings: Settings) -> int:
    """A quick look at the artifact, without its hashes. Returns the bytes of the weights that each worker will load."""
    if settings.multi_model:
        return 0
    folder = settings.model_dir
    if folder.is_file():
        raise ServeError(f"{folder}: is a file, not the model's folder; unpack model.tar.gz into one")
    if folder.exists() and not os.access(folder, os.R_OK | os.X_OK):
        raise ServeError(f"{folder}: cannot be read (Permission denied); make it readable (chmod -R a+rX)")
    code = user_code.find(settings, folder)
    if code is not None and (code.parent / "requirements.txt").exists():
        LOG.warning("%s/requirements.txt is not installed: build an image that has these packages", code.parent)
    if code is None or (folder / artifact.MODEL_JSON).exists():
        for notice in artifact.read(folder, verify=False).notices:
            LOG.warning("%s", notice)
    weights = folder / artifact.GRAPH_WEIGHTS
    return weights.stat().st_size if weights.exists() else 0


def check_port(port: int) -> None:
    both = socket.has_dualstack_ipv6()
    family, address = (socket.AF_INET6, "::") if both else (socket.AF_INET, "0.0.0.0")
    try:
        socket.create_server((address, port), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise ServeError(f"port {port}: {os.strerror(error.errno or 0)}; choose another with --port") from None


class Server:
    """The Java process and its workers, in a session of their own."""

    def __init__(self, settings: Settings, run: Path, memory: resources.Memory, environment: Mapping[str, str]) -> None:
        self.settings = settings
        self.run = run
        self.begun = time.monotonic()
        self.recovery = float(RECOVERY_SECONDS)
        self.least = 0 if settings.multi_model else 1  # workers, of a server that is well
        processes.adopt_orphans()
        parent = os.getpid()
        self.reports, theirs = os.pipe()
        self.java = subprocess.Popen(
            configuration.command(run, settings, memory, f"/proc/self/fd/{theirs}"),
            stdin=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=run,
            env=environment,
            pass_fds=(theirs,),
            start_new_session=True,  # a Ctrl-C in the terminal is for us alone
            preexec_fn=lambda: processes.die_with_parent(parent),
        )
        os.close(theirs)

    def start(self, stop: "Stop") -> None:
        """Wait until a worker has loaded the model and answered a warm-up prediction."""
        while not stop.wait(STARTING_TICK):
            report = self._look("starting", 5 * STARTING_TICK)
            if report["workers"] >= self.least:
                took = time.monotonic() - self.begun
                # A model that loads slowly may take its time again.
                self.recovery = max(self.recovery, 2 * took)
                self._tell("ready")
                LOG.info("ready after %.1f s", took)
                return
            if report["failure"]:
                raise ServeError(report["failure"])
            if time.monotonic() - self.begun > self.settings.startup_timeout:
                seconds = self.settings.startup_timeout
                raise ServeError(f"no worker was ready after {seconds} s (SAGEMAKER_STARTUP_TIMEOUT)")

    def watch(self, stop: "Stop") -> None:
        """Look after the server until it is to stop; a front end that reports nothing counts as no worker."""
        healthy, failing = time.monotonic(), False
        while not stop.wait(TICK):
            report = self._look("ready")
            if report["failing"] and not failing:
                LOG.warning("/ping is 503: every prediction fails; the errors above say why")
            failing = report["failing"]
            if report["workers"] >= self.least:
                healthy = time.monotonic()
            elif time.monotonic() - healthy > self.recovery:
                reason = report["failure"] or "they died, or the front end does not answer; the log above says more"
                raise ServeError(f"no worker for {self.recovery:.0f} s: {reason}")

    def drain(self) -> None:
        """Let the requests that were accepted be answered, while /ping and new ones get 503."""
        LOG.info("stopping: answering the requests in flight, for at most %d s", DRAIN_SECONDS)
        deadline = time.monotonic() + DRAIN_SECONDS
        report = SILENT
        try:
            while (report := self._look("draining")) is not SILENT and time.monotonic() < deadline:
                if report["state"] == "draining" and report["in_flight"] == 0:
                    break
                time.sleep(STARTING_TICK)
        except ServeError as error:
            LOG.warning("%s", error)
        if report["in_flight"]:
            LOG.warning("stopped with %d requests unanswered", report["in_flight"])

    def end(self) -> None:
        """End all processes; none of them holds anything that is worth a gentler end."""
        processes.kill_descendants()
        self.java.wait()
        os.close(self.reports)

    def _look(self, state: str, seconds: float = LOOK_SECONDS) -> dict[str, Any]:
        """Tell the front end our state, and hear its report."""
        processes.reap_orphans(but=self.java.pid)
        self._tell(state)
        if not select.select([self.reports], [], [], seconds)[0]:
            return SILENT
        lines = os.read(self.reports, 65536).splitlines()  # whole ones: each is shorter than what a pipe takes at once
        if not lines:
            raise self._ended(self.java.wait())
        return dict(json.loads(lines[-1]))

    def _tell(self, state: str) -> None:
        if (code := self.java.poll()) is not None:
            raise self._ended(code)
        assert self.java.stdin is not None
        with suppress(BrokenPipeError):  # it has just ended: the next look finds its exit status
            self.java.stdin.write(f"{state}\n".encode())
            self.java.stdin.flush()

    def _ended(self, code: int) -> ServeError:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return ServeError(f"the Java server ended unexpectedly ({how}); the log above may say why")


class Stop:
    """A signal's wish to stop. A threading.Event has a lock, which the thread that the handler interrupts may hold."""

    def __init__(self) -> None:
        self._wish, self._handler = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
                signal.signal(number, lambda *_: os.write(self._handler, b"."))

    def wait(self, seconds: float | None = None) -> bool:
        """True as soon as there was a signal, False after so many seconds."""
        return bool(select.select([self._wish], [], [], seconds)[0])
