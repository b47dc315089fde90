"""The cost of the debugger's hook per step, saved and not saved: `python tests/bench/bench_hook.py [--steps 6]`.

Real networks on the CPU, batches of 32, one thread. Steps without the hook, with it and saved, with it and not saved,
take turns, so that other work on the machine hits all of them alike; what counts is the processor time of each.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from container_train.debugger.config import SaveSchedule
from container_train.debugger.hook import Hook
from container_train.model import builder
from container_train.paths import SageMakerPaths
from tests.bench.arguments import whole

CLASSES = 133
NETWORKS = (("resnet18", "none"), ("resnet50", "layer3"))  # and their trained part
HEAD = "a head on cached features"
SAVED, PASSED_OVER, WITHOUT = "saved", "passed over", "without"


def measure(name: str, backbone: nn.Module | None, head: nn.Module, inputs: torch.Tensor, steps: int) -> None:
    targets = torch.arange(len(inputs)) % CLASSES
    loss = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam([p for p in head.parameters() if p.requires_grad], lr=1e-5)
    seconds: dict[str, list[float]] = {SAVED: [], PASSED_OVER: [], WITHOUT: []}

    def step(hook: Hook | None = None) -> float:
        started = time.process_time()
        with torch.no_grad():  # as without a cache: with every batch
            features = (inputs,) if backbone is None else backbone(inputs)
        value = loss(head(*features), targets)
        float(value.detach())
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        if hook is not None:
            hook.gradients()
        optimizer.step()
        return time.process_time() - started

    head.train()
    step()
    size = saved = 0
    inside: dict[str, list[float]] = {SAVED: [], PASSED_OVER: []}
    for turn in range(steps):
        seconds[WITHOUT].append(step())
        for kind in (SAVED, PASSED_OVER) if turn % 2 else (PASSED_OVER, SAVED):
            with tempfile.TemporaryDirectory() as folder:
                schedule = SaveSchedule(100, 1, done=1000)
                hook = Hook(SageMakerPaths(Path(folder)), schedule, interval=1 if kind == SAVED else 10**6)
                hook.register(head, loss)
                hook.mode("train")
                spent = step(hook)
                started = time.process_time()
                hook.recorder.flush()  # as the next step would
                rest_of_it = time.process_time() - started
                inside[kind].append(1e3 * (hook.seconds + rest_of_it))
                seconds[kind].append(spent + rest_of_it)
                hook.close()
                assert hook.state == "on", hook.reason
                if kind == SAVED:
                    size, saved = hook.describe()["bytes"], hook.describe()["saved_steps"]
    assert saved == 1
    middle = {kind: statistics.median(values) for kind, values in seconds.items()}
    both = zip(seconds[SAVED], seconds[PASSED_OVER], seconds[WITHOUT], strict=True)
    ratios = [(one / without - 1, other / without - 1) for one, other, without in both]
    dear, cheap = (100 * statistics.median(column) for column in zip(*ratios, strict=True))
    print(
        f"{name:34} without {1e3 * middle[WITHOUT]:8.2f} ms; saved {1e3 * (middle[SAVED] - middle[WITHOUT]):+7.2f} ms"
        f" ({dear:+5.1f} %), passed over {1e3 * (middle[PASSED_OVER] - middle[WITHOUT]):+6.2f} ms ({cheap:+5.1f} %);"
        f" {size / 1e6:.2f} MB a saved step; in the hook (wall) {statistics.median(inside[SAVED]):.2f} and"
        f" {statistics.median(inside[PASSED_OVER]):.2f} ms",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=whole, default=6, help="(default: %(default)s)")
    parser.add_argument("--side", type=whole, default=224, help="of the pictures, in pixels")
    parser.add_argument("--only", default="", help="part of a name")
    options = parser.parse_args()
    names = [f"{arch}, freeze-until {frozen}" for arch, frozen in NETWORKS] + [HEAD]
    if not any(options.only in name for name in names):
        parser.error(f"--only {options.only} is in none of: {'; '.join(names)}")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for arch, frozen in NETWORKS:
        name = f"{arch}, freeze-until {frozen}"
        if options.only not in name:
            continue
        network = builder.build(
            arch, CLASSES, weights="none", weights_file=None, freeze_until=frozen, image_size=options.side
        )
        pictures = torch.rand(32, 3, options.side, options.side).to(memory_format=torch.channels_last)
        network.to(torch.device("cpu"))
        measure(name, network.backbone, network.head, pictures, options.steps)
    if options.only not in HEAD:
        return
    head = builder.build("resnet50", CLASSES, weights="none", weights_file=None, freeze_until="backbone", image_size=64)
    measure(HEAD, None, head.head, torch.rand(64, 2048), 40 * options.steps)


if __name__ == "__main__":
    main()
