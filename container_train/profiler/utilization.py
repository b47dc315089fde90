"""CPUBottleneck, IOBottleneck, LowGPUUtilization, BatchSize, GPUMemoryIncrease, LoadBalancing and OverallSystemUsage:
how well the devices of the host are used that is measured, the first one.

https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html
"""

import itertools

import numpy as np

from container_train.monitoring.findings import Evidence, Finding, Hit, Parameters, found, judged
from container_train.profiler import store
from container_train.profiler.evidence import NO_METRICS, Context, at, too_few, windows
from container_train.profiler.store import Series

BINS = 10  # of the histograms of utilization, 10 % each


def cpu_bottleneck(context: Context, parameters: Parameters) -> Finding:
    """CPUBottleneck: GPU below `gpu_threshold` % while the CPU is above `cpu_threshold` %, of all time > `threshold` %.

    Judges from `patience` values on. Our choice where that is open: the GPU's value is the mean of all GPUs; the CPU's
    is that of the busiest core (a training program that keeps one core busy is as much of a bottleneck as all cores
    decoding images), or the container's share of the cores it may use; the higher of the two.
    """
    dimensions, busy = (store.CPU, store.CONTAINER_CPU), parameters["cpu_threshold"]
    return _bottleneck(context, parameters, dimensions, busy, "the CPU was busy")


def io_bottleneck(context: Context, parameters: Parameters) -> Finding:
    """IOBottleneck: GPU below `gpu_threshold` % while a core waits for a disk in more than `io_threshold` % of its
    time, of all time > `threshold` %.

    Judges from `patience` values on. Our choice where that is open: as for the CPU, and the core that waits most.
    """
    return _bottleneck(context, parameters, (store.IO_WAIT,), parameters["io_threshold"], "a core waited for a disk")


def _bottleneck(
    context: Context, parameters: Parameters, dimensions: tuple[str, ...], limit: float, what: str
) -> Finding:
    gpus, threshold = context.series(store.GPU), parameters["threshold"]
    others = [series for name in dimensions for series in context.series(name).values()]
    if not gpus:
        return context.no_gpu()
    times = _longest(gpus).times
    idle = context.mean(store.GPU, times)
    if len(times) < parameters["patience"] or not others or idle is None:
        return too_few(len(times), parameters["patience"])
    busy = np.max([at(series, times) for series in others], axis=0)
    hits = np.flatnonzero((idle < parameters["gpu_threshold"]) & (busy > limit))
    share = 100 * len(hits) / len(times)
    reason = f"{what} while the GPU waited in {share:.0f} % of the time"
    if share <= threshold:
        return found("ok", f"{reason}, up to {threshold:g} % is normal", len(times))
    first, last = (Evidence(float(busy[i]), limit, time=float(times[i])) for i in (hits[0], hits[-1]))
    reason += f", more than {threshold:g} %"
    return found("fired", reason, len(times), fired=len(hits), first=first, last=last)


def low_gpu_utilization(context: Context, parameters: Parameters) -> Finding:
    """LowGPUUtilization, of each GPU: 95th percentile below `threshold_p95` (unused), or above it and the 5th below
    `threshold_p5` (fluctuating), over the last `window` values, from `patience` values on."""
    gpus, patience = context.series(store.GPU), parameters["patience"]
    if not gpus:
        return context.no_gpu()
    high, low = parameters["threshold_p95"], parameters["threshold_p5"]
    hits: list[Hit] = []
    checked = 0
    for name, series in gpus.items():
        for part in windows(len(series.values), patience, parameters["window"]):
            checked += 1
            p5, p95 = np.percentile(series.values[part], [5, 95])
            time = float(series.times[part][-1])
            if p95 < high:
                words = f"the 95th percentile of {name}'s utilization was {p95:.0f} %, below {high:g} %"
                hits.append((words, Evidence(float(p95), high, tensor=name, time=time)))
            elif p5 < low:
                words = f"{name}'s utilization fluctuates: 5th percentile {p5:.0f} %, below {low:g} %"
                hits.append((words, Evidence(float(p5), low, tensor=name, time=time)))
    if not checked:
        return too_few(len(_longest(gpus).values), patience)
    return judged(hits, checked, f"no GPU was below {high:g} % (95th percentile) or {low:g} % (5th)")


def batch_size(context: Context, parameters: Parameters) -> Finding:
    """BatchSize: the 95th percentiles of CPU, GPU and GPU memory are all below `cpu_threshold_p95`,
    `gpu_threshold_p95` and `gpu_memory_threshold_p95`, over the last `window` values, from `patience` values on.

    Our choice where that is open: means over cores and GPUs, as it speaks of averages.
    """
    gpus, patience = context.series(store.GPU), parameters["patience"]
    if not gpus:
        return context.no_gpu()
    times = _longest(gpus).times
    limits = {
        "CPU": (context.mean(store.CPU, times), parameters["cpu_threshold_p95"]),
        "GPU": (context.mean(store.GPU, times), parameters["gpu_threshold_p95"]),
        "GPU memory": (context.mean(store.GPU_MEMORY, times), parameters["gpu_memory_threshold_p95"]),
    }
    values = {kind: (mean, limit) for kind, (mean, limit) in limits.items() if mean is not None}
    parts = windows(len(times), patience, parameters["window"]) if len(values) == len(limits) else []
    hits: list[Hit] = []
    for part in parts:
        p95 = {kind: float(np.percentile(mean[part], 95)) for kind, (mean, _) in values.items()}
        if all(p95[kind] < limit for kind, (_, limit) in values.items()):
            words = ", ".join(f"{kind} {value:.0f} %" for kind, value in p95.items())
            at_end = Evidence(p95["GPU"], values["GPU"][1], time=float(times[part][-1]))
            hits.append((f"95th percentiles: {words}; all are low", at_end))
    if not parts:
        return too_few(len(times), patience)
    return judged(hits, len(parts), "CPU, GPU or GPU memory are used well enough")


def gpu_memory_increase(context: Context, parameters: Parameters) -> Finding:
    """GPUMemoryIncrease: the mean of the last `window` values is more than `increase` percentage points above the same
    mean `scan_interval_us` before, from `patience` values on.

    The document says "absolute increase", with 5 % as the default and "from 5% to 6%" as an example: percentage points
    here. "Previous iteration" is taken for the scan before.
    """
    gpus = context.series(store.GPU_MEMORY)
    start, window = max(parameters["patience"], parameters["window"]), parameters["window"]
    if not gpus:
        return context.no_gpu()
    increase, scan = parameters["increase"], parameters["scan_interval_us"] / 1e6
    hits: list[Hit] = []
    checked = 0
    for name, series in gpus.items():
        if len(series.values) < start:
            continue
        scans = np.arange(series.times[start - 1], series.times[-1] + 1e-3, scan)
        ends = np.searchsorted(series.times, scans + 1e-3, side="right")
        means = [float(series.values[max(0, end - window) : end].mean()) for end in ends]
        for (before, after), time in zip(itertools.pairwise(means), scans[1:], strict=True):
            checked += 1
            if after - before > increase:
                words = f"{name}: memory in use went from {before:.0f} % to {after:.0f} % within {scan:g} s"
                hits.append((words, Evidence(after - before, increase, tensor=name, time=float(time))))
    if not checked:
        return too_few(len(_longest(gpus).values), parameters["patience"] + 1)
    return judged(hits, checked, f"memory in use never grew by more than {increase:g} percentage points in {scan:g} s")


def load_balancing(context: Context, parameters: Parameters) -> Finding:
    """LoadBalancing: the histograms of the utilization of two GPUs differ by more than `threshold`, from `patience`
    values on.

    Our choice where that is open: bins of 10 %, and half the sum of the absolute differences as the distance: 0 equal,
    1 nothing in common.
    """
    gpus = context.series(store.GPU)
    if len(gpus) < 2:
        return found("not_applicable", "there is one GPU: nothing to balance") if gpus else context.no_gpu()
    patience, threshold = parameters["patience"], parameters["threshold"]
    have = min(len(each.values) for each in gpus.values())
    if have < max(patience, 1):
        return too_few(have, patience)
    shares = {name: np.histogram(each.values, BINS, (0, 100))[0] / len(each.values) for name, each in gpus.items()}
    pairs = list(itertools.combinations(shares, 2))
    distances = [float(np.abs(shares[a] - shares[b]).sum() / 2) for a, b in pairs]
    worst = int(np.argmax(distances))
    one, other = pairs[worst]
    words = f"{one} and {other} differ most in their use, by {distances[worst]:.2f} of 1"
    count = sum(distance > threshold for distance in distances)
    if not count:
        return found("ok", words, len(pairs))
    worse = Evidence(distances[worst], threshold, tensor=one, time=float(gpus[one].times[-1]))
    return found("fired", words, len(pairs), fired=count, first=worse, last=worse)


def overall_system_usage(context: Context, _parameters: Parameters) -> Finding:
    """OverallSystemUsage: percentiles of what was used. It has no threshold and never fires.

    Our choice where that is open: of the CPUs it is what the container may use, as in the report, if that was measured.
    """
    labels = {
        "CPU": store.CONTAINER_CPU if context.series(store.CONTAINER_CPU) else store.CPU, "memory": store.MEMORY,
        "waiting for disks": store.IO_WAIT, "GPU": store.GPU, "GPU memory": store.GPU_MEMORY,
    }  # fmt: skip
    words, checked = [], 0
    for label, dimension in labels.items():
        if own := context.series(dimension):
            times = _longest(own).times
            p50, p95 = np.percentile(np.mean([at(series, times) for series in own.values()], axis=0), [50, 95])
            checked = max(checked, len(times))
            words.append(f"{label} {p50:.0f} % (95th percentile {p95:.0f} %)")
    return found("ok", ", ".join(words), checked) if words else found("not_applicable", NO_METRICS)


def _longest(series: dict[str, Series]) -> Series:
    return max(series.values(), key=lambda each: len(each.times))
