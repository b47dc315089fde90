"""No spelling of a route reaches anything but what the table of routes names."""

import concurrent.futures
import contextlib
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import both_engines
from tests.contract.models import picture, write_model
from tests.contract.serving import Server, serving
from tests.faults import routes
from tests.faults.client import everything

REFUSED = {400, 404, 405}


@contextlib.contextmanager
def listening() -> Iterator[tuple[int, list[Any]]]:
    """A port of this machine, and who connected to it: nobody may."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        callers: list[Any] = []

        def accept() -> None:
            with contextlib.suppress(OSError):  # closed
                while True:
                    connection, address = listener.accept()
                    callers.append(address)
                    connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1], callers
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def answers_to_all(server: Server, port: int, table: dict[str, tuple[str, ...]]) -> tuple[int, list[object]]:
    """Return the number of spellings that were sent, and those answered as none may be that the table does not name."""

    def ask(spelling: routes.Spelling) -> int:
        answers, ended = everything(server.port, spelling.raw)
        statuses = re.findall(rb"^HTTP/1\.1 ([2-9]\d\d) ", answers, re.MULTILINE)  # without 100 Continue
        return int(statuses[0]) if ended and len(statuses) == 1 else 0

    sent = [s for s in routes.spellings(port) if s.method != "DELETE" or not routes.named(s.method, s.target, table)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(ask, sent))
    print(f"{len(sent)} spellings: {dict(sorted(Counter(statuses).items()))}")
    wrong: list[object] = []
    for spelling, status in zip(sent, statuses, strict=True):
        known = routes.named(spelling.method, spelling.target, table)
        if status not in REFUSED and not (known and status in (200, 415)):
            wrong.append((spelling.method, spelling.target[:200], status))
    return len(sent), wrong


@both_engines
@pytest.mark.timeout(600)
def test_no_spelling_reaches_what_is_not_in_the_table(tmp_path: Path, kind: str) -> None:
    with (
        listening() as (port, callers),
        serving(write_model(tmp_path / "model"), tmp_path / "run", kind=kind) as server,
    ):
        workers = server.python()
        count, wrong = answers_to_all(server, port, routes.SINGLE)
        assert (wrong[:20], callers) == ([], [])
        assert count > 4000
        assert server.python() == workers
        assert server.invoke(picture("red")).status == 200


@both_engines
@pytest.mark.timeout(600)
def test_no_spelling_loads_or_unloads_a_model(tmp_path: Path, kind: str) -> None:
    models = tmp_path / "models"
    model = write_model(models / "one")
    folder = str(model) if kind == "process" else "/opt/ml/model/one"
    env = {"SAGEMAKER_MULTI_MODEL": "true", "BYOC_PAGE": "true"}
    with listening() as (port, callers), serving(models, tmp_path / "run", env, kind=kind) as server:
        loaded = server.request("POST", "/models", json.dumps({"model_name": "one", "url": folder}).encode())
        assert loaded.status == 200, loaded.body
        workers = server.python()
        count, wrong = answers_to_all(server, port, {**routes.MULTI, **routes.PAGE})
        assert (wrong[:20], callers) == ([], [])
        assert count > 4000
        assert server.request("GET", "/models").json() == {"models": [{"modelName": "one", "modelUrl": folder}]}
        assert server.python() == workers
        answer = server.request("POST", "/models/one/invoke", picture("red"), {"Content-Type": "image/jpeg"})
        assert answer.json()["predictions"][0]["label"] == "red"
