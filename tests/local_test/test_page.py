"""The page of a local server, opened in a browser: serve_local.sh --open and run.sh --open."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local_test import outdir
from local_test import server as local_server
from local_test.options import parse
from tests import trees
from tests.contract.models import write_model
from tests.docker import engine
from tests.local_test.runs import ROOT, SECONDS, mentioning, until


@contextmanager
def started(
    program: str, *arguments: object, folder: Path, kind: str = "process"
) -> Iterator["subprocess.Popen[bytes]"]:
    """One of the programs, whose browser writes the address that it is given to folder/opened."""
    browser = folder / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {folder}/opened\n')
    browser.chmod(0o755)
    command = [sys.executable, "-P", "-m", "local_test", program, "--engine", kind, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "BROWSER": f"{browser} %s"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def get(url: str) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60) as answer:
        content: bytes = answer.read()
        return content


def opened(folder: Path, process: "subprocess.Popen[bytes]", seconds: float = 120) -> str:
    """The address, once the browser was given one."""
    file = folder / "opened"
    until(lambda: (file.exists() and file.read_text().endswith("\n")) or process.poll() is not None, seconds)
    assert file.exists(), (folder / "log").read_text()
    (address,) = file.read_text().splitlines()
    return address


def ended(process: "subprocess.Popen[bytes]", port: int, code: int = 130) -> None:
    """By Ctrl-C, and its server with it."""
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == code
    assert mentioning(f"--port {port}") == []
    assert local_server.is_free(port)


@pytest.mark.parametrize(
    ("flag", "kind"), [("--open", "process"), pytest.param("--page", "docker", marks=pytest.mark.docker)]
)
def test_serve_local_serves_the_page_and_opens_it_if_asked(tmp_path: Path, flag: str, kind: str) -> None:
    if kind == "docker":
        engine.image("serve")
    port, model = local_server.free_port(), write_model(tmp_path / "model")
    with started("serve_local.sh", "--model", model, "--port", port, flag, folder=tmp_path, kind=kind) as process:
        log = tmp_path / "log"
        until(lambda: "Ctrl-C ends it" in log.read_text() or process.poll() is not None)
        assert f"try it in a browser: http://127.0.0.1:{port}/\n" in log.read_text()
        if flag == "--open":
            assert opened(tmp_path, process) == f"http://127.0.0.1:{port}/"
        assert get(f"http://127.0.0.1:{port}/").startswith(b"<!doctype html>")
        ended(process, port)
        assert (tmp_path / "opened").exists() == (flag == "--open")


@pytest.mark.timeout(SECONDS)
def test_run_serves_what_it_has_trained_and_keeps_its_results(tmp_path: Path) -> None:
    data, out, port = trees.fill(tmp_path / "data"), tmp_path / "out", local_server.free_port()
    small = [word for key, value in {**trees.SMALL, "epochs": "1"}.items() for word in (f"--{key}", value)]
    arguments = ("--data", data, "--out", out, "--port", port, *small, "--open")
    with started("run.sh", *arguments, folder=tmp_path) as process:
        assert opened(tmp_path, process, 400) == f"http://127.0.0.1:{port}/"
        assert b'"architecture":"mobilenet_v3_small"' in get(f"http://127.0.0.1:{port}/info")
        with outdir.claimed(out):  # another run may begin
            pass
        ended(process, port, 0)
    assert (out / "summary.json").is_file()
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out"]


def test_training_alone_has_nothing_to_open() -> None:
    assert parse(["--open"]).open
    assert not parse([]).open
    with pytest.raises(Exception, match="--open has no value"):
        parse(["--open"], "train_local.sh")
