"""Each rule of the profiler on metrics that are ill in its way, on healthy ones, and where it has nothing to judge."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from container_train.monitoring.findings import Finding, Rule, parse_parameters
from container_train.profiler import rules, store
from container_train.profiler.timeline import TimelineWriter
from container_train.reporting import record
from container_train.reporting.measures import MEASURES
from tests.container_train.profiler import metrics
from tests.container_train.profiler.metrics import START

RNG = np.random.default_rng(0)
COUNT = 2000  # values; the service's patience is 1000


def judge(out: Path, rule: str, **parameters: Any) -> Finding:
    return next(finding for finding in rules.evaluate(out, {rule: parameters}) if finding.rule == rule)


def steady(value: float, count: int = COUNT) -> list[float]:
    return list(np.clip(RNG.normal(value, 2, count), 0, 100))


def half(first: float, second: float, share: float, count: int = COUNT) -> list[float]:
    """`first` in `share` of the time, evenly spread, otherwise `second`."""
    return [first if (index * 7919) % count < share * count else second for index in range(count)]


def test_every_rule_answers_for_a_job_that_left_nothing(tmp_path: Path) -> None:
    findings = rules.evaluate(tmp_path)
    assert [finding.rule for finding in findings] == list(rules.DEFAULTS)
    assert {finding.status for finding in findings} == {"not_applicable"}
    assert all(finding.reason and finding.kind == "profiler" for finding in findings)
    assert findings[0].parameters == rules.DEFAULTS["cpu_bottleneck"]


def test_a_rule_that_fails_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Finding:
        raise ZeroDivisionError("oh")

    monkeypatch.setitem(rules.RULES, "batch_size", Rule(broken, {}))
    findings = {finding.rule: finding for finding in rules.evaluate(tmp_path)}
    assert findings["batch_size"].status == "error"
    assert findings["batch_size"].reason == "the rule failed: ZeroDivisionError: oh"
    assert findings["step_outlier"].status == "not_applicable"


def test_parameters_are_read_as_users_write_them(tmp_path: Path) -> None:
    metrics.write(tmp_path, {**metrics.gpu("gpu0", steady(60)), **metrics.cpu(steady(50))})
    chosen = parse_parameters("low_gpu_utilization:threshold_p95=50,patience=100;batch_size:window=5", rules.DEFAULTS)
    findings = {finding.rule: finding for finding in rules.evaluate(tmp_path, chosen)}
    assert findings["low_gpu_utilization"].status == "ok"
    assert findings["low_gpu_utilization"].parameters["patience"] == 100
    assert judge(tmp_path, "low_gpu_utilization").status == "fired"


@pytest.mark.parametrize("rule", ["cpu_bottleneck", "io_bottleneck", "low_gpu_utilization", "batch_size",
                                  "gpu_memory_increase"])  # fmt: skip
def test_what_asks_for_gpus_says_that_there_are_none(tmp_path: Path, rule: str) -> None:
    metrics.write(tmp_path, metrics.cpu(steady(100), steady(80)))
    finding = judge(tmp_path, rule)
    assert (finding.status, "without a GPU" in finding.reason) == ("not_applicable", True)


@pytest.mark.parametrize("rule", ["cpu_bottleneck", "io_bottleneck", "low_gpu_utilization", "batch_size",
                                  "gpu_memory_increase"])  # fmt: skip
def test_patience_comes_first(tmp_path: Path, rule: str) -> None:
    few = {**metrics.gpu("gpu0", steady(1, 500), steady(1, 500)), **metrics.cpu(steady(99, 500), steady(80, 500))}
    metrics.write(tmp_path, few)
    finding = judge(tmp_path, rule)
    assert finding.status == "waiting"
    assert finding.reason.startswith("500 of 100")
    over = next(finding for finding in rules.evaluate(tmp_path, final=True) if finding.rule == rule)
    assert (over.status, over.checked) == ("not_applicable", 500)
    assert over.reason.startswith("500 of 100")


@pytest.mark.parametrize(("share", "status"), [(0.6, "fired"), (0.4, "ok")])
def test_cpu_bottleneck(tmp_path: Path, share: float, status: str) -> None:
    gpu, busy = half(2, 90, share), half(99, 30, share)
    metrics.write(tmp_path, {**metrics.gpu("gpu0", gpu), **metrics.cpu(busy), **metrics.cpu(steady(5), name="cpu1")})
    finding = judge(tmp_path, "cpu_bottleneck")
    assert finding.status == status
    assert f"{100 * share:.0f} % of the time" in finding.reason
    if status == "fired":
        assert finding.first is not None
        assert finding.last is not None
        assert (finding.first.value, finding.first.threshold) == (99, 90)
        assert finding.first.time is not None
        assert START <= finding.first.time < (finding.last.time or 0)
        assert finding.fired == 0.6 * COUNT
        assert "workers" in finding.advice


def test_cpu_bottleneck_of_a_container_with_a_quota(tmp_path: Path) -> None:
    rows = {**metrics.gpu("gpu0", steady(2)), **metrics.cpu(steady(20))}
    metrics.write(tmp_path, rows)
    assert judge(tmp_path, "cpu_bottleneck").status == "ok"
    quota = {**rows, ("cpu", "container", "ContainerCPUUtilization"): [100.0] * COUNT}
    metrics.write(tmp_path / "quota", quota)
    assert judge(tmp_path / "quota", "cpu_bottleneck").status == "fired"


def test_a_busy_cpu_beside_a_busy_gpu_is_no_bottleneck(tmp_path: Path) -> None:
    metrics.write(tmp_path, {**metrics.gpu("gpu0", steady(95)), **metrics.cpu([100.0] * COUNT)})
    assert judge(tmp_path, "cpu_bottleneck").status == "ok"


@pytest.mark.parametrize(("waiting", "status"), [(80, "fired"), (10, "ok")])
def test_io_bottleneck(tmp_path: Path, waiting: float, status: str) -> None:
    metrics.write(tmp_path, {**metrics.gpu("gpu0", steady(3)), **metrics.cpu(steady(5), steady(waiting))})
    assert judge(tmp_path, "io_bottleneck").status == status


def test_low_gpu_utilization(tmp_path: Path) -> None:
    metrics.write(tmp_path, {**metrics.gpu("gpu0", steady(95)), **metrics.gpu("gpu1", steady(30))})
    finding = judge(tmp_path, "low_gpu_utilization")
    assert finding.status == "fired"
    assert "gpu1" in finding.reason
    assert (finding.checked, finding.fired) == (6, 3)  # windows that end at 1000, 1500 and 2000, of two GPUs


def test_gpu_utilization_that_fluctuates(tmp_path: Path) -> None:
    metrics.write(tmp_path, metrics.gpu("gpu0", half(0, 98, 0.3)))
    finding = judge(tmp_path, "low_gpu_utilization")
    assert finding.status == "fired"
    assert "fluctuates" in finding.reason
    assert judge(tmp_path, "low_gpu_utilization", threshold_p5=0.0).status == "ok"


def test_a_gpu_that_was_idle_only_at_the_start_is_well_used(tmp_path: Path) -> None:
    metrics.write(tmp_path, metrics.gpu("gpu0", [0.0] * 490 + steady(95, 1600)))
    assert judge(tmp_path, "low_gpu_utilization").status == "ok"


@pytest.mark.parametrize(
    ("cpu", "gpu", "memory", "status"),
    [(20, 30, 10, "fired"), (20, 30, 90, "ok"), (90, 30, 10, "ok"), (9, 90, 9, "ok")],
)
def test_batch_size(tmp_path: Path, cpu: float, gpu: float, memory: float, status: str) -> None:
    metrics.write(tmp_path, {**metrics.gpu("gpu0", steady(gpu), steady(memory)), **metrics.cpu(steady(cpu))})
    finding = judge(tmp_path, "batch_size")
    assert finding.status == status
    if status == "fired":
        assert "batch-size" in finding.advice


def ramp(per_minute: float) -> list[float]:
    return [10 + per_minute * index / 120 for index in range(COUNT)]


@pytest.mark.parametrize(
    ("memory", "status"),
    [(ramp(8), "fired"), ([10.0] * 1500 + [30.0] * 500, "fired"), (ramp(2), "ok"), ([0.0] * 500 + [80.0] * 1500, "ok")],
)
def test_gpu_memory_increase(tmp_path: Path, memory: list[float], status: str) -> None:
    metrics.write(tmp_path, metrics.gpu("gpu0", steady(90), memory))
    finding = judge(tmp_path, "gpu_memory_increase")
    assert finding.status == status
    assert finding.checked > 5


def test_load_balancing_of_gpus(tmp_path: Path) -> None:
    metrics.write(tmp_path, {**metrics.gpu("gpu0", steady(95)), **metrics.gpu("gpu1", steady(15))})
    finding = judge(tmp_path, "load_balancing")
    assert finding.status == "fired"
    assert "gpu0 and gpu1" in finding.reason
    metrics.write(tmp_path / "even", {**metrics.gpu("gpu0", steady(94)), **metrics.gpu("gpu1", steady(95))})
    assert judge(tmp_path / "even", "load_balancing").status == "ok"


def test_load_balancing_with_nothing_to_balance(tmp_path: Path) -> None:
    metrics.write(tmp_path, metrics.gpu("gpu0", steady(90)))
    finding = judge(tmp_path, "load_balancing")
    assert (finding.status, finding.reason) == ("not_applicable", "there is one GPU: nothing to balance")


def test_overall_system_usage_has_numbers_and_never_fires(tmp_path: Path) -> None:
    rows = {**metrics.cpu([100.0] * 100, [0.0] * 100), ("memory", "MemoryUsedPercent", ""): [42.0] * 100}
    metrics.write(tmp_path, rows)
    finding = judge(tmp_path, "overall_system_usage")
    assert finding.status == "ok"
    assert "CPU 100 % (95th percentile 100 %), memory 42 %" in finding.reason
    assert finding.checked == 100


def test_the_cpu_is_the_container_s_in_the_rule_as_in_the_report(tmp_path: Path) -> None:
    """Of a machine whose other cores are somebody else's."""
    rows = {**metrics.cpu([90.0] * 100), **metrics.cpu([0.0] * 100, name="cpu1")}
    metrics.write(tmp_path, rows | {("cpu", "container", "ContainerCPUUtilization"): [80.0] * 100})
    assert "CPU 80 % (95th percentile 80 %)" in judge(tmp_path, "overall_system_usage").reason
    assert MEASURES["CPU busy"].of(record.read(tmp_path)) == pytest.approx(0.8)


def steps(out: Path, totals: Iterable[float], waited: float = 0.05, start: float = START) -> None:
    """Steps that wait for data in that share of their time."""
    timeline = TimelineWriter(out / "profiler")
    for number, total in enumerate(totals):
        work = total * (1 - waited)
        timeline.step(1, number, start, (total, total * waited, work / 2, work / 3, work / 6))
        start += total
    timeline.close()


def job(out: Path, text: str) -> None:
    (out / "profiler").mkdir(parents=True, exist_ok=True)
    (out / "profiler" / store.JOB).write_text(text)


@pytest.mark.parametrize(
    ("workers", "waited", "status"),
    [
        (4, 0.05, "ok"),
        (1, 0.3, "fired"),  # fewer than 70 % of the cores, and waited for
        (1, 0.02, "ok"),  # as few, but not waited for
        (12, 0.3, "fired"),  # more than 200 %
        (4, 0.3, "ok"),
        (4, 0.7, "fired"),  # enough of them, and still more than half of the time
    ],
)
def test_dataloader(tmp_path: Path, workers: int, waited: float, status: str) -> None:
    job(tmp_path, f'{{"cpus": 4.0, "workers": {workers}, "feature_cache": false}}')
    steps(tmp_path, [0.1] * 100, waited)
    finding = judge(tmp_path, "dataloader")
    assert finding.status == status
    assert f"{100 * waited:.0f} % of the time" in finding.reason
    if status == "fired":
        assert ("too many" in finding.reason) == (workers == 12)


def test_dataloader_as_documented(tmp_path: Path) -> None:
    job(tmp_path, '{"cpus": 4.0, "workers": 1, "feature_cache": false}')
    steps(tmp_path, [0.1] * 100, 0.0)
    assert judge(tmp_path, "dataloader", wait_threshold=0.0).status == "fired"


def test_dataloader_of_cached_features(tmp_path: Path) -> None:
    job(tmp_path, '{"cpus": 4.0, "workers": 4, "feature_cache": true}')
    steps(tmp_path, [0.1] * 100, 0.9)
    assert judge(tmp_path, "dataloader").status == "not_applicable"


def test_max_initialization_time(tmp_path: Path) -> None:
    job(tmp_path, f'{{"started": {START - 25 * 60}}}')
    timeline = TimelineWriter(tmp_path / "profiler")
    timeline.phase("data", START - 1500, START - 1400, None)
    timeline.phase("features", START - 1400, START - 1, None)
    steps(tmp_path, [0.1] * 3)
    finding = judge(tmp_path, "max_initialization_time")
    assert finding.status == "fired"
    assert finding.reason == "the first step came after 25.0 minutes, more than 20; most of it went into features"
    assert judge(tmp_path, "max_initialization_time", threshold=30.0).status == "ok"


def test_max_initialization_time_of_a_job_without_a_step(tmp_path: Path) -> None:
    job(tmp_path, f'{{"started": {START}, "ended": {START + 1300}}}')
    assert judge(tmp_path, "max_initialization_time").status == "fired"
    job(tmp_path, f'{{"started": {START}, "ended": {START + 100}}}')
    assert judge(tmp_path, "max_initialization_time").status == "waiting"


@pytest.mark.parametrize(("slow", "status"), [(15, "fired"), (10, "ok"), (0, "ok")])
def test_step_outlier(tmp_path: Path, slow: int, status: str) -> None:
    totals = np.abs(RNG.normal(0.1, 0.002, 1000).clip(0.095, 0.105))
    totals[20 : 20 + 60 * slow : 60] = 1.0
    steps(tmp_path, totals)
    finding = judge(tmp_path, "step_outlier")
    assert finding.status == status
    assert f"{slow} of 1000 steps" in finding.reason
    if status == "fired":
        assert finding.first is not None
        assert (finding.first.step, finding.fired) == (20, 15)
        assert "most time went into forward" in finding.reason


def test_too_few_steps_to_tell_an_outlier(tmp_path: Path) -> None:
    steps(tmp_path, [0.1] * 5)
    assert judge(tmp_path, "step_outlier").status == "waiting"
