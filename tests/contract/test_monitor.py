"""`train` with debugger and profiler on: what a job leaves when it ends well, is stopped, fails, is killed, or is ended
by a rule. The real side processes, over a real tree."""

import contextlib
import gzip
import json
import re
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from container_train.monitoring.monitor import REPORT, RULES
from container_train.monitoring.sidecar import SAMPLER, WATCHER
from container_train.profiler import rules, store
from tests import trees
from tests.conftest import both_engines_in_full
from tests.contract.training import Job, training

ON = {"debug": "on", "profile-interval": "100"}


def watched(base: Path, **hyperparameters: str) -> Path:
    return trees.tree(base, {**ON, **{key.replace("_", "-"): value for key, value in hyperparameters.items()}})


def output(base: Path) -> Path:
    return base / "output" / "data"


def verdicts(base: Path) -> dict[str, dict[str, Any]]:
    content = json.loads((output(base) / RULES).read_text())
    assert content["final"], "the last look was not made"
    return {rule["rule"]: rule for rule in content["rules"]}


def is_readable(base: Path, *words: str) -> bool:
    page = (output(base) / REPORT).read_text()
    assert page.rstrip().endswith("</html>")
    return all(word in page for word in words)


def sidecars(job: Job) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(job.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(name in process.cmdline() for name in (WATCHER, SAMPLER)):
                found.append(process)
    return found


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended; nobody may have asked yet how the others did."""
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@both_engines_in_full
def test_a_job_that_a_rule_ends_leaves_the_report_the_rules_and_the_raw_files(kind: str, tmp_path: Path) -> None:
    # Every evaluation counts as overfit with such a threshold.
    rule = "overfit:ratio_threshold=-1000;step_outlier:n_outliers=5"
    watched(tmp_path, epochs="2000", torch_profile="2:4", on_rule="stop", rule=rule)
    family: list[psutil.Process] = []
    with training(kind, tmp_path) as job:
        if kind == "process":
            job.wait_for("epoch=1\n")
            assert len(sidecars(job)) == 2
            family = psutil.Process(job.process.pid).children(recursive=True)
        assert job.wait() == 0, job.text()
    assert not running(family)
    out = output(tmp_path)
    assert is_readable(tmp_path, "mobilenet_v3_small")
    found = verdicts(tmp_path)
    assert set(found) > set(rules.DEFAULTS)
    assert not [rule for rule in found.values() if rule["status"] in ("waiting", "error")], found
    assert found["step_outlier"]["parameters"]["n_outliers"] == 5
    assert found["low_gpu_utilization"]["status"] == "not_applicable"
    facts = store.job(out)
    assert (facts["status"], facts["problems"]) == ("completed", []), job.text()
    assert facts["reason"].startswith("stopped early by rule overfit: ")
    assert (facts["debug"]["state"], facts["debug"]["trained"]) == ("on", "the last layer")
    assert facts["class_counts"] == {"red": 10, "green": 10, "blue": 10}
    (memory,) = store.system(out).series(store.MEMORY).values()
    assert len(memory.times) > 10
    phases = {phase.name for phase in store.timeline(out).phases}
    assert phases == {"data", "model", "features", "train", "evaluate", "checkpoint", "export", "measure", "report"}
    # The best epoch of those that were trained is kept.
    assert "stopping early: rule overfit: " in job.text()
    assert json.loads((tmp_path / "model" / "model.json").read_text())["stopped_by"].startswith("rule overfit: ")
    metrics = json.loads((out / "metrics.json").read_text())
    done = len(metrics["epochs"])
    assert 1 <= done < 2000
    assert 0 <= len(store.timeline(out).steps) - 4 * done < 4  # the rule may have ended it within an epoch
    assert [row["epoch"] for row in store.timeline(out).epochs] == list(range(1, done + 1))
    assert len(store.system(out).series(store.CPU)) == len(psutil.Process().cpu_affinity())
    with gzip.open(out / "profiler" / "trace.json.gz") as file:
        assert json.load(file)["traceEvents"]
    assert f"output/data/{REPORT}; " in job.text()
    fired = [name for name, rule in found.items() if rule["status"] == "fired"]
    assert "overfit" in fired
    assert re.findall(r"^rule (\w+) fired \(\w+\): ", job.text(), re.MULTILINE) == fired
    # What others read of a job is as it was.
    assert set(metrics["seconds"]) == {
        "data", "model", "features", "train", "export", "evaluate", "report",
    }  # fmt: skip


def weights(base: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(base / "model" / "model.pth", weights_only=True)
    return state


def test_a_stopped_job_has_its_report_goes_on_and_has_one_when_it_is_killed(tmp_path: Path) -> None:
    watched(tmp_path, epochs="10000")
    with training("process", tmp_path) as job:
        job.wait_for("epoch=3\n")
        job.stop()
        assert job.wait(110) == 143
    assert "stopped in epoch" in job.failure()
    facts = store.job(output(tmp_path))
    assert facts["status"] == "stopped"
    assert re.match(r"in epoch \d+ after ", facts["reason"])
    assert is_readable(tmp_path, "stopped")
    assert verdicts(tmp_path)
    done = int(re.findall(r"^epoch=(\d+)$", job.text(), re.MULTILINE)[-1])
    with training("process", tmp_path) as again:
        again.wait_for(f"epoch={done + 3}\n")
        found = sidecars(again)
        program = found[0].parent()
        assert program is not None
        program.kill()
        assert again.wait(110) != 0
        assert not running(found)
    assert "resuming from" in again.text()
    assert again.failure().startswith(
        "the training program was killed by SIGKILL, mostly for lack of memory: use a smaller"
    )
    assert store.job(output(tmp_path))["status"] == "failed"
    assert is_readable(tmp_path, "killed")
    assert verdicts(tmp_path)
    timeline = store.timeline(output(tmp_path))
    assert timeline.phases[-1].name in ("train", "evaluate", "checkpoint")
    # Those of this run, counted on; the platform gives a restarted job an empty output folder.
    epochs, steps = [row["epoch"] for row in timeline.epochs], timeline.steps.number.tolist()
    assert epochs == list(range(epochs[0], epochs[0] + len(epochs)))
    assert done <= epochs[0] <= done + 2 <= epochs[-1]
    assert steps == list(range(steps[0], steps[0] + len(steps)))


SLOW = {"epochs": "3", "freeze_until": "none", "feature_cache": "off", "lr": "0.0005"}


@pytest.mark.full
def test_what_watches_a_job_changes_nothing_of_it(tmp_path: Path) -> None:
    watched(tmp_path / "watched", **SLOW)
    with training("process", tmp_path / "watched") as job:
        assert job.wait() == 0, job.text()
    # With both off, which starts nothing beside it and leaves nothing of it.
    trees.tree(tmp_path / "whole", {key.replace("_", "-"): value for key, value in SLOW.items()})
    with training("process", tmp_path / "whole") as whole:
        whole.wait_for("epoch=1\n")
        assert sidecars(whole) == []
        assert whole.wait() == 0, whole.text()
    assert {path.name for path in output(tmp_path / "whole").iterdir()} == {
        "report.html", "metrics.json", "confusion_matrix.csv",
    }  # fmt: skip
    ours, theirs = weights(tmp_path / "watched"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_failed_job_says_so_in_its_report(tmp_path: Path) -> None:
    watched(tmp_path, epochs="200", lr="10", optimizer="sgd", momentum="1", weight_decay="1")
    with training("process", tmp_path) as job:
        assert job.wait() == 1, job.text()
    assert job.failure().startswith("the loss became ")
    facts = store.job(output(tmp_path))
    assert facts["status"] == "failed"
    assert facts["reason"].startswith("the loss became ")
    assert is_readable(tmp_path, "the loss became")
    found = verdicts(tmp_path)
    assert any(rule["status"] == "fired" for rule in found.values()), found
