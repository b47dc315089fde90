"""LowGPUUtilization, BatchSize, GPUMemoryIncrease, LoadBalancing and OverallSystemUsage: how well devices are used."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from container_train.monitoring.findings import Evidence, Finding
from container_train.profiler import store
from container_train.profiler.evidence import Context, at, fired, not_applicable, ok, waiting, windows

BINS = 10  # of the histograms of utilisation, 10 % each


def low_gpu(context: Context, parameters: Mapping[str, Any]) -> Finding:
    """LowGPUUtilization, of each GPU: 95th percentile below `threshold_p95` (unused), or above it and the 5th below
    `threshold_p5` (fluctuating), over the last `window` values, from `patience` values on.

    https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html
    """
    gpus, patience, window = context.gpus(), int(parameters["patience"]), int(parameters["window"])
    if not gpus:
        return context.no_gpu()
    high, low = float(parameters["threshold_p95"]), float(parameters["threshold_p5"])
    hits: list[tuple[str, Evidence]] = []
    checked = 0
    for (node, name), series in gpus.items():
        for part in windows(len(series.values), patience, window):
            checked += 1
            p5, p95 = np.percentile(series.values[part], [5, 95])
            where, time = f"{node}/{name}", float(series.times[part][-1])
            if p95 < high:
                words = f"the 95th percentile of {where}'s utilisation was {p95:.0f} %, below {high:g} %"
                hits.append((words, Evidence(float(p95), high, tensor=where, time=time)))
            elif p5 < low:
                words = f"{where}'s utilisation fluctuates: 5th percentile {p5:.0f} %, below {low:g} %"
                hits.append((words, Evidence(float(p5), low, tensor=where, time=time)))
    if not checked:
        return waiting(max(len(series.values) for series in gpus.values()), patience)
    if not hits:
        return ok(f"no GPU was below {high:g} % (95th percentile) or {low:g} % (5th)", checked)
    return fired(
        hits[-1][0],
        "look at dataloader, cpu_bottleneck and io_bottleneck; raise batch-size, or use a smaller instance",
        checked, len(hits), hits[0][1], hits[-1][1],
    )  # fmt: skip


def batch_size(context: Context, parameters: Mapping[str, Any]) -> Finding:
    """BatchSize: the 95th percentiles of CPU, GPU and GPU memory are all below `cpu_threshold_p95`,
    `gpu_threshold_p95` and `gpu_memory_threshold_p95`, over the last `window` values, from `patience` values on.

    https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html. Our choice where that is
    open: means over the host's cores and GPUs, as it speaks of averages.
    """
    gpus, patience, window = context.gpus(), int(parameters["patience"]), int(parameters["window"])
    if not gpus:
        return context.no_gpu()
    kinds = {
        "CPU": (store.CPU, float(parameters["cpu_threshold_p95"])),
        "GPU": (store.GPU, float(parameters["gpu_threshold_p95"])),
        "GPU memory": (store.GPU_MEMORY, float(parameters["gpu_memory_threshold_p95"])),
    }
    hits: list[tuple[str, Evidence]] = []
    checked = 0
    for node in sorted({node for node, _ in gpus}):
        times = next(series.times for (where, _), series in gpus.items() if where == node)
        values = {
            kind: np.mean([at(s, times) for s in context.system.series(name, node).values()], axis=0)
            for kind, (name, _) in kinds.items()
            if context.system.series(name, node)
        }
        if len(values) < len(kinds):
            continue
        for part in windows(len(times), patience, window):
            checked += 1
            p95 = {kind: float(np.percentile(values[kind][part], 95)) for kind in kinds}
            if all(p95[kind] < kinds[kind][1] for kind in kinds):
                words = ", ".join(f"{kind} {value:.0f} %" for kind, value in p95.items())
                found = Evidence(p95["GPU"], kinds["GPU"][1], tensor=node, time=float(times[part][-1]))
                hits.append((f"95th percentiles on {node}: {words}; all are low", found))
    if not checked:
        return waiting(max(len(series.values) for series in gpus.values()), patience)
    if not hits:
        return ok("CPU, GPU or GPU memory are used well enough", checked)
    return fired(
        hits[-1][0], "raise batch-size (and lr with it), or use a smaller instance", checked, len(hits), hits[0][1],
        hits[-1][1],
    )  # fmt: skip


def memory_increase(context: Context, parameters: Mapping[str, Any]) -> Finding:
    """GPUMemoryIncrease: the mean of the last `window` values is more than `increase` percentage points above the same
    mean `scan_interval_us` before, from `patience` values on.

    https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html. It says "absolute increase",
    with 5 % as the default and "from 5% to 6%" as an example: percentage points here. "Previous iteration" is taken for
    the scan before.
    """
    gpus = context.gpus(store.GPU_MEMORY)
    patience, window = int(parameters["patience"]), int(parameters["window"])
    if not gpus:
        return context.no_gpu()
    increase, scan = float(parameters["increase"]), float(parameters["scan_interval_us"]) / 1e6
    hits: list[tuple[str, Evidence]] = []
    checked = 0
    for (node, name), series in gpus.items():
        if len(series.values) < max(patience, window):
            continue
        scans = np.arange(series.times[max(patience, window) - 1], series.times[-1] + 1e-3, scan)
        ends = np.searchsorted(series.times, scans + 1e-3, side="right")
        means = [float(series.values[max(0, end - window) : end].mean()) for end in ends]
        for (before, after), time in zip(itertools.pairwise(means), scans[1:], strict=True):
            checked += 1
            if after - before > increase:
                words = f"{node}/{name}: memory in use went from {before:.0f} % to {after:.0f} % within {scan:g} s"
                hits.append((words, Evidence(after - before, increase, tensor=f"{node}/{name}", time=float(time))))
    if not checked:
        return waiting(max(len(series.values) for series in gpus.values()), patience + 1)
    if not hits:
        return ok(f"memory in use never grew by more than {increase:g} percentage points within {scan:g} s", checked)
    return fired(
        hits[-1][0],
        "look for tensors that are kept from step to step (a loss that is summed up without .item(), lists of outputs)",
        checked, len(hits), hits[0][1], hits[-1][1],
    )  # fmt: skip


def load_balancing(context: Context, parameters: Mapping[str, Any]) -> Finding:
    """LoadBalancing: the histograms of the utilisation of two GPUs differ by more than `threshold`, from `patience`
    values on; where there are several hosts without GPUs, of the hosts' CPUs.

    https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html. Our choice where that is
    open: bins of 10 %, and half the sum of the absolute differences as the distance: 0 equal, 1 nothing in common.
    """
    series = context.gpus()
    nodes = context.system.nodes()
    if len(series) < 2 and len(nodes) > 1:
        series = {
            (node, "CPU"): store.Series(own[0].times, np.mean([at(s, own[0].times) for s in own], axis=0))
            for node in nodes
            if (own := list(context.system.series(store.CPU, node).values()))
        }
    if not nodes:
        return context.no_gpu()
    if len(series) < 2:
        what = "one GPU" if series else "no GPU"
        return not_applicable(f"there is {what} on {len(nodes)} host{'s' * (len(nodes) > 1)}: nothing to balance")
    patience, threshold = int(parameters["patience"]), float(parameters["threshold"])
    have = min(len(each.values) for each in series.values())
    if have < max(patience, 1):
        return waiting(have, patience)
    shares = {key: np.histogram(each.values, BINS, (0, 100))[0] / len(each.values) for key, each in series.items()}
    pairs = list(itertools.combinations(shares, 2))
    distances = [float(np.abs(shares[a] - shares[b]).sum() / 2) for a, b in pairs]
    worst = int(np.argmax(distances))
    (node, name), (other_node, other) = pairs[worst]
    words = f"{node}/{name} and {other_node}/{other} differ most in their use, by {distances[worst]:.2f} of 1"
    hits = [i for i, distance in enumerate(distances) if distance > threshold]
    if not hits:
        return ok(words, len(pairs))
    found = Evidence(distances[worst], threshold, tensor=f"{node}/{name}", time=float(series[node, name].times[-1]))
    return fired(words, "give every GPU and host the same share of the pictures", len(pairs), len(hits), found)


def overall(context: Context, _parameters: Mapping[str, Any]) -> Finding:
    """OverallSystemUsage: percentiles of what each host used. It has no threshold and never fires.

    https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html
    """
    nodes = context.system.nodes()
    if not nodes:
        return not_applicable("there are no system metrics (profile-interval is 0, or the job was too short)")
    parts, checked = [], 0
    for node in nodes:
        words = []
        for label, name in (
            ("CPU", store.CPU), ("memory", store.MEMORY), ("waiting for disks", store.IO_WAIT), ("GPU", store.GPU),
            ("GPU memory", store.GPU_MEMORY),
        ):  # fmt: skip
            own = list(context.system.series(name, node).values())
            if own:
                values = np.mean([at(each, own[0].times) for each in own], axis=0)
                checked = max(checked, len(values))
                p50, p95 = np.percentile(values, [50, 95])
                words.append(f"{label} {p50:.0f} % (95th percentile {p95:.0f} %)")
        parts.append(f"{node}: {', '.join(words)}")
    return ok("; ".join(parts), checked)
