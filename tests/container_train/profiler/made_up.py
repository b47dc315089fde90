"""Made-up outputs of jobs, in the files' own formats: a long one, a sick one, and those that went wrong."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from container_train.monitoring.findings import Evidence, Finding

START = 1_795_368_000.0  # 2026-11-22 17:20 UTC
LAYERS = ["fc.weight", "fc.bias"]

HEALTHY = [
    Finding("vanishing_gradient", "debugger", "ok", "The mean absolute gradient stayed above 1e-7.", checked=40),
    Finding("overfit", "debugger", "ok", "Validation loss stayed near the training loss.", checked=10),
    Finding("dead_relu", "debugger", "not_applicable", "A single new linear layer has no ReLU."),
    Finding("cpu_bottleneck", "profiler", "ok", "The CPU was over 90 % busy in 2 % of the time.", checked=7000),
    Finding("step_outlier", "profiler", "waiting", "12 of the 50 steps that it takes before it judges."),
]
SICK = [
    Finding(
        "overfit", "debugger", "fired", "Validation loss is 34 % above training loss since step 1200.",
        "Stop earlier (patience), augment the pictures (augment=crop), or add weight-decay.",
        {"ratio_threshold": 0.1, "patience": 1}, 10, 4,
        Evidence(0.34, 0.1, 1200, "EVAL", "CrossEntropyLoss_output_0"),
        Evidence(0.61, 0.1, 3000, "EVAL", "CrossEntropyLoss_output_0"),
    ),
    Finding(
        "dataloader", "profiler", "fired", "Steps waited for pictures during 62 % of their time.",
        "Raise workers to the number of cores, or store the pictures smaller (prepare_data.py --resize).",
        {"wait_threshold": 0.3}, 3000, 1890, Evidence(0.62, 0.3, 40), Evidence(0.62, 0.3, 2999),
    ),
    Finding(
        "low_gpu_utilization", "profiler", "fired", "GPU 0 was 31 % busy at its 95th percentile.",
        "First do what data loader says; then raise batch-size.", {"threshold_p95": 70}, 7000, 60,
        Evidence(31.0, 70.0, time=START + 120), Evidence(33.0, 70.0, time=START + 3000),
    ),
    Finding("batch_size", "profiler", "fired", "GPU memory is 22 % used.", "Raise batch-size to 256.", {}, 100, 7),
    Finding("exploding_tensor", "debugger", "error", "KeyError: 'loss'"),
    *(finding for finding in HEALTHY if finding.rule != "overfit"),
]  # fmt: skip


def write(
    out: Path,
    *,
    seconds: float = 300.0,
    interval: float = 0.5,
    cores: int = 2,
    gpus: int = 0,
    steps: int = 3000,
    epochs: int = 10,
    layers: Iterable[str] = LAYERS,
    rules: Iterable[Finding] = HEALTHY,
    final: bool = True,
    start: float = START,
    **job: Any,
) -> Path:
    """A job that ran for `seconds`; further keywords overwrite what stands in job.json."""
    profiler = out / "profiler"
    profiler.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(int(steps))
    _job(profiler, start, seconds, interval, gpus, steps, epochs, job)
    if interval:
        _system(profiler, start, seconds, interval, cores, gpus, rng)
    _timeline(profiler, start, seconds, steps, epochs, rng)
    layers = list(layers)
    if layers and steps:
        _tensors(profiler, steps, epochs, layers, rng)
    content = {"final": final, "rules": [asdict(rule) for rule in rules]}
    (out / "rules.json").write_text(json.dumps(content))
    return out


def _job(
    profiler: Path, start: float, seconds: float, interval: float, gpus: int, steps: int, epochs: int,
    more: Mapping[str, Any],
) -> None:  # fmt: skip
    content = {
        "job": "dogs-20261122-172000-a1b2", "image": "byoc-train:0.1.0-1a2b3c4d5e6f", "host": "algo-1",
        "hosts": ["algo-1"], "started": start, "ended": start + seconds, "status": "completed", "reason": "",
        "hyperparameters": {"epochs": max(epochs, 2), "lr": 0.001, "batch-size": 64, "arch": "resnet50"},
        "classes": 120, "images": {"train": 4800, "valid": 600, "test": 600},
        "device": "cuda" if gpus else "cpu", "cpus": 2.0, "memory_bytes": 16e9, "gpus": ["NVIDIA A10G"] * gpus,
        "versions": {"torch": "2.13.0", "smdebug": "1.0.34", "python": "3.11.7"},
        "profile_interval_ms": int(1000 * interval), "steps_per_epoch": max(1, steps // max(1, epochs)),
        "debug": {"state": "on", "reason": "", "interval": 25, "trained": "the last layer", "pretrained": True},
    }  # fmt: skip
    (profiler / "job.json").write_text(json.dumps({**content, **more}))


def _system(
    profiler: Path, start: float, seconds: float, interval: float, cores: int, gpus: int, rng: np.random.Generator
) -> None:
    number = int(seconds / interval)
    times = start + interval * np.arange(number) + rng.uniform(0, 0.003, number)
    wave = 0.5 + 0.5 * np.sin(np.arange(number) * interval / 60)
    columns: list[tuple[str, str, str, Any]] = []

    def column(kind: str, name: str, dimension: str, level: float, noise: float, top: float = 100.0) -> None:
        values = np.clip(level * (0.4 + 0.6 * wave) + rng.normal(0, noise, number), 0, top)
        columns.append((kind, name, dimension, np.round(values, 2)))

    for core in range(cores):
        column("cpu", f"cpu{core}", "CPUUtilization", 95 if core < 2 else 30, 8)
        column("cpu", f"cpu{core}", "I/OWaitPercentage", 4, 2)
    column("cpu", "container", "ContainerCPUUtilization", 80, 6)
    column("memory", "MemoryUsedPercent", "", 55, 1)
    for name in ("ReadThroughputInBytesPerSecond", "WriteThroughputInBytesPerSecond"):
        column("i/o", name, "", 4e7, 1e7, 1e12)
    for name in ("ReceiveBytesPerSecond", "TransmitBytesPerSecond"):
        column("network", name, "Algorithm", 2e6, 1e6, 1e12)
    for gpu in range(gpus):
        column("gpu", f"gpu{gpu}", "GPUUtilization", 60 - 10 * gpu, 10)
        column("gpu", f"gpu{gpu}", "GPUMemoryUtilization", 22, 0.5)
        column("gpu", f"gpu{gpu}", "GPUPowerInWatts", 180, 12, 1e6)
        column("gpu", f"gpu{gpu}", "GPUTemperatureInCelsius", 61, 1, 1e6)
    heads = [
        json.dumps({"Type": kind, "Name": name, "Dimension": dimension}, separators=(",", ":"))[:-1] + ',"Value":'
        for kind, name, dimension, _ in columns
    ]
    for minute in np.unique(times // 60):
        hour = np.datetime64(int(minute) * 60, "s").astype(str)[:13].replace("-", "").replace("T", "")
        folder = profiler / "system" / "incremental" / hour
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for index in np.flatnonzero(times // 60 == minute):
            tail = f',"NodeId":"algo-1","Timestamp":{times[index]:.6f}}}'
            lines += [head + f"{values[index]:.2f}" + tail for head, (*_, values) in zip(heads, columns, strict=True)]
        (folder / f"{int(minute) * 60}.algo-1.json").write_text("\n".join(lines) + "\n")


def _timeline(profiler: Path, start: float, seconds: float, steps: int, epochs: int, rng: np.random.Generator) -> None:
    records: list[dict[str, Any]] = []

    def phase(name: str, begin: float, end: float, epoch: int | None = None) -> None:
        records.append({"kind": "begin", "name": name, "start": begin, "epoch": epoch})
        records.append({"kind": "phase", "name": name, "start": begin, "end": end, "epoch": epoch})

    def at(share: float) -> float:
        return start + share * seconds

    phase("data", at(0.0), at(0.02))
    phase("model", at(0.02), at(0.03))
    phase("features", at(0.03), at(0.2))
    records.append({"kind": "begin", "name": "train", "start": at(0.2), "epoch": None})
    each = 0.65 / max(epochs, 1)
    done = 0
    for epoch in range(epochs):
        begin, number = 0.2 + epoch * each, steps // epochs
        span = 0.8 * each * seconds
        total = span / number * rng.lognormal(0, 0.08, number) / 1.02
        total[rng.integers(0, number, max(1, number // 400))] *= rng.uniform(3, 12)
        total *= span / total.sum()
        share = rng.dirichlet([60, 15, 20, 5], number) * 0.97
        for k in range(0, number, 100):
            part = slice(k, min(k + 100, number))
            records.append(
                {
                    "kind": "steps", "epoch": epoch + 1, "first": done + k, "every": 1,
                    "start": at(begin) + float(total[:k].sum()), "total": np.round(total[part], 6).tolist(),
                    **{
                        name: np.round(total[part] * share[part, i], 6).tolist()
                        for i, name in enumerate(("data", "forward", "backward", "optimizer"))
                    },
                }
            )  # fmt: skip
        done += number
        phase("evaluate", at(begin + 0.8 * each), at(begin + 0.96 * each), epoch + 1)
        phase("checkpoint", at(begin + 0.96 * each), at(begin + each), epoch + 1)
        records.append(
            {
                "kind": "epoch", "epoch": epoch + 1, "train_loss": 3 * 0.6 ** (epoch + 1),
                "train_accuracy": 1 - 0.7 ** (epoch + 1), "valid_loss": 2.2 * 0.7 ** (epoch + 1) + 0.1 * epoch,
                "valid_accuracy": 0.6 - 0.4 * 0.5 ** (epoch + 1), "images_per_second": 812.0, "time": at(begin + each),
            }
        )  # fmt: skip
    phase("train", at(0.2), at(0.85))
    phase("export", at(0.85), at(0.9))
    phase("measure", at(0.9), at(0.99))
    phase("report", at(0.99), at(1.0))
    (profiler / "timeline.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def _tensors(profiler: Path, steps: int, epochs: int, layers: list[str], rng: np.random.Generator) -> None:
    saved = np.arange(0, steps, max(1, steps // 400))
    gradients = {
        layer: {
            "step": saved.tolist(),
            "norm": (10.0 ** (-3 * depth / len(layers)) * np.exp(-saved / steps) * rng.lognormal(0, 0.2, len(saved)))
            .round(8)
            .tolist(),
        }
        for depth, layer in enumerate(layers)
    }
    losses = {
        "train": {
            "step": saved.tolist(),
            "value": (3 * np.exp(-4 * saved / steps) * rng.lognormal(0, 0.1, len(saved))).tolist(),
        }
    }
    content = {"gradients": gradients, "losses": losses}
    (profiler / "tensors.json").write_text(json.dumps(content))


def hour(out: Path) -> Path:
    """An hour on 16 cores and 4 GPUs, 500 ms, 100 000 steps: 7200 samples of 54 metrics."""
    layers = [f"layer{1 + k // 40}.{k % 40 // 4}.conv{1 + k % 3}.weight" for k in range(159)] + LAYERS
    return write(
        out, seconds=3600, cores=16, gpus=4, steps=100_000, epochs=10, layers=dict.fromkeys(layers), rules=SICK
    )


def cut(path: Path, characters: int = 37) -> None:
    """Leave a file as a killed writer does: without the end of its last line."""
    path.write_bytes(path.read_bytes()[:-characters])
