"""Accuracy by recipe: `python tests/bench/bench_recipes.py --data DIR --weights FILE [--seeds 3] [--parallel 3]`.

Each recipe is trained with several seeds, the epoch chosen on valid, and measured on valid and test, in float; `plain`
is the script of peers/finetune.py. Every run is a process of its own, `--parallel` of them at a time, with a line as
soon as it has ended; then come a table of means with ranges, and a line of JSON. --recipes names some of them, --also
adds one: --also 'frozen=--recipe finetune --batch-norm frozen'. Needs torch, torchvision, numpy, Pillow and psutil.
"""

import argparse
import json
import logging
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.arguments import existing, natural, new_file, whole

HERE = Path(__file__).parent
PLAIN = "plain"
RECIPES = {
    "default": "",
    "views": "--recipe views",
    "finetune": "--recipe finetune",
    PLAIN: "",
    "finetune320": "--recipe finetune --image-size 320",
    "finetune448": "--recipe finetune --image-size 448",
}


def train(words: Sequence[str], folder: Path, weights: Path | None, pictures: int) -> dict[str, float]:
    """Train in this process with these hyperparameters, and return accuracies and seconds."""
    import torch

    from container_train import command_line
    from container_train.compute.precision import Precision
    from container_train.compute.runtime import Runtime
    from container_train.model import builder
    from container_train.monitoring.monitor import OFF
    from container_train.monitoring.phases import Phases
    from container_train.paths import SageMakerPaths
    from container_train.signals import StopFlag
    from container_train.training import course
    from container_train.training.stages import stages_of
    from tests.bench.bench_training import read

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    hp = command_line.parse([*words, "--debug", "off", "--profile-interval", "0", "--measure", "none"])
    with tempfile.TemporaryDirectory() as base:
        data, tree = read(folder, pictures, Path(base)), SageMakerPaths(Path(base))
        started, processor = time.perf_counter(), processor_seconds()
        precision = Precision.choose(hp.amp, device)
        precision.prepare()
        network = builder.build(
            hp.arch, len(data.classes), weights="none" if weights is None else "DEFAULT", weights_file=weights,
            freeze_until=stages_of(hp)[0].hp.freeze_until, resize_size=hp.resize_size, image_size=hp.image_size,
            seed=hp.seed, freeze_statistics=hp.batch_norm == "frozen",
        )  # fmt: skip
        network.to(device)
        runtime = Runtime(device, precision, StopFlag())
        trainer = course.run(network, data, hp, runtime, tree, {}, Phases(OFF, runtime.stop))
        seconds, processor = time.perf_counter() - started, processor_seconds() - processor
        best = trainer.state.best
        measured = {split: trainer.learner.evaluate(split) for split in ("valid", "test")}
        trainer.source.close()
    accuracies = {split: found.correct / found.seen for split, found in measured.items()}
    return {**accuracies, "epoch": best["epoch"], "seconds": seconds, "processor": processor}


def processor_seconds() -> float:
    """Return the processor time of this process and of its children: other work hardly changes it."""
    import psutil

    running = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(os.times()[:4]) + sum(times.user + times.system for times in running)


def one(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run one recipe with one seed in a process of its own. Raises RuntimeError where it fails."""
    workers = max(1, len(os.sched_getaffinity(0)) // options.parallel)
    if name == PLAIN:
        sizes = options.arch, options.epochs or 25, options.head_epochs or 4, options.side or 224, workers
        weights = str(options.weights or "none")
        command = [str(HERE / "peers" / "finetune.py"), str(options.data), weights, str(seed), *map(str, sizes)]
    else:
        words = [
            "--arch",
            options.arch,
            "--workers",
            str(workers),
            "--seed",
            str(seed),
            *shlex.split(named(options)[name]),
        ]
        given = {"--epochs": options.epochs, "--head-epochs": options.head_epochs, "--image-size": options.side}
        for flag, value in given.items():
            if value and (flag != "--head-epochs" or "finetune" in words):
                words = [*without(words, flag), flag, str(value)]
        command = [
            __file__,
            "--data",
            str(options.data),
            "--pictures",
            str(options.pictures),
            "--train",
            shlex.join(words),
        ]
        command += ["--weights", str(options.weights)] if options.weights else []
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}, seed {seed}: ended with {done.returncode}\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"name": name, "seed": seed, **found, "process_seconds": time.perf_counter() - started}


def without(words: list[str], flag: str) -> list[str]:
    """Return `words` without a flag and its value."""
    return words[: words.index(flag)] + words[words.index(flag) + 2 :] if flag in words else words


def named(options: argparse.Namespace) -> dict[str, str]:
    """Return the hyperparameters of each recipe that can be measured."""
    return {**RECIPES, **dict(text.split("=", 1) for text in options.also)}


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Return a row for each recipe: means, and the range over its seeds."""
    columns = ("valid %", "test %", "both %", "seconds", "processor s")
    lines = [f"{'recipe':16} " + " ".join(f"{column:>20}" for column in columns) + " seeds"]
    for name in dict.fromkeys(run["name"] for run in runs):
        of = [run for run in runs if run["name"] == name]
        both = [(run["valid"] + run["test"]) / 2 for run in of]
        values = [[100 * run["valid"] for run in of], [100 * run["test"] for run in of], [100 * b for b in both]]
        values += [[run[key] for run in of] for key in ("seconds", "processor")]
        cells = (f"{statistics.mean(v):.1f} ({min(v):.1f} to {max(v):.1f})" for v in values)
        lines.append(f"{name:16} " + " ".join(f"{cell:>20}" for cell in cells) + f" {len(of):5}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=existing, help="train, valid and test, a folder a class in each")
    parser.add_argument("--weights", type=existing, help="a state_dict file (default: a random backbone)")
    parser.add_argument("--arch", default="resnet50", help="(default: %(default)s)")
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help=f"of {', '.join(RECIPES)} (default: all)")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=FLAGS", help="a recipe of your own")
    parser.add_argument("--seeds", type=whole, default=3, help="(default: %(default)s)")
    parser.add_argument("--parallel", type=whole, default=1, help="runs at a time (default: %(default)s)")
    parser.add_argument("--epochs", type=natural, default=0, help="of every recipe (default: its own)")
    parser.add_argument("--head-epochs", type=natural, default=0, help="of finetune (default: its own)")
    parser.add_argument("--side", type=natural, default=0, help="of the images, in pixels (default: the recipe's)")
    parser.add_argument("--pictures", type=natural, default=0, help="of train and valid, 0: all (default; plain: all)")
    parser.add_argument("--out", type=new_file, help="a JSON file for the results")
    parser.add_argument("--train", help=argparse.SUPPRESS)  # in a process of one run
    options = parser.parse_args()
    if options.data is None:
        print("nothing is measured: accuracies want real pictures: --data DIR --weights FILE")
        return
    if options.train is not None:
        print(json.dumps(train(shlex.split(options.train), options.data, options.weights, options.pictures)))
        return
    if bad := [text for text in options.also if "=" not in text]:
        parser.error(f"--also {bad[0]}: expected NAME=FLAGS")
    names = options.recipes or [*named(options)]
    if unknown := [name for name in names if name not in named(options)]:
        parser.error(f"no recipe {unknown[0]}: there are {', '.join(named(options))}")
    names += [name for name in named(options) if name not in RECIPES and name not in names]
    runs: list[dict[str, Any]] = []
    failed: list[str] = []
    lock = threading.Lock()

    def measure(job: tuple[int, str]) -> None:
        seed, name = job
        try:
            found = one(name, seed, options)
        except RuntimeError as error:  # the other runs go on
            failed.append(str(error))
            print(error, flush=True)
            return
        with lock:
            runs.append(found)
            print(
                " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in found.items()), flush=True
            )

    with ThreadPoolExecutor(options.parallel) as pool:
        list(pool.map(measure, [(seed, name) for seed in range(options.seeds) for name in names]))
    runs.sort(key=lambda run: (names.index(run["name"]), run["seed"]))
    print(table(runs))
    print(json.dumps(runs))
    if options.out:
        options.out.write_text(json.dumps(results(runs), indent=1) + "\n")
    if failed:
        sys.exit(f"{len(failed)} runs failed")


def results(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the figures as run.py wants them."""
    found = []
    for name in dict.fromkeys(run["name"] for run in runs):
        both = [50 * (run["valid"] + run["test"]) for run in runs if run["name"] == name]
        found.append(
            {"name": f"accuracy over valid and test, {name}", "goal": {"finetune": "at least 73"}.get(name, ""),
             "measured": round(statistics.mean(both), 2), "unit": "percent", "repetitions": len(both),
             "spread": [round(min(both), 2), round(max(both), 2)]}
        )  # fmt: skip
    return found


if __name__ == "__main__":
    main()
