"""`run.sh`: train, export, serve and query, on this machine. `train_local.sh` is the first half of it."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from local_test import engine, outdir, pack, stage, table, weights
from local_test.engine import DockerEngine, Engine, Program
from local_test.errors import LocalError, Stopped
from local_test.options import Options, parse
from local_test.stage import Staged

# What the sample is trained with where nothing else is said: it is small, and its pictures differ in texture.
SAMPLE_HYPERPARAMETERS = {"epochs": "60", "lr": "0.003"}
READY_SECONDS = 120.0
POLL_SECONDS = 0.1
FREE_PORTS = range(20000, 32000)


@dataclass
class Job:
    """What one call does, as far as it has got."""

    options: Options
    folder: Path
    engine: Engine
    note: str = ""
    weights: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    fired: list[str] | None = None  # rules of debugger and profiler, where they watched

    @contextlib.contextmanager
    def step(self, name: str, text: str) -> Iterator[None]:
        """Say what begins, and keep how long it took."""
        self.steps += 1
        print(f"\n== {self.steps}. {text}", flush=True)
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 3)

    @property
    def archive(self) -> Path:
        return self.folder / "model" / "model.tar.gz"


def main(arguments: list[str], *, program: str = "run.sh") -> int:
    return guarded(program, lambda: run(parse(arguments, program), serve=program == "run.sh"))


def guarded(program: str, work: Callable[[], None]) -> int:
    """The exit code of `work`, with signals and errors turned into one line each."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _stop)
    try:
        work()
    except LocalError as error:
        print(f"\n{program}: {error}", file=sys.stderr)
        return error.code
    except Stopped as stopped:
        print(f"\n{program}: stopped, and everything that it had started", file=sys.stderr)
        return stopped.code
    except OSError as error:
        print(f"\n{program}: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _stop(signum: int, _frame: FrameType | None) -> None:
    # Once: what is running is being stopped, in bounded time, and is not to be interrupted in that.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(signum)


def run(options: Options, *, serve: bool) -> None:
    """All steps; the results are in options.out when this returns, and only then."""
    if serve and shutil.which("curl") is None:
        raise LocalError("curl is not on PATH: install it (Debian and Ubuntu: apt-get install curl)")
    if serve and options.port is not None:
        check_port(options.port)  # not after the training that it is to serve
    if options.hyperparameters.get("measure") == "none":
        raise LocalError("--measure none leaves no model to pack and to serve: it is for the trials of a search", 2)
    if not options.is_sample:
        stage.check(Path(options.data))
    with outdir.claimed(options.out) as out:
        chosen, why = engine.choose(options.engine, options.out)
        chosen.features = options.features
        print(f"engine: {chosen.name}, because {why}", flush=True)
        job = Job(options, out.new, chosen)
        # run.sh has counted the seconds that setting up took.
        job.seconds["setup"] = float(os.environ.get("BYOC_SETUP_SECONDS") or 0)
        with job.step("check", "checking the hyperparameters"):
            given, file = settings(job)
        folder = out.begin()
        try:
            (folder / "logs").mkdir()
            staged = train(job, given, file)
            if serve:
                rows, cold = serve_and_query(job, staged)
                write_summary(job, staged, rows, cold)
        except BaseException:
            leave(out)
            raise
        out.keep()
    print(
        f"\nresults: {options.out}"
        + (" (summary.json, report.html, profiler-report.html, model/model.tar.gz)" if serve else "")
    )


def leave(out: outdir.OutDir) -> None:
    """After a failure: keep what took time, and say where. Never raises LocalError, which would hide the failure."""
    try:
        kept = out.give_up()
    except LocalError as error:
        print(error, file=sys.stderr)
        return
    if kept is None:
        return
    print(f"\nwhat it got to is in {kept}", file=sys.stderr)
    archive = kept / "model" / "model.tar.gz"
    if archive.is_file():
        print(f"to serve its model: ./local_test/serve_local.sh --model {shlex.quote(str(archive))}", file=sys.stderr)


def settings(job: Job) -> tuple[dict[str, str], Path | None]:
    """The hyperparameters, checked, and the file of weights, if one is to be a channel."""
    options = job.options
    if options.is_sample:
        words = " ".join(f"--{key} {value}" for key, value in SAMPLE_HYPERPARAMETERS.items())
        print(f"the sample is trained with {words} where you give nothing else; other data use the defaults")
    given = (SAMPLE_HYPERPARAMETERS if options.is_sample else {}) | options.hyperparameters
    chosen = _weights(job, given)
    if chosen.hyperparameter is not None:
        given["weights"] = chosen.hyperparameter
    job.note = chosen.note
    job.weights = str(chosen.file or chosen.hyperparameter or "DEFAULT")
    return given, chosen.file


def train(job: Job, given: dict[str, str], file: Path | None) -> Staged:
    """Stage, train and pack."""
    options = job.options
    with job.step("stage", f"staging {options.data}"):
        staged = stage.stage(
            job.folder / "ml", options.data, given, file, is_sample=options.is_sample, host=job.engine.host
        )
        for note in staged.notes:
            print(note)
    if isinstance(job.engine, DockerEngine):
        with job.step("images", "images"):
            job.engine.find_images()
            print(", ".join(str(image) for image in job.engine.images.values()))
    shout(job.note)
    with job.step("train", f"training ({job.engine.name})"):
        code = job.engine.train(staged, job.folder / "logs" / "train.log")
        if code:
            failure = staged.tree / "output" / "failure"
            text = failure.read_text(errors="replace").strip() if failure.is_file() else "it left no failure file"
            raise LocalError(f"training failed with exit code {code}: {text}", code)
    with job.step("pack", "packing model.tar.gz"):
        pack.pack(staged.tree / "model", job.archive)
        stage.copy_reports(staged.tree, job.folder)
        job.fired = stage.fired_rules(job.folder)
        if job.fired is not None:
            say = "; ".join(job.fired) or "none fired"
            print(f"debugger and profiler: {options.out / 'profiler-report.html'}; rules: {say}")
    return staged


def _weights(job: Job, given: dict[str, str]) -> weights.Weights:
    options = job.options
    if "weights" in options.hyperparameters:  # `--weights` is a flag of ours: argparse has taken it
        raise LocalError("--weights comes twice", 2)
    asked = options.weights
    # A user's own program has hyperparameters, and weights, of its own.
    if "sagemaker_program" in given:
        return weights.Weights(*((asked, None) if isinstance(asked, Path) else (None, asked)))
    words = given | ({"weights": asked} if isinstance(asked, str) else {})
    url = weights.url_of(words)
    return weights.choose(asked, url, is_sample=options.is_sample, in_container=isinstance(job.engine, DockerEngine))


def serve_and_query(job: Job, staged: Staged) -> tuple[list[table.Row], float]:
    """Serve the packed model, post held-out pictures, stop; gives the rows and the seconds to the first answer."""
    model = job.folder / "served"
    with job.step("unpack", "unpacking model.tar.gz into a fresh model folder"):
        pack.unpack(job.archive, model)
        test = staged.outside.get("test", staged.tree / "input" / "data" / "test")
        pictures = table.choose(test, _read(model / "model.json")["classes"])
    port = job.options.port or free_port()
    url = f"http://127.0.0.1:{port}/invocations"
    rows: list[table.Row] = []
    with contextlib.ExitStack() as stack:
        with job.step("serve", f"serving it on http://127.0.0.1:{port} ({job.engine.name})"):
            started = time.monotonic()
            server = start_server(job.engine, model, port, job.folder / "logs" / "serve.log")
            stack.callback(server.stop)
            with last_lines_of(server):
                wait_until_ready(server, port)
                table.post(pictures[0][0], url)
            cold = round(time.monotonic() - started, 3)
            print(f"first good answer after {cold:.1f} s")
        with job.step("predict", f"posting {len(pictures)} held-out pictures with curl"), last_lines_of(server):
            for picture, true in pictures:
                label, probability = table.post(picture, url)
                rows.append(table.Row(f"test/{picture.relative_to(test)}", true, label, probability))
    outdir.remove(model)
    print("\n" + table.render(rows), flush=True)
    shout(job.note)
    return rows, cold


@contextlib.contextmanager
def last_lines_of(server: Program) -> Iterator[None]:
    """Add what the server said last to an error."""
    try:
        yield
    except LocalError as error:
        raise LocalError(f"{error}; the server's last lines:\n{server.child.tail()}", error.code) from None


def check_port(port: int) -> None:
    """Raises LocalError when something else has the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise LocalError(f"port {port}: {error.strerror}; give another with --port, or none") from None


def start_server(where: Engine, model: Path, port: int, log: Path, *, echo: bool = False) -> Program:
    check_port(port)
    return where.serve(model, port, log, echo=echo)


def wait_until_ready(server: Program, port: int, seconds: float = READY_SECONDS) -> None:
    """Until /ping is 200. Raises LocalError at once when the server ends."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + seconds
    while True:
        code = server.child.ended()
        if code is not None:
            raise LocalError(f"the server ended with exit code {code} before it was ready", code or 1)
        with contextlib.suppress(OSError), opener.open(f"http://127.0.0.1:{port}/ping", timeout=2) as answer:
            if answer.status == 200:
                return
        if time.monotonic() > until:
            raise LocalError(f"the server was not ready after {seconds:.0f} s")
        time.sleep(POLL_SECONDS)


def free_port() -> int:
    """A free port that multi-model-server takes; the kernel's own choice would be too high."""
    start = os.getpid() % len(FREE_PORTS)
    for offset in range(len(FREE_PORTS)):
        port = FREE_PORTS[(start + offset) % len(FREE_PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise LocalError(f"no free port from {FREE_PORTS.start} to {FREE_PORTS.stop - 1}: give one with --port")


def write_summary(job: Job, staged: Staged, rows: list[table.Row], cold: float) -> None:
    """summary.json, written last: a folder that has it is complete."""
    metrics = _read(staged.tree / "output" / "data" / "metrics.json")
    model = _read(staged.tree / "model" / "model.json")
    try:
        summary = {
            "engine": job.engine.name,
            "data": job.options.data,
            "classes": model["classes"],
            "images": metrics["images"],
            "test_accuracy": metrics["test_accuracy"],
            "precision": model["precision"],
            "accuracy": model["accuracy"],
            "cold_start_seconds": cold,
            "prediction": rows[0].to_dict(),
            "predictions": [row.to_dict() for row in rows],
            "weights": job.weights,
            "note": job.note,
            "hyperparameters": metrics["hyperparameters"],
            "seconds": job.seconds,
            "training_seconds": metrics["seconds"],
            "rules_fired": job.fired,
            "image_tags": job.engine.images,
        }
    except KeyError as error:
        raise LocalError(f"training's metrics.json or model.json has no key {error}") from None
    temporary = job.folder / ".summary.json.tmp"
    temporary.write_text(json.dumps(summary, indent=1) + "\n")
    temporary.replace(job.folder / "summary.json")
    print(
        f"test accuracy {summary['test_accuracy']:.1%} on {metrics['images']['test']} pictures"
        f" (chance {1 / len(model['classes']):.1%}), {model['precision']}; seconds: "
        + ", ".join(f"{name} {value:.0f}" for name, value in job.seconds.items())
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LocalError(f"training's {path.name} cannot be read: {error}") from None
    return content


def shout(note: str) -> None:
    if note:
        line = "*" * 80
        print(f"\n{line}\n{note}\n{line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
