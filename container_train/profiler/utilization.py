"""CPUBottleneck, IOBottleneck, LowGPUUtilization, BatchSize, GPUMemoryIncrease, LoadBalancing and OverallSystemUsage:
how well devices are used.

https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html
"""

import itertools

import numpy as np

from container_train.monitoring.findings import Evidence, Finding, Hit, Parameters, fired, judged, not_applicable, ok
from container_train.profiler import store
from container_train.profiler.evidence import NO_METRICS, Context, at, too_few, windows
from container_train.profiler.store import Series

BINS = 10  # of the histograms of utilization, 10 % each


def cpu_bottleneck(context: Context, parameters: Parameters) -> Finding:
    """CPUBottleneck: GPU below `gpu_threshold` % while the CPU is above `cpu_threshold` %, of all time > `threshold` %.

    Judges from `patience` values on. Our choice where that is open: the GPU's value is the mean of the host's GPUs; the
    CPU's is that of the busiest core (a training program that keeps one core busy is as much of a bottleneck as all
    cores decoding images), or the container's share of the cores it may use, whichever is higher.
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
    gpus, patience, threshold = context.system.series(store.GPU), parameters["patience"], parameters["threshold"]
    if not gpus:
        return context.no_gpu()
    shares = {}
    checked = 0
    for node in {node for node, _ in gpus}:
        times = next(series.times for (where, _), series in gpus.items() if where == node)
        others = [series for name in dimensions for series in context.system.series(name, node).values()]
        checked += len(times) if others else 0
        idle = context.mean(store.GPU, node, times)
        if not others or len(times) < patience or idle is None:
            continue
        busy = np.max([at(series, times) for series in others], axis=0)
        hits = np.flatnonzero((idle < parameters["gpu_threshold"]) & (busy > limit))
        shares[node] = (100 * len(hits) / len(times), hits, busy, times)
    if not shares:
        return too_few(checked, patience)
    node, (share, hits, busy, times) = max(shares.items(), key=lambda item: item[1][0])
    reason = f"{what} while the GPU waited in {share:.0f} % of the time on {node}"
    if share <= threshold:
        return ok(f"{reason}, up to {threshold:g} % is normal", checked)
    first, last = (Evidence(float(busy[i]), limit, time=float(times[i])) for i in (hits[0], hits[-1]))
    return fired(f"{reason}, more than {threshold:g} %", checked, len(hits), first, last)


def low_gpu_utilization(context: Context, parameters: Parameters) -> Finding:
    """LowGPUUtilization, of each GPU: 95th percentile below `threshold_p95` (unused), or above it and the 5th below
    `threshold_p5` (fluctuating), over the last `window` values, from `patience` values on."""
    gpus, patience = context.system.series(store.GPU), parameters["patience"]
    if not gpus:
        return context.no_gpu()
    high, low = parameters["threshold_p95"], parameters["threshold_p5"]
    hits: list[Hit] = []
    checked = 0
    for (node, name), series in gpus.items():
        for part in windows(len(series.values), patience, parameters["window"]):
            checked += 1
            p5, p95 = np.percentile(series.values[part], [5, 95])
            where, time = f"{node}/{name}", float(series.times[part][-1])
            if p95 < high:
                words = f"the 95th percentile of {where}'s utilization was {p95:.0f} %, below {high:g} %"
                hits.append((words, Evidence(float(p95), high, tensor=where, time=time)))
            elif p5 < low:
                words = f"{where}'s utilization fluctuates: 5th percentile {p5:.0f} %, below {low:g} %"
                hits.append((words, Evidence(float(p5), low, tensor=where, time=time)))
    if not checked:
        return too_few(_most(gpus), patience)
    return judged(hits, checked, f"no GPU was below {high:g} % (95th percentile) or {low:g} % (5th)")


def batch_size(context: Context, parameters: Parameters) -> Finding:
    """BatchSize: the 95th percentiles of CPU, GPU and GPU memory are all below `cpu_threshold_p95`,
    `gpu_threshold_p95` and `gpu_memory_threshold_p95`, over the last `window` values, from `patience` values on.

    Our choice where that is open: means over the host's cores and GPUs, as it speaks of averages.
    """
    gpus, patience = context.system.series(store.GPU), parameters["patience"]
    if not gpus:
        return context.no_gpu()
    limits = {
        "CPU": (store.CPU, parameters["cpu_threshold_p95"]),
        "GPU": (store.GPU, parameters["gpu_threshold_p95"]),
        "GPU memory": (store.GPU_MEMORY, parameters["gpu_memory_threshold_p95"]),
    }
    hits: list[Hit] = []
    checked = 0
    for node in sorted({node for node, _ in gpus}):
        times = next(series.times for (where, _), series in gpus.items() if where == node)
        means = {kind: context.mean(name, node, times) for kind, (name, _) in limits.items()}
        values = {kind: mean for kind, mean in means.items() if mean is not None}
        for part in windows(len(times), patience, parameters["window"]) if len(values) == len(limits) else ():
            checked += 1
            p95 = {kind: float(np.percentile(values[kind][part], 95)) for kind in limits}
            if all(p95[kind] < limit for kind, (_, limit) in limits.items()):
                words = ", ".join(f"{kind} {value:.0f} %" for kind, value in p95.items())
                found = Evidence(p95["GPU"], limits["GPU"][1], tensor=node, time=float(times[part][-1]))
                hits.append((f"95th percentiles on {node}: {words}; all are low", found))
    if not checked:
        return too_few(_most(gpus), patience)
    return judged(hits, checked, "CPU, GPU or GPU memory are used well enough")


def gpu_memory_increase(context: Context, parameters: Parameters) -> Finding:
    """GPUMemoryIncrease: the mean of the last `window` values is more than `increase` percentage points above the same
    mean `scan_interval_us` before, from `patience` values on.

    The document says "absolute increase", with 5 % as the default and "from 5% to 6%" as an example: percentage points
    here. "Previous iteration" is taken for the scan before.
    """
    gpus = context.system.series(store.GPU_MEMORY)
    start, window = max(parameters["patience"], parameters["window"]), parameters["window"]
    if not gpus:
        return context.no_gpu()
    increase, scan = parameters["increase"], parameters["scan_interval_us"] / 1e6
    hits: list[Hit] = []
    checked = 0
    for (node, name), series in gpus.items():
        if len(series.values) < start:
            continue
        scans = np.arange(series.times[start - 1], series.times[-1] + 1e-3, scan)
        ends = np.searchsorted(series.times, scans + 1e-3, side="right")
        means = [float(series.values[max(0, end - window) : end].mean()) for end in ends]
        for (before, after), time in zip(itertools.pairwise(means), scans[1:], strict=True):
            checked += 1
            if after - before > increase:
                words = f"{node}/{name}: memory in use went from {before:.0f} % to {after:.0f} % within {scan:g} s"
                hits.append((words, Evidence(after - before, increase, tensor=f"{node}/{name}", time=float(time))))
    if not checked:
        return too_few(_most(gpus), parameters["patience"] + 1)
    return judged(hits, checked, f"memory in use never grew by more than {increase:g} percentage points in {scan:g} s")


def load_balancing(context: Context, parameters: Parameters) -> Finding:
    """LoadBalancing: the histograms of the utilization of two GPUs differ by more than `threshold`, from `patience`
    values on; where there are several hosts without GPUs, of the hosts' CPUs.

    Our choice where that is open: bins of 10 %, and half the sum of the absolute differences as the distance: 0 equal,
    1 nothing in common.
    """
    series, nodes = context.system.series(store.GPU), context.system.nodes()
    if not nodes:
        return not_applicable(NO_METRICS)
    if len(series) < 2 and len(nodes) > 1:
        cores = {node: next(iter(context.system.series(store.CPU, node).values()), None) for node in nodes}
        means = {
            node: (one.times, mean)
            for node, one in cores.items()
            if one is not None and (mean := context.mean(store.CPU, node, one.times)) is not None
        }
        series = {(node, "CPU"): Series(*mean) for node, mean in means.items()}
    if len(series) < 2:
        what = "one GPU" if series else "no GPU"
        return not_applicable(f"there is {what} on {len(nodes)} host{'s' * (len(nodes) > 1)}: nothing to balance")
    patience, threshold = parameters["patience"], parameters["threshold"]
    have = min(len(each.values) for each in series.values())
    if have < max(patience, 1):
        return too_few(have, patience)
    shares = {key: np.histogram(each.values, BINS, (0, 100))[0] / len(each.values) for key, each in series.items()}
    pairs = list(itertools.combinations(shares, 2))
    distances = [float(np.abs(shares[a] - shares[b]).sum() / 2) for a, b in pairs]
    worst = int(np.argmax(distances))
    one, other = ("/".join(key) for key in pairs[worst])
    words = f"{one} and {other} differ most in their use, by {distances[worst]:.2f} of 1"
    count = sum(distance > threshold for distance in distances)
    if not count:
        return ok(words, len(pairs))
    found = Evidence(distances[worst], threshold, tensor=one, time=float(series[pairs[worst][0]].times[-1]))
    return fired(words, len(pairs), count, found)


def overall_system_usage(context: Context, _parameters: Parameters) -> Finding:
    """OverallSystemUsage: percentiles of what each host used. It has no threshold and never fires.

    Our choice where that is open: of the CPUs it is what the container may use, as in the report, if that was measured.
    """
    nodes = context.system.nodes()
    if not nodes:
        return not_applicable(NO_METRICS)
    cpu = store.CONTAINER_CPU if context.system.series(store.CONTAINER_CPU) else store.CPU
    labels = {
        "CPU": cpu, "memory": store.MEMORY, "waiting for disks": store.IO_WAIT, "GPU": store.GPU,
        "GPU memory": store.GPU_MEMORY,
    }  # fmt: skip
    parts, checked = [], 0
    for node in nodes:
        words = []
        for label, dimension in labels.items():
            own = next(iter(context.system.series(dimension, node).values()), None)
            values = None if own is None else context.mean(dimension, node, own.times)
            if values is not None:
                checked = max(checked, len(values))
                p50, p95 = np.percentile(values, [50, 95])
                words.append(f"{label} {p50:.0f} % (95th percentile {p95:.0f} %)")
        parts.append(f"{node}: {', '.join(words)}")
    return ok("; ".join(parts), checked)


def _most(series: dict[tuple[str, str], Series]) -> int:
    return max(len(each.values) for each in series.values())
