"""The measurements behind the defaults of serving: `python tests/bench/bench_workers.py [--model DIR] [--out FILE]`.

Workers and threads, workers that keep to a core, and batches: the same server in each of the ways, all of them up at
the same time and taking turns at the same pictures. The default, a worker of two threads for each core, is the first.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from container_serve import artifact
from container_serve.predictor import Predictor
from tests.bench import load
from tests.bench.arguments import existing, new_file, positive, whole
from tests.bench.servers import SMALL, Server, commands, free_ports, pictures, prepare, serving

CORES = len(os.sched_getaffinity(0))
DEFAULT = f"{CORES} x 2"
WAYS = {  # workers x threads
    DEFAULT: (CORES, 2),
    f"{CORES} x 1": (CORES, 1),
    f"{CORES} x 1, each on its core": (CORES, 1),
    f"1 x {CORES}": (1, CORES),
    "1 x 1": (1, 1),
    f"{2 * CORES} x 1": (2 * CORES, 1),
    f"{CORES} x {2 * CORES}": (CORES, 2 * CORES),
}
CONNECTIONS = (1, 2, 8)
BATCHES = (1, 2, 4, 8)
Values = dict[tuple[str, str], list[float]]


def pin(server: Server) -> None:
    """Bind each worker to one core, those that only start workers left aside."""
    found = psutil.Process(server.process.pid).children(recursive=True)
    python = [one for one in found if "java" not in one.name()]
    workers = [one for one in python if not one.children()]
    for index, worker in enumerate(workers):
        for thread in worker.threads():
            os.sched_setaffinity(thread.id, {index % CORES})


def batches(made: Path, turns: int, values: Values) -> None:
    """Milliseconds of one thread for a picture, by the size of the batch it is in: what batching could gain."""
    found = artifact.read(made, verify=False)
    predictor = Predictor(found)
    side = found.preprocessing.crop
    for size in BATCHES * (turns + 1):
        batch = np.zeros((size, 3, side, side), dtype=np.float32)
        begun = time.perf_counter()
        for _ in range(3 * max(BATCHES) // size):
            predictor.probabilities(batch)
        values["ms a picture, one thread", f"batch of {size}"].append(
            1e3 * (time.perf_counter() - begun) / (3 * max(BATCHES))
        )
    for size in BATCHES:
        del values["ms a picture, one thread", f"batch of {size}"][0]  # the first prepares itself


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=existing, help="artifact with int8 graph (default: a random ResNet50)")
    parser.add_argument("--turns", type=whole, default=3, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=positive, default=3, help="of each measurement (%(default)s)")
    parser.add_argument("--out", type=new_file, help="file for the figures, as JSON")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-workers-"))
    values: Values = defaultdict(list)
    try:
        made = prepare(folder, options.model)
        bodies = pictures()[SMALL]
        batches(made, options.turns, values)
        with contextlib.ExitStack() as stack:
            servers = []
            for way, (workers, threads) in WAYS.items():
                port = free_ports(["ours"])["ours"]
                program, env = commands(made, folder, {"ours": port, "mms": 0, "fastapi": 0})["ours"]
                env = {**env, "SAGEMAKER_MODEL_SERVER_WORKERS": str(workers), "BYOC_THREADS": str(threads)}
                servers.append(stack.enter_context(serving(way, program, env, port, folder, bodies[0])))
                load.run(port, bodies, 2 * workers, 2)  # until all of its workers are up
                if "its core" in way:
                    pin(servers[-1])
            for turn in range(options.turns):
                for count in CONNECTIONS:
                    for server in servers if turn % 2 else servers[::-1]:
                        found = load.run(server.port, bodies, count, options.seconds)
                        values[f"p50 ms, {count} connections", server.name].append(found.quantile(0.5))
                        values[f"answers a second, {count} connections", server.name].append(found.rate)
                print(f"turn {turn + 1} of {options.turns}; load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows: list[dict[str, Any]] = []
    for (what, who), each in sorted(values.items(), key=lambda item: item[0][0]):
        base = values[what, DEFAULT if (what, DEFAULT) in values else f"batch of {BATCHES[0]}"]
        ratio = statistics.median(one / two for one, two in zip(each, base, strict=True))
        print(f"{what:36} {who:28} {statistics.median(each):8.1f}   {ratio:5.2f} x the default's")
        rows.append(
            {
                "name": f"workers: {what}, {who}", "goal": "", "measured": round(statistics.median(each), 2),
                "unit": what.split(",")[0], "spread": [round(min(each), 2), round(max(each), 2)],
                "repetitions": len(each), "command": "python tests/bench/bench_workers.py",
            }
        )  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
