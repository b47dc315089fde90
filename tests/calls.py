"""Calls of the scripts in this process, as from a command line: the fixture `call`, and what came of a call."""

import json
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import pytest

from scripts.console import command
from tests.conftest import Capture


class Ended(NamedTuple):
    """A script's call: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.err.splitlines()[-1]

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Those of a dry run; each was checked against the service's model."""
        return [one["request"] for one in self.json]

    def ends(self, code: int, *words: str) -> "Ended":
        """With this exit code; all `words` are in the last line on standard error."""
        return self._checked(code, words, self.last if words else "")

    def says(self, *words: str, code: int = 0) -> "Ended":
        """With this exit code; all `words` are on standard error."""
        return self._checked(code, words, self.err)

    def _checked(self, code: int, words: tuple[str, ...], said: str) -> "Ended":
        missing = [each for each in words if each not in said]
        assert (self.code, missing) == (code, []), f"exit code {self.code}, not said: {missing}\n{self.err}"
        return self


class Call(Protocol):
    def __call__(self, script: ModuleType, *arguments: object) -> Ended:
        """Call a script as from a command line."""


@pytest.fixture
def call(capsys: Capture) -> Call:
    def made(script: ModuleType, *arguments: object) -> Ended:
        capsys.readouterr()
        name = script.__name__.rpartition(".")[2]
        program = "push.sh" if name == "push" else f"{name}.py"
        code = command.run(program, script.main, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback (most" not in captured.err
        return Ended(code, captured.out, captured.err)

    return made
