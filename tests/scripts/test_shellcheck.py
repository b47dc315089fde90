"""All shell scripts, whatever they are called, pass shellcheck."""

import shutil
import subprocess
from pathlib import Path

from tests.conftest import need

ROOT = Path(__file__).parents[2]


def shell_scripts() -> list[str]:
    found = []
    for folder in (".ci", "docker", "scripts", "scripts/images", "local_test"):
        for path in (ROOT / folder).iterdir():
            if path.is_file() and (
                path.suffix == ".sh" or path.read_bytes()[:64].startswith((b"#!/bin/sh", b"#!/usr/bin/env bash"))
            ):
                found.append(str(path))
    return sorted(found)


def test_shellcheck() -> None:
    need(shutil.which("shellcheck"), "shellcheck")
    scripts = shell_scripts()
    assert str(ROOT / ".ci" / "run") in scripts
    assert str(ROOT / "docker" / "train") in scripts
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
