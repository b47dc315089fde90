"""The steps of run.sh: train, export, serve and query on this machine. train_local.sh is the first half of it."""

import contextlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from container_train.data import splits
from container_train.training import metrics
from local_test import engine, outdir, pack, predictions, results, serve_local, server, stage, weights
from local_test.engine import DockerEngine, Engine
from local_test.errors import LocalError, naming
from local_test.options import Options
from local_test.predictions import Row
from local_test.stage import Staged

# What the sample is trained with where nothing else is said: it is small, and its images differ in texture.
SAMPLE_HYPERPARAMETERS = {"epochs": "60", "lr": "0.003"}


@dataclass
class Job:
    """The state of one call."""

    options: Options
    folder: Path
    engine: Engine
    note: str = ""
    weights: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    fired: list[dict[str, Any]] | None = None  # rules of debugger and profiler, where they watched

    @contextlib.contextmanager
    def step(self, name: str, text: str) -> Iterator[None]:
        """Say what begins, and keep how long it took. The first of `seconds` is the set-up's."""
        print(f"\n== {len(self.seconds)}. {text}", flush=True)
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 3)

    @property
    def archive(self) -> Path:
        return self.folder / "model" / "model.tar.gz"


def run(options: Options, *, serve: bool) -> None:
    """All steps; the results are in options.out, which holds the results before again when a step fails."""
    if serve and shutil.which("curl") is None:
        raise LocalError("curl is not on PATH: install it (Debian and Ubuntu: apt-get install curl)")
    if serve and options.port is not None:
        server.check_port(options.port)  # not after the training that it is to serve
    if options.hyperparameters.get("measure") == "none":
        raise LocalError("--measure none leaves no model to pack and to serve: it is for the trials of a search", 2)
    if not options.is_sample:
        splits.plan(Path(options.data))
    with outdir.claimed(options.out) as out, naming(options.out):
        chosen, why = engine.choose(options.engine, options.out)
        chosen.features = options.features
        print(f"engine: {chosen.name}, because {why}", flush=True)
        job = Job(options, out.out, chosen)
        # run.sh has counted the seconds that setting up took.
        job.seconds["setup"] = float(os.environ.get("BYOC_SETUP_SECONDS") or 0)
        with job.step("check", "checking the hyperparameters"):
            given, file = settings(job)
        if options.out.exists():
            print(f"{options.out} is replaced when this run succeeds; --out DIR keeps both", flush=True)
        folder = out.begin()
        try:
            (folder / "logs").mkdir()
            staged = train(job, given, file)
            if serve:
                summarise(job, staged, *serve_and_query(job, staged))
        except BaseException:
            leave(out)
            raise
        out.keep()
    made = " (summary.json, report.html, profiler-report.html, model/model.tar.gz)" if serve else ""
    print(f"\nresults: {options.out}{made}", flush=True)
    if options.open:
        model = options.out / "model" / "model.tar.gz"
        with contextlib.suppress(KeyboardInterrupt):  # what was asked for has succeeded by then
            serve_local.serve_model(chosen.name, model, options.port or server.free_port(), page=True, show=True)


def leave(out: outdir.OutDir) -> None:
    """After a failure: keep what took time, and say where. Raises nothing, which would hide the failure."""
    try:
        kept = out.give_up()
    except (LocalError, OSError) as error:
        print(error, file=sys.stderr)
        return
    if kept is None:
        return
    print(f"\npartial results: {kept}", file=sys.stderr)
    for name in ("logs/train.log", "ml/output/data/profiler-report.html"):
        if (kept / name).is_file():
            print(f"  {kept / name}", file=sys.stderr)
    archive = kept / "model" / "model.tar.gz"
    if archive.is_file():
        print(f"to serve its model: ./local_test/serve_local.sh --model {shlex.quote(str(archive))}", file=sys.stderr)


def settings(job: Job) -> tuple[dict[str, str], Path | None]:
    """The hyperparameters, checked, and the file of weights, if one is to be a channel."""
    options = job.options
    given = dict(options.hyperparameters)
    if options.is_sample and given.get("recipe", "head") == "head":
        words = " ".join(f"--{key} {value}" for key, value in SAMPLE_HYPERPARAMETERS.items())
        print(f"the sample is trained with {words} unless you give other values; other data use the defaults")
        given = SAMPLE_HYPERPARAMETERS | given
    asked = options.weights
    if "sagemaker_program" in given:  # a user's own program has hyperparameters, and weights, of its own
        chosen = weights.Weights(*((asked, None) if isinstance(asked, Path) else (None, asked)))
    else:
        word = "none" if isinstance(asked, Path) else asked
        url = weights.url_of(given | ({"weights": word} if word else {}))
        if given.get("device", "").lower() == "cuda":
            from container_train.compute import device  # imports torch

            if not device.present():
                device.choose("cuda")  # its error
        docker = isinstance(job.engine, DockerEngine)
        engine.check_tracker(given, in_image=docker)
        chosen = weights.choose(asked, url, is_sample=options.is_sample, in_container=docker)
    if chosen.hyperparameter is not None:
        given["weights"] = chosen.hyperparameter
    job.note = chosen.note
    job.weights = str(chosen.file or chosen.hyperparameter or "DEFAULT")
    return given, chosen.file


def train(job: Job, given: dict[str, str], file: Path | None) -> Staged:
    """Stage, train and pack."""
    with job.step("stage", f"staging {job.options.data}"):
        staged = stage.stage(job.folder / "ml", job.options.data, given, file, host=job.engine.host)
        for note in staged.notes:
            print(note)
    if isinstance(job.engine, DockerEngine):
        with job.step("images", "images"):
            job.engine.find_images("train", "serve")
            print(", ".join(str(image) for image in job.engine.images.values()))
    shout(job.note)
    with job.step("train", f"training ({job.engine.name})"):
        if code := engine.train(job.engine, staged, job.folder / "logs" / "train.log"):
            failure = staged.tree / "output" / "failure"
            text = failure.read_text(errors="replace").strip() if failure.is_file() else "it left no failure file"
            # What follows the first paragraph, a traceback, is in the log above.
            raise LocalError(f"training failed with exit code {code}: {text.split(chr(10) * 2)[0]}", code)
    with job.step("pack", "packing model.tar.gz"):
        pack.pack(staged.tree / "model", job.archive)
        job.fired = results.copy_reports(staged.tree, job.folder)
        if job.fired is not None:
            words = results.in_words(job.fired)
            print(f"debugger and profiler: {job.folder / 'profiler-report.html'}; rules: {words}")
    return staged


def serve_and_query(job: Job, staged: Staged) -> tuple[list[Row], float]:
    """Serve the packed model, post held-out images, stop; gives the rows and the seconds to the first answer."""
    model = job.folder / "served"
    with job.step("unpack", "unpacking model.tar.gz into a fresh model folder"):
        pack.unpack(job.archive, model)
        test = staged.outside.get("test", staged.tree / "input" / "data" / "test")
        images = predictions.choose(test, results.read(model / "model.json")["classes"])
    port = job.options.port or server.free_port()
    url = f"http://127.0.0.1:{port}"
    rows: list[Row] = []
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        with job.step("serve", f"serving it on {url} ({job.engine.name})"):
            stack.enter_context(server.serving(job.engine, model, port, job.folder / "logs" / "serve.log"))
            predictions.post(images[0][0], f"{url}/invocations")
            cold = round(time.monotonic() - started, 3)
            print(f"first good answer after {cold:.1f} s")
        with job.step("predict", f"posting {len(images)} held-out images with curl"):
            for image, true in images:
                answer = predictions.post(image, f"{url}/invocations")
                rows.append(Row(f"test/{image.relative_to(test)}", true, *answer))
    outdir.remove(model)
    print("\n" + predictions.render(rows), flush=True)
    shout(job.note)
    return rows, cold


def summarise(job: Job, staged: Staged, rows: list[Row], cold: float) -> None:
    facts = {
        "engine": job.engine.name,
        "data": job.options.data,
        "cold_start_seconds": cold,
        "weights": job.weights,
        "note": job.note,
        "seconds": job.seconds,
        "rules_fired": None if job.fired is None else [f"{rule['rule']} ({rule['reason']})" for rule in job.fired],
        "image_tags": job.engine.images,
    }
    summary = results.write_summary(job.folder, staged.tree, rows, facts)
    accuracy = metrics.with_interval(summary["test_accuracy"], summary["images"]["test"])
    seconds = ", ".join(f"{name} {value:.0f}" for name, value in job.seconds.items())
    print(f"test accuracy {accuracy}, {summary['precision']}; seconds: {seconds}")
    shout(summary["chance"])


def shout(note: str) -> None:
    if note:
        line = "*" * 80
        print(f"\n{line}\n{note}\n{line}", flush=True)
