"""Serving beside its peers, in one run: `python tests/bench/bench_serving.py [--model DIR] [--out FILE]`.

    ours      container_serve with int8, as the image starts it
    limit     decoding and the int8 graph in a bare loop, no HTTP: for one connection a process with as many threads as
              a worker has, for more a process of one thread for each core
    mms       multi-model-server and sagemaker-inference as their documentation shows it: torch eager fp32, torchvision
    fastapi   ONNX Runtime fp32 behind FastAPI and uvicorn
    openvino  the same int8 graph as ours, with as many threads, behind FastAPI and two workers of uvicorn
    litserve  the same behind LitServe with two workers; its callers send JSON with base64

The last two run where there is an environment of their own, for they need packages that nothing else here does:
`uv venv tests/bench/peers/.venv && VIRTUAL_ENV=tests/bench/peers/.venv uv pip install litserve openvino pillow`.

All of them are up at the same time, and take turns at the same pictures and under the same load generator, so that
other work on the machine hits all of them alike. "Around" is the median of the time beside decoding and the graph (the
Server-Timing header's), from the caller to a worker and back. Speeds do not depend on the weights: without --model a
random ResNet50 is used. Times of start are taken one server after the other, from the start of its process to its first
good answer; ours from `docker run` too, where the image is there (its goal is for that), else as a process.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from container_serve import artifact, resources
from container_serve.predictor import Predictor
from container_serve.preprocess import preprocess
from tests.bench import load
from tests.bench.arguments import existing, new_file, positive, whole
from tests.bench.servers import (
    LARGE,
    SMALL,
    START_SECONDS,
    Server,
    commands,
    free_ports,
    in_image,
    pictures,
    prepare,
    serving,
)

CORES = len(os.sched_getaffinity(0))
THREADS = min(resources.THREADS, CORES)
CONNECTIONS = (1, 2, 8, 32)
BY_HAND = Path(__file__).parent / "peers" / ".venv" / "bin" / "python"
OVERLOAD = 160  # connections, more than the queue of 100 holds


def loop(made: Path, orders: Any, answers: Any) -> None:
    """One process of the limit: for each order (pictures, threads, seconds) the seconds of single pictures."""
    found = artifact.read(made, verify=False)
    predictors = {threads: Predictor(found, threads) for threads in {1, THREADS}}
    for predictor in predictors.values():
        predictor.warm_up()
    answers.put([])
    while (order := orders.get()) is not None:
        bodies, threads, seconds = order
        predictor = predictors[threads]
        times: list[float] = []
        begun = time.perf_counter()
        while (now := time.perf_counter()) - begun < seconds:
            predictor.probabilities(preprocess(bodies[len(times) % len(bodies)], found.preprocessing)[None])
            times.append(time.perf_counter() - now)
        answers.put(times)


class Limit:
    """Decoding and forward with nothing around them: one process of several threads, or one of one for each core."""

    def __init__(self, made: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.answers = context.Queue()
        self.orders = [context.Queue() for _ in range(CORES)]
        self.processes = [context.Process(target=loop, args=(made, orders, self.answers)) for orders in self.orders]
        for process in self.processes:
            process.start()
        for _ in self.processes:
            self.answers.get(timeout=START_SECONDS)

    def run(self, bodies: list[bytes], processes: int, seconds: float) -> load.Load:
        for orders in self.orders[:processes]:
            orders.put((bodies, THREADS if processes == 1 else 1, seconds))
        times = [self.answers.get(timeout=seconds + 60) for _ in range(processes)]
        return load.Load(seconds, [one for each in times for one in each])

    def close(self) -> None:
        for orders, process in zip(self.orders, self.processes, strict=True):
            orders.put(None)
            process.join(30)


Values = dict[tuple[str, str], list[float]]  # by what was measured and whom, one value a repetition


def measure(servers: list[Server], limit: Limit, turns: int, seconds: float) -> Values:
    values: Values = defaultdict(list)
    bodies = pictures()
    for turn in range(turns):
        for kind, counts in ((SMALL, CONNECTIONS), (LARGE, (1, 8))):
            for count in counts:
                for server in servers if turn % 2 else servers[::-1]:
                    found = server.load(bodies[kind], count, seconds)
                    note(values, kind, count, server.name, found)
                    values["errors", server.name].append(
                        sum(n for status, n in found.statuses.items() if status != 200)
                    )
                if count in (1, 8):
                    note(values, kind, count, "limit", limit.run(bodies[kind], 1 if count == 1 else CORES, seconds))
        for server in servers:
            values["memory", server.name].append(server.memory())
        ours = next(server for server in servers if server.name == "ours")
        flood = load.run(ours.port, bodies[SMALL], OVERLOAD, seconds)
        values["flood p99", "ours"].append(flood.quantile(0.99))
        values["flood refused", "ours"].append(flood.statuses[503])
        values["flood lost", "ours"].append(sum(n for status, n in flood.statuses.items() if status not in (200, 503)))
        print(f"turn {turn + 1} of {turns}; load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    return values


def note(values: Values, kind: str, count: int, name: str, found: load.Load) -> None:
    values[f"{kind}, {count} p50", name].append(found.quantile(0.5))
    values[f"{kind}, {count} p99", name].append(found.quantile(0.99))
    values[f"{kind}, {count} rate", name].append(found.rate)
    if found.around:
        values[f"{kind}, {count} around", name].append(load.quantile(found.around, 0.5))


def table(values: Values) -> None:
    """Medians, a column for each server."""
    names = ("ours", "limit", "openvino", "litserve", "mms", "fastapi", "docker run")
    print(f"\n{'median':24}" + "".join(f"{name:>12}" for name in names))
    for what in dict.fromkeys(what for what, _ in values):
        row = [values.get((what, name)) for name in names]
        print(f"{what:24}" + "".join(f"{statistics.median(cell):12.1f}" if cell else f"{'':12}" for cell in row))


def results(values: Values, command: str) -> list[dict[str, Any]]:
    """The goals first, each as the median of the ratios of single turns; then every figure."""

    def ratio(what: str, over: str, other: str = "") -> list[float]:
        ours = values[what, "ours"]
        pairs = zip(ours, values[other or what, over], strict=True)
        return [one / two if two else float("nan") for one, two in pairs]

    def difference(what: str, less: str) -> list[float]:
        return [one - two for one, two in zip(values[what, "ours"], values[what, less], strict=True)]

    def row(name: str, goal: str, each: list[float], unit: str) -> dict[str, Any]:
        return {
            "name": f"serving: {name}", "goal": goal, "measured": round(statistics.median(each), 3), "unit": unit,
            "spread": [round(min(each), 3), round(max(each), 3)], "repetitions": len(each), "command": command,
        }  # fmt: skip

    p50, rate = f"{SMALL}, 1 p50", f"{SMALL}, 8 rate"
    rows = [
        row("p50 at 1 connection / limit", "<= 1.15", ratio(p50, "limit"), "x"),
        row("p50 at 1 connection, mms / ours", ">= 7", [1 / each for each in ratio(p50, "mms")], "x"),
        row("rate at 8 connections / limit", ">= 0.94", ratio(rate, "limit"), "x"),
        row("rate at 8 connections / mms", ">= 5", ratio(rate, "mms"), "x"),
        row("rate at 8 connections / fastapi", "> 1", ratio(rate, "fastapi"), "x"),
        *(
            one
            for peer in ("openvino", "litserve")
            if (p50, peer) in values
            for one in (
                row(f"p50 at 1 connection / {peer}", "< 1", ratio(p50, peer), "x"),
                row(f"rate at 8 connections / {peer}", "> 1", ratio(rate, peer), "x"),
                row(f"memory more than {peer}", "<= 100", difference("memory", peer), "MB"),
            )
        ),
        row("memory", "<= 1000", values["memory", "ours"], "MB"),
        row(f"{OVERLOAD} connections: neither 200 nor 503", "0", values["flood lost", "ours"], "answers"),
        row("start to first answer", "<= 3", values.get(("start", "docker run")) or values["start", "ours"], "s"),
    ]
    units = {"p50": "ms", "p99": "ms", "around": "ms", "rate": "1/s", "memory": "MB", "start": "s"}
    for (what, name), each in sorted(values.items()):
        rows.append(row(f"{name}, {what}", "", each, units.get(what.split()[-1], "answers")))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=existing, help="artifact with int8 graph (default: a random ResNet50)")
    parser.add_argument("--turns", type=whole, default=3, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=positive, default=4, help="of each measurement (%(default)s)")
    parser.add_argument("--starts", type=whole, default=3, help="of each server (%(default)s)")
    parser.add_argument("--out", type=new_file, help="file for the figures, as JSON")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-serving-"))
    limit = None
    try:
        made = prepare(folder, options.model)
        body = pictures()[SMALL][0]
        ports = free_ports(["ours", "mms", "fastapi", "openvino", "litserve"])
        each = commands(made, folder, ports, BY_HAND if BY_HAND.exists() else None)
        values: Values = defaultdict(list)
        for _ in range(options.starts):
            for name, (program, env) in each.items():
                with serving(name, program, env, ports[name], folder, body) as server:
                    values["start", name].append(server.start_seconds)
            with in_image(made, ports["ours"]) as started:
                if started:
                    with serving("image", *started, ports["ours"], folder, body) as server:
                        values["start", "docker run"].append(server.start_seconds)
        with contextlib.ExitStack() as stack:
            servers = [
                stack.enter_context(serving(name, program, env, ports[name], folder, body))
                for name, (program, env) in each.items()
            ]
            limit = Limit(made)
            values |= measure(servers, limit, options.turns, options.seconds)
            limit.close()
    finally:
        for process in limit.processes if limit else []:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)
    table(values)
    found = results(
        values, f"python tests/bench/bench_serving.py --turns {options.turns} --seconds {options.seconds:g}"
    )
    print()
    for row in found:
        if row["goal"]:
            low, high = row["spread"]
            print(
                f"{row['name']:58} {row['measured']:9.2f} {row['unit']} ({low:.2f} to {high:.2f})  goal: {row['goal']}"
            )
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
