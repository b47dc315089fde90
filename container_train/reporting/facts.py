"""The rows about the job itself: where it ran, on what, and how well it was measured."""

from collections.abc import Mapping
from typing import Any

from container_train.hyperparameters import defaults
from container_train.reporting.record import Record, number, table
from container_train.reporting.words import clock_time, figure, size
from container_train.training.recipes import RECIPES


def facts(record: Record) -> list[tuple[str, str]]:
    """(what, value) of the job and its machine; what is not known is left out."""
    job = record.job
    images, versions = (table(job.get(key)) for key in ("images", "versions"))
    gpus, hosts = (value if isinstance(value := job.get(key), list) else [] for key in ("gpus", "hosts"))
    debug = table(job.get("debug"))
    values = (job.get("ended"), job.get("profile_interval_ms"), debug.get("interval"))
    ended, interval, every = map(number, values)
    rows = {
        "Started": clock_time(record.clock.start) if record.clock.start else "",
        "Ended": clock_time(ended) if ended > 0 else "",
        "Image": job.get("image"),
        "Host": f"{job.get('host', '')} of {len(hosts)}" if len(hosts) > 1 else job.get("host"),
        "Device": job.get("device"),
        "GPUs": ", ".join(map(str, gpus)),
        "CPUs that it may use": figure(number(job.get("cpus"))),
        "Memory that it may use": size(number(job.get("memory_bytes"))),
        "Classes": job.get("classes"),
        "Images": ", ".join(f"{split} {value}" for split, value in images.items()),
        "Versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
        "Steps per epoch": f"{record.steps_per_epoch:.0f}" if record.steps_per_epoch >= 1 else "",
        "Tensors saved": f"every {every:.0f} steps of {debug.get('trained', '')}" if every > 0 else "",
        "Machine measured": f"every {interval:.0f} ms" if interval > 0 else "",
    }
    return [(key, str(value)) for key, value in rows.items() if value not in (None, "", "unknown")]


def settings(given: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the hyperparameters that are not the defaults of their recipe, and those that are."""
    recipe = str(given.get("recipe", "head"))
    usual = {**defaults(recipe if recipe in RECIPES else "head"), "recipe": "head"}
    words = {key: str(value) for key, value in given.items()}
    same = {key: value for key, value in words.items() if value == str(usual.get(key, ""))}
    return {key: value for key, value in words.items() if key not in same}, same
