"""SAGEMAKER_MULTI_MODEL=true: models come and go over HTTP, as the platform's multi-model endpoints do it."""

import concurrent.futures
import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from container_serve.artifact import GRAPH_WEIGHTS
from tests.contract.models import picture, write_model
from tests.contract.serving import Answer, Server, gone, serving, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, tmp_path / "run", {"SAGEMAKER_MULTI_MODEL": "true"}) as running:
        yield running


def load(server: Server, name: str, folder: object, **more: str) -> Answer:
    body = json.dumps({"model_name": name, "url": str(folder), **more}).encode()
    return server.request("POST", "/models", body, {"Content-Type": "application/json"})


def invoke(server: Server, name: str, color: str = "red") -> Answer:
    return server.request("POST", f"/models/{name}/invoke", picture(color), {"Content-Type": "image/jpeg"})


def new(server: Server, before: set[int]) -> list[psutil.Process]:
    return [process for process in server.python() if process.pid not in before]


def names(server: Server) -> list[str]:
    return [model["modelName"] for model in server.request("GET", "/models").json()["models"]]


def test_models_come_and_go(server: Server, tmp_path: Path) -> None:
    assert names(server) == []
    one, two = write_model(tmp_path / "one"), write_model(tmp_path / "two, too", classes=("r", "g", "b"))
    assert load(server, "one", one).status == 200
    assert load(server, "two", two).status == 200
    assert load(server, "two", one).status == 409
    assert names(server) == ["one", "two"]
    assert server.request("GET", "/models/two").json()["modelName"] == "two"
    assert invoke(server, "one").json()["predictions"][0]["label"] == "red"
    assert invoke(server, "two").json()["predictions"][0]["label"] == "r"
    workers = server.python()
    assert server.request("DELETE", "/models/one").status == 200
    for answer in (
        server.request("DELETE", "/models/one"),
        server.request("GET", "/models/one"),
        invoke(server, "one"),
        load(server, "one", tmp_path / "nowhere"),
    ):
        assert (answer.status, answer.json()["type"]) == (404, "ModelNotFoundException")
    assert invoke(server, "two", "blue").json()["predictions"][0]["label"] == "b"
    until(lambda: len(server.python()) == len(workers) / 2, "the first model's workers gone", 10)
    assert load(server, "one", one).status == 200
    assert invoke(server, "one").status == 200
    family = server.descendants()
    assert server.stop() == 0
    assert gone(family)


def test_models_that_went_leave_nothing_in_the_front_end(server: Server, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    for turn in range(5):
        assert load(server, f"model{turn}", model).status == 200
        assert invoke(server, f"model{turn}").status == 200
        assert server.request("DELETE", f"/models/model{turn}").status == 200
    until(lambda: server.held()[0] == 0, "the workers' output closed", 5)
    until(lambda: not any(path.is_socket() for path in server.tmp.rglob("*")), "sockets removed", 5)


def test_a_broken_model_is_refused_and_the_others_stay(server: Server, tmp_path: Path) -> None:
    assert load(server, "good", write_model(tmp_path / "good")).status == 200
    broken = write_model(tmp_path / "broken")
    content = bytearray((broken / GRAPH_WEIGHTS).read_bytes())
    content[0] ^= 1
    (broken / GRAPH_WEIGHTS).write_bytes(content)
    answer = load(server, "broken", broken)
    assert (answer.status, answer.json()["type"]) == (500, "ModelLoadFailed")
    assert answer.json()["message"].startswith("model.bin: corrupt, its SHA-256 is not the one in model.json;")
    assert f"ERROR workers: model broken cannot be loaded: {answer.json()['message']}" in server.log()
    assert load(server, "nowhere", tmp_path / "nowhere").status == 404
    assert names(server) == ["good"]
    assert invoke(server, "broken").status == 404
    until(lambda: len(server.python()) == 2, "nothing respawned", 10)
    assert invoke(server, "good").status == 200
    assert server.ping() == 200


def test_why_a_model_cannot_be_loaded_is_in_the_answer(server: Server, tmp_path: Path) -> None:
    def why(folder: Path) -> str:
        answer = load(server, "broken", folder)
        assert (answer.status, answer.json()["type"]) == (500, "ModelLoadFailed")
        message: str = answer.json()["message"]
        assert f"ERROR workers: model broken cannot be loaded: {message}" in server.log()
        return message

    model = write_model(tmp_path / "archive" / "packed")
    assert f"it is in the folder packed in there: pack it with tar -C {model.name}" in why(model.parent)
    (model / "model.json").write_text("x")
    assert why(model).startswith("model.json: is not JSON (")
    assert why(Path("/")).startswith("model.json: missing in /;")  # of which root may not read every file
    (tmp_path / "empty").mkdir()
    assert why(tmp_path / "empty").startswith(f"model.json: missing in {tmp_path}/empty;")
    # The reason of one model is not that of the next, and goes with the trouble.
    assert load(server, "broken", write_model(model)).status == 200
    assert invoke(server, "broken").status == 200
    assert load(server, "nowhere", tmp_path / "nowhere").status == 404


def test_a_worker_that_is_killed_while_it_loads_says_that_memory_is_short(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    (model / "code").mkdir()
    (model / "code" / "inference.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with serving(tmp_path, tmp_path / "run", {"SAGEMAKER_MULTI_MODEL": "true"}) as server:
        for _ in range(2):
            answer = load(server, "large", model)
            assert (answer.status, answer.json()["type"]) == (507, "InsufficientMemory")
            assert "killed while it loaded the model" in answer.json()["message"]
        assert names(server) == []
        assert load(server, "good", write_model(tmp_path / "good")).status == 200
        assert invoke(server, "good").status == 200


def test_a_model_that_does_not_fit_is_507_until_another_one_has_gone(tmp_path: Path) -> None:
    """Each worker may take 60 % of what is free now to decode a picture: one model fits, two do not."""
    picture_bytes = str(psutil.virtual_memory().available * 6 // 10)
    model = write_model(tmp_path / "model")
    env = {"SAGEMAKER_MULTI_MODEL": "true", "BYOC_PICTURE_BYTES": picture_bytes}
    with serving(tmp_path, tmp_path / "run", env) as server:
        assert load(server, "one", model).status == 200
        workers = server.python()
        for _ in range(2):
            answer = load(server, "two", model)
            assert (answer.status, answer.json()["type"]) == (507, "InsufficientMemory")
            assert "unload another model first" in answer.json()["message"]
        assert server.python() == workers  # nothing was started to find that out
        assert names(server) == ["one"]
        assert invoke(server, "one").status == 200
        assert load(server, "one", model).status == 409
        with concurrent.futures.ThreadPoolExecutor(4) as pool:  # nor can two share what is there for one
            assert server.request("DELETE", "/models/one").status == 200
            statuses = sorted(pool.map(lambda i: load(server, f"other{i}", model).status, range(4)))
        assert statuses == [200, 507, 507, 507]
        [name] = names(server)
        assert invoke(server, name).status == 200


@pytest.mark.docker
def test_a_container_s_memory_holds_as_many_models_as_it_holds(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_model(models / "tiny")
    env = {"SAGEMAKER_MULTI_MODEL": "true", "BYOC_PICTURE_BYTES": "10000000"}
    memory = ("--memory", "700m", "--memory-swap", "700m")
    with serving(models, tmp_path / "run", env, kind="docker", prefix=memory) as server:
        loaded: list[str] = []
        answer = load(server, "model0", "/opt/ml/model/tiny")
        while answer.status == 200:
            loaded.append(f"model{len(loaded)}")
            assert invoke(server, loaded[-1]).status == 200
            answer = load(server, f"model{len(loaded)}", "/opt/ml/model/tiny")
        assert (answer.status, answer.json()["type"]) == (507, "InsufficientMemory")
        assert 2 <= len(loaded) <= 20
        assert names(server) == sorted(loaded)
        assert [invoke(server, name).status for name in loaded] == [200] * len(loaded)
        for name in loaded[:2]:  # what a model has is less than what it takes while it is loaded
            assert server.request("DELETE", f"/models/{name}").status == 200
        assert load(server, "another", "/opt/ml/model/tiny").status == 200
        assert [invoke(server, name).status for name in (*loaded[2:], "another")] == [200] * (len(loaded) - 1)
        assert "killed" not in server.log()


def test_models_are_listed_in_pages(server: Server, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    for name in ("c", "a", "b"):
        assert load(server, name, model).status == 200
    page = server.request("GET", "/models?limit=2").json()
    assert [item["modelName"] for item in page["models"]] == ["a", "b"]
    assert page["models"][0]["modelUrl"] == str(model)
    rest = server.request("GET", f"/models?limit=2&next_page_token={page['nextPageToken']}").json()
    assert rest == {"models": [{"modelName": "c", "modelUrl": str(model)}]}
    for odd in ("limit=-1", "limit=x&next_page_token=-7", "limit=2147483647", "next_page_token="):
        assert len(server.request("GET", f"/models?{odd}").json()["models"]) == 3
    assert server.request("GET", "/models?limit=2147483647&next_page_token=2147483647").json() == {"models": []}


def test_a_process_that_is_killed_as_it_starts_holds_nobody_up(server: Server, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    assert load(server, "steady", model).status == 200
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for turn in range(4):  # more than the front end has threads that serve connections here
            before = {process.pid for process in server.python()}
            begun = time.monotonic()
            loading = pool.submit(load, server, f"model{turn}", model)
            until(functools.partial(new, server, before), "a process that starts", 10)
            for process in new(server, before):
                process.kill()
            while not loading.done():
                assert server.ping() == 200
                assert invoke(server, "steady").status == 200
            assert loading.result().status == 200
            assert time.monotonic() - begun < 20
            assert invoke(server, f"model{turn}").status == 200


def test_models_that_come_and_go_at_once_hold_nobody_up(server: Server, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    assert load(server, "steady", model).status == 200
    end = time.monotonic() + 6

    def come_and_go() -> list[Answer]:
        answers = []
        while time.monotonic() < end:
            answers += [load(server, "other", model), server.request("DELETE", "/models/other")]
        return answers

    def call() -> list[Answer]:
        answers = []
        while time.monotonic() < end:
            answers.append(invoke(server, "other"))
        return answers

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        changes = [pool.submit(come_and_go) for _ in range(3)]
        calls = pool.submit(call)
        while time.monotonic() < end:
            assert server.ping() == 200
            assert "steady" in names(server)
            assert invoke(server, "steady").status == 200
        answers = [answer for change in changes for answer in change.result()]
        called = {answer.status for answer in calls.result()}
    for answer in answers:  # 500: unloaded before its worker had started
        assert answer.status in (200, 404, 409) or answer.json()["type"] == "ModelLoadFailed"
    assert {200, 404, 409} <= {answer.status for answer in answers}
    assert called <= {200, 404, 500, 503}  # but none that waited for its deadline
    assert load(server, "other", model).status in (200, 409)
    assert invoke(server, "other").status == 200
    assert not [line for line in server.log().splitlines() if "Traceback" in line]


def test_a_model_with_a_full_queue_can_be_unloaded_and_another_be_loaded(tmp_path: Path) -> None:
    model = write_model(tmp_path / "one")
    with serving(tmp_path, tmp_path / "run", {"SAGEMAKER_MULTI_MODEL": "true", "BYOC_QUEUE_SIZE": "0"}) as server:
        assert load(server, "model", model).status == 200
        for worker in server.children():
            worker.suspend()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            caught = pool.submit(invoke, server, "model")
            until(lambda: server.request("GET", "/ping").json()["in_flight"] == 1, "a request at the worker")
            assert invoke(server, "model").json()["type"] == "QueueFull"
            assert load(server, "other", model).status == 200
            assert server.request("DELETE", "/models/model").status == 200
            assert (caught.result().status, names(server)) == (503, ["other"])
        assert invoke(server, "other").status == 200


def test_a_request_can_name_no_code_and_no_url(server: Server, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    for url in ("http://127.0.0.1:1/model.mar", "s3://bucket/model", "file:///tmp", "../tmp", "model"):
        assert load(server, "other", url).status == 400
    assert server.request("POST", "/models?url=/tmp&handler=os:abort").status == 400
    assert server.request("PUT", "/models/other?min_worker=9").status == 405
    assert server.request("POST", "/invocations", b"").status == 404
    assert load(server, "mine", model, handler="os:abort", runtime="python2").status == 200
    assert invoke(server, "mine").status == 200


def test_a_name_that_is_taken_can_be_used_and_removed_and_others_are_refused(server: Server, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    for name in ("a", "0" * 32, "x" * 200, "A.b_c-1", "v1..2", "invoke", "model.tar.gz", "models", "ping"):
        assert load(server, name, model).status == 200, name
        assert invoke(server, name).status == 200, name
        assert server.request("GET", f"/models/{name}").json() == {"modelName": name, "modelUrl": str(model)}
        assert server.request("DELETE", f"/models/{name}").status == 200, name
    odd = ["", " ", ".", "..", ".a", "-a", "_a", "a/b", "a\\b", "/a", "a%2Fb", "%61", "a b", "a+b", "a?b", "a#b", "a;b"]
    odd += ["a:b", "a\n", "\0", "../a", "ä", "x" * 201, "a*", "${x}", "{0}", "a,b", "a=b", "a@b", "http://x"]
    for name in odd:
        answer = load(server, name, model)
        assert (answer.status, answer.json()["type"]) == (400, "BadModelName"), name
        assert "A-Z a-z 0-9 . _ -" in answer.json()["message"]
    bodies = [b"", b"[]", b"null", b"x", b"{", b'"a"', b"{}", b"[" * 100_000, b"\xff", b'{"model_name": null}']
    for body in (*bodies, b'{"model_name": ["a"], "url": "/tmp"}'):
        assert server.request("POST", "/models", body, {"Content-Type": "application/json"}).status == 400, body
    assert names(server) == []


def test_a_folder_that_is_none_is_refused(server: Server, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    (tmp_path / "link").symlink_to(model)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for url, status in (
        (model / "model.bin", 400), (tmp_path / "nothing", 404), (tmp_path / "dangling", 404),
        (f"{model}/../model", 400),
        (f"{model}/.", 400), ("model", 400), ("", 400), ("/tmp/\0", 400), (f"file://{model}", 400),
        ("//etc/hostname/x", 400),
    ):  # fmt: skip
        answer = load(server, "odd", url)
        assert (answer.status, answer.json()["message"].startswith("url: ")) == (status, True), (url, answer.body)
    assert names(server) == []
    assert load(server, "link", tmp_path / "link").status == 200
    assert invoke(server, "link").status == 200


def test_a_method_that_a_path_does_not_take_is_told_which_it_does(server: Server) -> None:
    for method, path, allowed in (
        ("PUT", "/models", "GET, POST"), ("POST", "/models/a", "GET, DELETE"), ("GET", "/models/a/invoke", "POST"),
        ("POST", "/ping", "GET, HEAD"),
    ):  # fmt: skip
        answer = server.request(method, path, b"")
        assert (answer.status, answer.headers["allow"]) == (405, allowed)


def test_a_killed_worker_is_replaced(server: Server, tmp_path: Path) -> None:
    assert load(server, "one", write_model(tmp_path / "one")).status == 200
    for process in server.python():
        process.kill()
    until(lambda: invoke(server, "one").status == 200, "answers again", 20)
