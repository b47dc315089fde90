"""The speed that several hosts gain: `bench_hosts.py [--hosts 2] [--turns 2] [--train all|layer3|head] [--out FILE]`.

A host is a process of one thread, on loopback. Beside the job of several hosts, in turns: one host alone, and as many
hosts that each do a job of their own at the same time. The latter is the limit: what it loses to the host alone is the
machine's (its cores may be hyperthreads), what the job of several loses to it is the exchange of gradients.

Trained are all layers, those after layer3, or the last one on cached features, with the fewest gradients and the
shortest steps.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from container_train.monitoring.sidecar import ONE_THREAD
from tests.bench.arguments import new_file, whole
from tests.faults import hosts

ROOT = Path(__file__).parents[2]
PICTURES = {"train": 64, "valid": 1, "test": 1}  # of each of three classes
TRAINING = {"arch": "resnet18", "image-size": "160", "batch-size": "32", "measure": "none"}
TRAININGS = {
    "all": {"freeze-until": "none", "feature-cache": "off", "epochs": "2"},
    "layer3": {"freeze-until": "layer3", "epochs": "4"},
    "head": {"freeze-until": "backbone", "epochs": "30"},
}


def speeds(base: Path, jobs: int, of_hosts: int, training: Mapping[str, str]) -> list[float]:
    """Images per second of each of the jobs, all at the same time, in the last epoch."""
    found = []
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(hosts.job("process", base / f"job-{number}", of_hosts, training, PICTURES))
            for number in range(jobs)
        ]
        for job in running:
            if any(hosts.finish(job, 900)):
                sys.exit(f"bench_hosts: a job failed:\n{job[0].text()}")
            found.append(hosts.metric(job[0].text(), "images_per_second")[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=whole, default=2, help="(default: %(default)s)")
    parser.add_argument("--turns", type=whole, default=2, help="(default: %(default)s)")
    parser.add_argument("--train", choices=list(TRAININGS), default="all", help="(default: %(default)s)")
    parser.add_argument("--out", type=new_file, help="a JSON file for the figures")
    options = parser.parse_args()
    os.environ |= {**ONE_THREAD, "PYTHONPATH": str(ROOT)}
    count = options.hosts
    ways = {"alone": (1, 1), "apart": (count, 1), "together": (1, count)}
    values: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(options.turns):
        for way in list(ways) if turn % 2 == 0 else reversed(list(ways)):
            with tempfile.TemporaryDirectory() as folder:
                values[way].append(sum(speeds(Path(folder), *ways[way], TRAINING | TRAININGS[options.train])))
            print(f"turn {turn + 1}, {way}: {values[way][-1]:.1f} images per second", flush=True)
    rows: list[dict[str, Any]] = []
    for name, beside in (("one host", "alone"), (f"{count} jobs at once", "apart")):
        ratios = [a / b for a, b in zip(values["together"], values[beside], strict=True)]
        rows.append(
            {
                "name": f"images per second of {count} hosts ({options.train}) against {name}",
                "goal": "0.9 x" if beside == "apart" and options.train == "all" else "",
                "unit": "x",
                "measured": statistics.median(ratios),
                "spread": [min(ratios), max(ratios)],
                "repetitions": options.turns,
                "beside": {way: statistics.median(values[way]) for way in ways},
            }
        )
        print(f"{rows[-1]['name']}: {rows[-1]['measured']:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
