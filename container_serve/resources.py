"""The container's share of the machine: its workers and threads, and the memory of bodies and images."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
# Resident memory, measured with a ResNet50: the Java server with its requests, and one worker without its model.
SERVER_BYTES = 300 * MIB
WORKER_BYTES = 160 * MIB
COPIES = 2.5  # of the graph's weights, while a worker compiles them
MODEL_IMAGE_BYTES = 100 * MIB  # beside other models: 12 megapixels of RGB, and of a baseline JPEG as many as wanted
LEAST_IMAGE_BYTES = 64 * MIB  # however little there is: 8 megapixels of RGB
MAX_PIXEL_BYTES = 17  # of memory to decode an image, at most; see image.py
THREADS = 2  # of a graph by default; what more would bring on larger machines is not measured
LEAST_HEAP_BYTES, MOST_HEAP_BYTES = 128 * MIB, 1024 * MIB
BODY_COPIES = 2  # of a request's body in a worker; the front end's class PendingRequest counts the same
UNLIMITED = 2**60  # cgroup v1 writes "no limit" as a number near 2**63


@dataclass(frozen=True)
class Share:
    """Each of `workers` processes computes the graph with `threads` threads; a user's code has `own_threads`."""

    workers: int
    threads: int
    own_threads: int


def plan(workers: int | None, threads: int | None, model_bytes: int) -> Share:
    """The share for a model of `model_bytes`; `workers` and `threads` are what the user asked for, if anything.

    Default: one worker per core, fewer where memory is short. Each computes the graph with its share of the cores,
    and at least with two threads where there are two cores: that answers a single caller in two thirds of the time
    and is as fast as one thread under load (tests/bench/bench_workers.py). The libraries of a user's code, whose
    threads may spin while they wait, get the worker's share of the cores only.
    """
    cores = cpu_count()
    if workers is None:
        each = WORKER_BYTES + int(COPIES * model_bytes)
        room = (memory_limit() - SERVER_BYTES) // each
        workers = max(1, min(cores // (threads or 1), room))
    share = max(1, cores // workers)
    return Share(workers, threads or max(share, min(THREADS, cores)), threads or share)


@dataclass(frozen=True)
class Memory:
    """Divide the memory that models and programs leave, in bytes."""

    largest: int  # body that is accepted
    bodies: int  # of requests and answers, in the front end
    copies: int  # of bodies, in all workers
    heap: int  # of Java; holds answers, each up to three times, but no bodies
    image: int  # what each worker may use to decode an image, with all of them at it


def memory(workers: int, model_bytes: int, largest: int, waiting: int) -> Memory:
    """The shares for requests of up to `largest` bytes, `waiting` of them in the queue.

    A third for bodies that wait, a third for those that workers have, if there can be so many; the rest for images.
    Where even one of the largest bodies does not fit, smaller ones are the largest that are accepted.
    """
    room = memory_limit() - SERVER_BYTES - workers * (WORKER_BYTES + model_bytes)
    room = max(room, 2 * workers * LEAST_IMAGE_BYTES)
    largest = min(largest, (room - workers * LEAST_IMAGE_BYTES) // (1 + BODY_COPIES))
    bodies = max(largest, min(room // 3, largest * (waiting + 2 * workers)))
    copies = max(BODY_COPIES * largest, min(room // 3, BODY_COPIES * largest * workers))
    heap = min(max(LEAST_HEAP_BYTES, memory_limit() // 16), MOST_HEAP_BYTES)
    return Memory(largest, bodies, copies, heap, max(LEAST_IMAGE_BYTES, (room - bodies - copies) // workers))


def cpu_count(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """Whole cores this process may use: CPU affinity (cpusets included), and the cgroup's quota."""
    return max(1, int(min(len(os.sched_getaffinity(0)), *map(quota, folders(cgroups, own, "cpu")), float("inf"))))


def memory_limit(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """Bytes this process and its children may use: the machine's memory, and the cgroup's limit."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, *limited_groups(cgroups, own).values(), UNLIMITED)


def limited_groups(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> dict[Path, int]:
    """The cgroups of this process that limit its memory, with their bytes."""
    found: dict[Path, int] = {}
    for folder in folders(cgroups, own, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            value = _number(folder / name)
            if value is not None and value < UNLIMITED:
                found[folder] = value
    return found


def folders(cgroups: Path, own: Path, controller: str) -> Iterator[Path]:
    """The own group's folder and its ancestors' (a limit on any of them holds), in cgroup v2 and v1."""
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root = cgroups
        elif controller in controllers.split(","):
            # Usually a link named after the one controller beside a folder named after all of them.
            root = next((cgroups / name for name in (controllers, controller) if (cgroups / name).is_dir()), cgroups)
        else:
            continue
        # Inside a container without its own cgroup namespace the path is the host's, and only the root exists.
        group = root / path.strip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def quota(folder: Path) -> float:
    """The cores that the group may use, infinite where it has no limit."""
    share, _, period = _text(folder / "cpu.max").partition(" ")
    if share.isdecimal() and period.strip().isdecimal():
        return int(share) / int(period)
    v1, v1_period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    if v1 is not None and v1_period and v1 > 0:
        return v1 / v1_period
    return float("inf")


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
