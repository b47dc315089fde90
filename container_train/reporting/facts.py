"""What the report says about the job itself: where it ran, on what, and how well it was measured."""

import math
from typing import Any

from container_train.reporting.record import Record, number, table
from container_train.reporting.words import clock_time, count, duration, figure, size


def facts(record: Record) -> list[tuple[str, str]]:
    """(what, value) of the job and its machine; what is not known is left out."""
    job, images = record.job, table(record.job.get("images"))
    versions, debug, sampler = table(job.get("versions")), table(job.get("debug")), table(job.get("sampler"))
    cpus, memory = number(job.get("cpus")), number(job.get("memory_bytes"))
    interval, every = number(job.get("profile_interval_ms")), number(debug.get("interval"))
    gpus, hosts = (value if isinstance(value := job.get(key), list) else [] for key in ("gpus", "hosts"))
    rows = {
        "Started": clock_time(record.clock.start) if record.clock.start else "",
        "Ended": clock_time(number(job.get("ended"))) if number(job.get("ended")) > 0 else "",
        "Image": job.get("image"),
        "Host": f"{job.get('host', '')} of {len(hosts)}" if len(hosts) > 1 else job.get("host"),
        "Device": job.get("device"),
        "GPUs": ", ".join(map(str, gpus)),
        "CPUs that it may use": figure(cpus) if math.isfinite(cpus) else "",
        "Memory that it may use": size(memory) if math.isfinite(memory) else "",
        "Classes": job.get("classes"),
        "Pictures": ", ".join(f"{split} {value}" for split, value in images.items()),
        "Versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
        "Steps an epoch": f"{record.steps_per_epoch:.0f}" if record.steps_per_epoch >= 1 else "",
        "Tensors": _debug(debug, every),
        "Machine measured": _sampling(sampler, interval) if job else "",
    }
    return [(key, str(value)) for key, value in rows.items() if value not in (None, "", "unknown")]


def _debug(debug: dict[str, Any], every: float) -> str:
    if not debug:
        return ""
    said = {"on": "saved", "off": "not saved"}.get(str(debug.get("state")), "not saved: the hook failed")
    words = [said]
    if debug.get("state") == "on" and math.isfinite(every):
        words.append(f"every {count(every, 'step')}" if every != 1 else "every step")
    if debug.get("trained"):
        words.append(f"of {debug['trained']}" + (", pretrained" if debug.get("pretrained") else ""))
    return " ".join(words) + (f" ({debug['reason']})" if debug.get("reason") else "")


def _sampling(sampler: dict[str, Any], interval: float) -> str:
    if interval == 0:
        return "no: profile-interval is 0"
    words = [f"every {interval:.0f} ms"] if math.isfinite(interval) else []
    samples, missed, error = (number(sampler.get(key)) for key in ("samples", "missed", "mean_error_ms"))
    cost = number(sampler.get("cpu_seconds"))
    if math.isfinite(samples):
        words.append(count(samples, "sample"))
    if math.isfinite(missed):
        words.append(f"{missed:.0f} missed")
    if math.isfinite(error):
        words.append(f"{figure(error)} ms off on average")
    if math.isfinite(cost):
        words.append(f"{duration(cost)} of CPU")
    return ", ".join(words)
