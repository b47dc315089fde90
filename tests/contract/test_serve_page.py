"""The routes for people and tools: the page at GET /, /info, /metrics, /openapi.json; all of them off by default."""

import concurrent.futures
import io
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from PIL import Image

from container_serve import __version__, artifact
from container_train.training import metrics
from tests.browser import Browser
from tests.conftest import both_engines
from tests.contract.models import CLASSES, picture, write_model
from tests.contract.serving import Server, serving, until
from tests.faults import routes

ON = {"BYOC_PAGE": "true"}
PATHS = [path.replace("\\", "") for path in routes.PAGE]
ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "tests" / "out"
LABEL = "<img src=x onerror=document.title='run'> 'red' & \"quoted\""
LABELS = (LABEL, "green", "blue" * 30)  # the last one in one word
DETAILS: dict[str, Any] = {
    "accuracy": {"fp32": {"valid": 0.84, "test": 0.82}, "int8": {"valid": 0.5, "test": 0.5}},
    "accuracy_interval": {"fp32": {"valid": metrics.interval(0.84, 100), "test": metrics.interval(0.82, 100)}},
    "data": {"images": {"train": 600, "valid": 100, "test": 100}, "fingerprint": "0"},
}


def described(directory: Path, labels: tuple[str, ...] = CLASSES) -> Path:
    """A model with what training says of it."""
    made = artifact.read(write_model(directory))
    known = {key: getattr(made, key) for key in ("architecture", "preprocessing", "precision")}
    artifact.write(directory, classes=labels, details=DETAILS, **known)
    return directory


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    env = {**ON, "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    with serving(described(folder / "model", LABELS), folder / "run", env) as running:
        yield running


def exposed(text: str) -> dict[str, dict[str, float]]:
    """Family -> sample with labels -> value, of Prometheus's text format, read strictly.

    https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    assert text.endswith("\n")
    assert "\r" not in text
    families: dict[str, dict[str, float]] = {}
    family, kind = "", ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split(" ")[2]
            assert family not in families, f"{family} comes twice"
            assert re.fullmatch(r"# HELP [a-z_]+ [^\\]+", line), line
            families[family], kind = {}, ""
        elif line.startswith("# TYPE "):
            found = re.fullmatch(rf"# TYPE {family} (counter|gauge|histogram)", line)
            assert found, line
            assert not families[family], "its type comes after a sample"
            kind = found[1]
            assert family.endswith("_total") == (kind == "counter")
        else:
            label = r'[a-z_]+="[^"\\\n]*"'
            found = re.fullmatch(rf"(([a-z_]+)(?:\{{{label}(?:,{label})*\}})?) (\S+)", line)
            assert found, line
            assert kind, f"{line}: has no type"
            ends = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            assert found[2] in [f"{family}{end}" for end in ends], line
            assert found[1] not in families[family], f"{line}: comes twice"
            families[family][found[1]] = float(found[3])
    for family, samples in families.items():
        assert samples or family == "byoc_requests_total", f"{family} has no sample"
        buckets = [(float(name.split('"')[1]), value) for name, value in samples.items() if "_bucket{" in name]
        assert buckets == sorted(buckets)
        assert [value for _, value in buckets] == sorted(value for _, value in buckets), "buckets are cumulative"
        if buckets:
            assert buckets[-1] == (float("inf"), samples[f"{family}_count"])
    return families


def scrape(server: Server) -> dict[str, float]:
    """Sample -> value, without the prefix of all names."""
    answer = server.request("GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = exposed(answer.body.decode())
    return {name.removeprefix("byoc_"): value for samples in families.values() for name, value in samples.items()}


def test_all_of_it_is_off_unless_asked_for(tmp_path: Path) -> None:
    with serving(write_model(tmp_path / "model"), tmp_path / "run") as server:
        for path in PATHS:
            for method in ("GET", "HEAD", "POST"):
                assert server.request(method, path).status == 404


@both_engines
def test_info_is_what_the_artifact_says(tmp_path: Path, kind: str) -> None:
    model = described(tmp_path / "model")
    with serving(model, tmp_path / "run", ON, kind=kind) as server:
        answer = server.request("GET", "/info")
        assert answer.headers["content-type"] == "application/json"
        info = answer.json()
        assert server.request("GET", "/").body.startswith(b"<!doctype html>")
        assert exposed(server.request("GET", "/metrics").body.decode())
        OpenAPIV31SpecValidator(server.request("GET", "/openapi.json").json()).validate()
    (one,) = info.pop("models")
    assert info.pop("workers_per_model") >= 1
    assert info == {"version": __version__, "max_request_bytes": 6_291_456, "timeout_seconds": 55}
    assert one == {
        "name": "model",
        "path": "/invocations",
        "architecture": "tiny",
        "precision": "fp32",
        "classes": list(CLASSES),
        "preprocessing": artifact.read(model).preprocessing.to_dict(),
        "accuracy": DETAILS["accuracy"],
        "accuracy_interval": json.loads(json.dumps(DETAILS["accuracy_interval"])),
        "images": {"train": 600, "valid": 100, "test": 100},
    }


def test_a_model_without_figures_has_none_and_one_without_a_description_has_its_name(
    tmp_path: Path, browser: Browser
) -> None:
    with serving(write_model(tmp_path / "model"), tmp_path / "run", ON) as server:
        (one,) = server.request("GET", "/info").json()["models"]
        assert (one["accuracy"], one["accuracy_interval"], one["images"]) == (None, None, None)
        for content in (b"[]", b"", b"{", b'{"data": [], "classes": 5}', b"\xff", b'{"precision": "own"}'):
            (tmp_path / "model" / "model.json").write_bytes(content)
            (one,) = server.request("GET", "/info").json()["models"]
            assert (one["name"], one["path"]) == ("model", "/invocations")
        visit(browser, server, 390)
        assert (text(browser, "facts").split(), text(browser, "state")) == (["Precision", "own"], "No photo yet.")
        assert server.invoke(picture("red")).status == 200


def test_get_and_head_answer_and_other_methods_are_told_which(server: Server) -> None:
    for path in (*PATHS, "/info/"):
        got, head = server.request("GET", path), server.request("HEAD", path)
        assert (got.status, head.status, head.body) == (200, 200, b"")
        assert head.headers["content-type"] == got.headers["content-type"]
        assert int(head.headers["content-length"]) > 0
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            answer = server.request(method, path)
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    for path, allowed in (("/invocations", "POST"), ("/ping", "GET, HEAD"), ("/execution-parameters", "GET")):
        answer = server.request("DELETE", path)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)


def test_the_page_is_not_answered_at_a_name_that_anyone_may_make(server: Server) -> None:
    own = ("localhost", "LocalHost:8080", "127.0.0.1", "192.0.2.1:80", "[::1]:8080", socket.gethostname())
    foreign = ("evil.example", "localhost.evil.example:8080", "127.0.0.1.evil.example", "evil", "localhost.", "")
    for path in PATHS:
        for host in own:
            assert server.request("GET", path, headers={"Host": host}).status == 200, host
        for host in foreign:
            answer = server.request("GET", path, headers={"Host": host})
            assert (answer.status, answer.json()["type"]) == (421, "MisdirectedRequest"), host
            assert f"not at the name {host.removesuffix(':8080')}." in answer.json()["message"]
    # SageMaker names an endpoint as it likes.
    assert server.request("GET", "/ping", headers={"Host": "evil.example"}).status == 200
    assert server.invoke(picture("red"), Host="evil.example").status == 200


def test_no_other_origin_is_let_in_and_nothing_of_another_runs(server: Server) -> None:
    origin = {"Origin": "http://elsewhere.example", "Access-Control-Request-Method": "POST"}
    for method, path in (("GET", "/"), ("GET", "/info"), ("OPTIONS", "/info"), ("OPTIONS", "/invocations")):
        answer = server.request(method, path, headers=origin)
        assert not [name for name in answer.headers if name.startswith("access-control")]
        if method == "GET":
            assert answer.headers["x-content-type-options"] == "nosniff"
    policies = set()
    for _ in range(2):
        page = server.request("GET", "/")
        policy = page.headers["content-security-policy"]
        policies.add(policy)
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        nonce = re.fullmatch(r"'(nonce-([0-9a-f-]{36}))'", rules["script-src"])
        assert nonce
        assert rules == {
            "default-src": "'none'", "script-src": f"'{nonce[1]}'", "style-src": f"'{nonce[1]}'",
            "img-src": "blob: data:", "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'",
            "frame-ancestors": "'none'",
        }  # fmt: skip
        assert page.body.decode().count(f'nonce="{nonce[2]}"') == 2
        assert not re.search(rb"""(src|href|action)="?'?(https?:)?//|\bon\w+=|@import|url\(""", page.body)
    assert len(policies) == 2, "a nonce is for one answer"


def test_metrics_count_requests_durations_and_restarts(tmp_path: Path) -> None:
    env = {**ON, "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    with serving(write_model(tmp_path / "model"), tmp_path / "run", env) as server:
        assert [server.invoke(picture("red")).status for _ in range(3)] == [200] * 3
        assert server.invoke(b"no image").status == 400
        assert server.invoke(b"", "text/html").status == 415
        assert server.request("GET", "/nowhere").status == 404
        now = scrape(server)
        counts = {code: now[f'requests_total{{route="invocations",code="{code}"}}'] for code in (200, 400, 415)}
        assert counts == {200: 3, 400: 1, 415: 1}
        assert now['requests_total{route="none",code="404"}'] == 1
        assert now['requests_total{route="ping",code="200"}'] >= 1
        assert now["request_duration_seconds_count"] == 5
        assert 0 < now["request_duration_seconds_sum"] < 60
        assert (now["workers"], now["requests_waiting"], now["requests_in_flight"]) == (1, 0, 0)
        assert now["worker_restarts_total"] == 0
        documented = re.findall(r"^\| `(byoc_\w+)", (ROOT / "docs" / "serving.md").read_text(), re.MULTILINE)
        assert set(documented) == set(exposed(server.request("GET", "/metrics").body.decode()))
        for process in ("supervisor", "front_end", "workers"):
            assert 5e6 < now[f'resident_memory_bytes{{process="{process}"}}'] < 5e9

        (worker,) = server.children()
        worker.suspend()  # what it has and what comes now waits
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(server.invoke, picture("red")) for _ in range(3)]
            until(lambda: scrape(server)["requests_in_flight"] == 3, "three requests in flight")
            assert scrape(server)["requests_waiting"] == 2
            worker.resume()
            assert [one.result().status for one in asked] == [200] * 3
        worker.kill()
        until(lambda: scrape(server)["worker_restarts_total"] == 1, "a restart")
        until(lambda: scrape(server)["workers"] == 1, "another worker")
        assert scrape(server)['requests_total{route="invocations",code="200"}'] == 6


@pytest.mark.parametrize("several", [False, True])
def test_the_document_names_every_route_and_no_other(tmp_path: Path, several: bool) -> None:
    env = {**ON, "SAGEMAKER_MULTI_MODEL": str(several).lower()}
    with serving(write_model(tmp_path / "model"), tmp_path / "run", env) as server:
        document = server.request("GET", "/openapi.json").json()
        assert (document["openapi"], document["info"]["version"]) == ("3.1.0", __version__)
        OpenAPIV31SpecValidator(document).validate()
        table = {**(routes.MULTI if several else routes.SINGLE), **routes.PAGE}
        named = {path.replace("{name}", "one"): set(item) - {"parameters"} for path, item in document["paths"].items()}
        for path, methods in table.items():
            (found,) = [methods for name, methods in named.items() if re.fullmatch(path, name)]
            assert {method.upper() for method in found} == set(methods)
        assert len(named) == len(table)
        for path in named:
            answer = server.request("PROPFIND", path)
            assert (answer.status, set(answer.headers["allow"].lower().split(", "))) == (405, named[path])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def choose(browser: Browser, file: Path) -> None:
    """As a person does in the dialogue of an operating system."""
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])


def drop(browser: Browser, file: Path) -> None:
    where = {"x": 20, "y": 20, "data": {"items": [], "files": [str(file)], "dragOperationsMask": 1}}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.call("Input.dispatchDragEvent", type=kind, **where)


def visit(browser: Browser, server: Server, width: int, *, dark: bool = False) -> str:
    """The page, once it has asked what is served; its origin."""
    origin = f"http://127.0.0.1:{server.port}"
    browser.open(f"{origin}/", width, dark=dark)
    browser.wait("document.getElementById('version').textContent !== ''")
    return origin


def answered(browser: Browser, name: str) -> list[list[Any]]:
    """Wait for the answer to the photo of that name: label, share in words, width of the bar's part of its track."""
    browser.wait(f"document.getElementById('hint').textContent === {json.dumps(name)}")
    browser.wait("document.getElementById('latency').textContent !== ''")
    rows: list[list[Any]] = browser.ask(
        "[...document.querySelectorAll('#bars li')].map(row => [...[...row.querySelectorAll('span')].map(s =>"
        " s.textContent), row.querySelector('b').offsetWidth / row.querySelector('i').offsetWidth])"
    )
    return rows


def text(browser: Browser, name: str) -> str:
    found: str = browser.ask(f"document.getElementById('{name}').innerText")
    return found


def photo(file: Path, color: str = "#aa826e") -> Path:
    """Of a colour that has something of all three classes, the most of red."""
    file.write_bytes(picture(color, size=(480, 360)))
    return file


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_a_photo_is_answered_with_bars_and_a_wrong_file_with_a_sentence(
    browser: Browser, server: Server, tmp_path: Path, width: int, dark: bool
) -> None:
    origin = visit(browser, server, width, dark=dark)
    facts = text(browser, "facts")
    for said in ("tiny", "fp32", "82.0 % of 100 images", "73 to 88 %"):
        assert said in facts
    assert text(browser, "title") == "tiny, 3 classes"
    choose(browser, photo(tmp_path / "it's red.jpg"))
    rows = answered(browser, "it's red.jpg")
    assert rows[0][0] == LABEL, "the label, as text"
    assert sum(float(row[1].rstrip(" %")) for row in rows) == pytest.approx(100, abs=0.2)
    for _, share, part in rows:
        assert part == pytest.approx(float(share.rstrip(" %")) / 100, abs=0.02)
    assert re.fullmatch(
        r"\d+ ms in this browser; on the server [\d.]+ ms to decode, [\d.]+ ms in the model", text(browser, "latency")
    )
    command = text(browser, "curl")
    assert "--data-binary '@it'\\''s red.jpg'" in command
    assert command.endswith(f"{origin}/invocations")
    assert browser.ask("document.documentElement.scrollWidth") == width, "the page scrolls sideways"
    assert browser.ask("document.getElementById('preview').naturalWidth") == 480
    assert browser.ask("getComputedStyle(document.querySelector('.button')).display !== 'none'") == (width == 390)
    assert browser.ask("document.title") == "Try tiny"
    browser.screenshot(SHOTS / f"page-{width}-{'dark' if dark else 'light'}.png")
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith(origin)] == []

    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    drop(browser, tmp_path / "broken.jpg")
    assert answered(browser, "broken.jpg") == []
    said = server.invoke(b"not an image").json()
    assert text(browser, "state") == f"400 {said['type']}: {said['message']}"
    assert not browser.ask("document.getElementById('preview').checkVisibility()")
    browser.screenshot(SHOTS / f"page-{width}-{'dark' if dark else 'light'}-error.png")
    # Chromium itself says of every 400 that there was one.
    assert [problem for problem in browser.problems if "status of 400" not in problem] == []

    drop(browser, photo(tmp_path / "blue.png", "blue"))
    assert answered(browser, "blue.png")[0][0] == LABELS[2]
    browser.ask("document.querySelector('details').open = true")
    shown = "[...document.querySelectorAll('li, dd, span, pre, section, label')].filter(each => each.offsetParent)"
    assert browser.ask(f"{shown}.filter(each => each.scrollWidth > each.clientWidth && each.clientWidth).length") == 0
    assert text(browser, "state") == ""


def test_the_curl_command_gives_the_same_answer(browser: Browser, server: Server, tmp_path: Path) -> None:
    visit(browser, server, 1440)
    file = photo(tmp_path / "$(touch pwned) 'red'.jpg")
    choose(browser, file)
    rows = answered(browser, file.name)
    command, env = ["bash", "-c", text(browser, "curl")], {**os.environ, "no_proxy": "127.0.0.1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=env)
    (first, *_) = json.loads(done.stdout)["predictions"]
    assert (first["label"], f"{100 * first['probability']:.1f} %") == (rows[0][0], rows[0][1])
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_keys_alone_reach_everything(browser: Browser, server: Server) -> None:
    visit(browser, server, 1440)
    reached = []
    for _ in range(6):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        name, outlined = browser.ask(
            "(() => { const on = document.activeElement, shown = on.type === 'file' ? on.closest('label') : on;"
            " return [on.id || on.localName, getComputedStyle(shown).outlineStyle === 'solid'] })()"
        )
        assert outlined, f"nothing shows that {name} has the focus"
        reached.append(name)
    assert reached == ["file", "copy", "count", "a", "a", "a"]
    for kind, more in (("keyDown", {"text": "\r"}), ("keyUp", {})):
        browser.ask("document.querySelector('summary').focus()")
        browser.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, **more)
    assert text(browser, "labels").splitlines() == list(LABELS)


def test_the_policy_stops_what_got_into_the_page_all_the_same(browser: Browser, server: Server) -> None:
    visit(browser, server, 1440)
    browser.ask(f"document.getElementById('bars').innerHTML = {json.dumps(LABEL)}")
    browser.wait("document.querySelector('#bars img').complete")
    assert browser.ask("document.title") == "Try tiny"
    asked = browser.ask("fetch('http://localhost:9/').then(() => 'sent', error => error.name)")
    assert asked == "TypeError"
    assert [one for one in browser.problems if "violates" in one and "onerror" not in one], browser.problems


def test_limits_of_the_server_hold_and_are_said(browser: Browser, tmp_path: Path) -> None:
    env = {**ON, "SAGEMAKER_MAX_REQUEST_SIZE": "100000"}
    with serving(write_model(tmp_path / "model"), tmp_path / "run", env) as server:
        visit(browser, server, 390)
        noise = np.random.default_rng(0).integers(0, 255, (600, 600, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "PNG")
        (tmp_path / "large.png").write_bytes(buffer.getvalue())
        choose(browser, tmp_path / "large.png")
        browser.wait("document.getElementById('state').className === 'bad'")
        assert text(browser, "state") == "413 PayloadTooLarge: The body is larger than 100000 bytes."
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
        choose(browser, photo(tmp_path / "red.jpg"))
        browser.wait("document.getElementById('state').textContent.startsWith('The server did not answer')")


def test_several_models_are_listed_and_each_can_be_tried(browser: Browser, tmp_path: Path) -> None:
    env = {**ON, "SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"}
    models = [described(tmp_path / name, labels) for name, labels in (("one", CLASSES), ("two", ("a", "b", "c")))]
    with serving(tmp_path, tmp_path / "run", env) as server:
        assert server.request("GET", "/info").json()["models"] == []
        visit(browser, server, 1440)
        assert text(browser, "state").startswith("No model is loaded yet")
        for model in models:
            body = json.dumps({"model_name": model.name, "url": str(model)}).encode()
            assert server.request("POST", "/models", body).status == 200
        listed = server.request("GET", "/info").json()["models"]
        assert [(one["name"], one["path"], one["classes"]) for one in listed] == [
            ("one", "/models/one/invoke", list(CLASSES)),
            ("two", "/models/two/invoke", ["a", "b", "c"]),
        ]
        visit(browser, server, 390)
        assert browser.ask("[...document.getElementById('model').options].map(each => each.text)") == ["one", "two"]
        browser.ask("document.getElementById('model').value = 'two';"
                    " document.getElementById('model').dispatchEvent(new Event('change'))")  # fmt: skip
        choose(browser, photo(tmp_path / "blue.jpg", "blue"))
        assert answered(browser, "blue.jpg")[0][0] == "c"
        assert text(browser, "curl").endswith("/models/two/invoke")
        assert browser.ask("document.documentElement.scrollWidth") == 390
        assert browser.problems == []
        assert server.request("DELETE", "/models/one").status == 200
        assert [one["name"] for one in server.request("GET", "/info").json()["models"]] == ["two"]
        now = scrape(server)
        assert now['requests_total{route="invoke_model",code="200"}'] == 1
        assert now["worker_restarts_total"] == 0
