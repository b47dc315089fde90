"""CPUBottleneck and IOBottleneck: a GPU that waits because something else is busy."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from container_train.monitoring.findings import Finding
from container_train.profiler import store
from container_train.profiler.evidence import Context, at, evidence, fired, ok, waiting


def cpu(context: Context, parameters: Mapping[str, Any]) -> Finding:
    """CPUBottleneck: GPU below `gpu_threshold` % while the CPU is above `cpu_threshold` %, of all time > `threshold` %.

    https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html. Judges from `patience` values
    on. Our choice where that is open: the GPU's value is the mean of the host's GPUs; the CPU's is that of the busiest
    core (a training program that keeps one core busy is as much of a bottleneck as all cores decoding pictures), or the
    container's share of the cores it may use, whichever is higher.
    """
    return _bottleneck(
        context, parameters, (store.CPU, store.CONTAINER_CPU), float(parameters["cpu_threshold"]), "the CPU was busy",
        "decode in more processes (workers), use an instance with more cores for each GPU, or take work off the CPU:"
        " smaller pictures, no augmentation (then features are cached)",
    )  # fmt: skip


def io(context: Context, parameters: Mapping[str, Any]) -> Finding:
    """IOBottleneck: GPU below `gpu_threshold` % while a core waits for a disk in more than `io_threshold` % of its
    time, of all time > `threshold` %.

    https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html. Judges from `patience` values
    on. Our choice where that is open: as in `cpu`, and the core that waits most.
    """
    return _bottleneck(
        context, parameters, (store.IO_WAIT,), float(parameters["io_threshold"]), "a core waited for a disk",
        "use input mode FastFile or a faster volume, and fewer, larger files; more decoding processes (workers) hide"
        " some of the wait",
    )  # fmt: skip


def _bottleneck(
    context: Context, parameters: Mapping[str, Any], dimensions: tuple[str, ...], busy_threshold: float, what: str,
    advice: str,
) -> Finding:  # fmt: skip
    gpus, patience, threshold = context.gpus(), int(parameters["patience"]), float(parameters["threshold"])
    if not gpus:
        return context.no_gpu()
    shares = {}
    checked = 0
    for node in sorted({node for node, _ in gpus}):
        own = [series for (where, _), series in gpus.items() if where == node]
        times = own[0].times
        others = [series for name in dimensions for series in context.system.series(name, node).values()]
        if not others:
            continue
        checked += len(times)
        if len(times) < patience:
            continue
        low = np.mean([at(series, times) for series in own], axis=0) < float(parameters["gpu_threshold"])
        busy = np.max([at(series, times) for series in others], axis=0)
        hits = np.flatnonzero(low & (busy > busy_threshold))
        shares[node] = (100 * len(hits) / len(times), hits, busy, times)
    if not shares:
        return waiting(checked, patience)
    node, (share, hits, busy, times) = max(shares.items(), key=lambda item: item[1][0])
    reason = f"{what} while the GPU waited in {share:.0f} % of the time on {node}"
    if share <= threshold:
        return ok(f"{reason}, at most {threshold:g} % are taken for normal", checked)
    first, last = evidence(hits, busy, times, busy_threshold)
    return fired(f"{reason}, more than {threshold:g} %", advice, checked, len(hits), first, last)
