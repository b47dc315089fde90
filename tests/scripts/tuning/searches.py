"""Searches made up for tests: what trials might have given."""

import math
import random

from scripts.tuning import space
from scripts.tuning.trials import Search, Trial


def trial(number: int, lr: float, batch: int, value: float | None, **more: object) -> Trial:
    epochs = []
    if value is not None:
        epochs = [
            {"epoch": n, "valid_accuracy": value - 0.05 * (2 - n), "valid_loss": 2 - value - 0.1 * n} for n in (1, 2)
        ]
    facts: dict[str, object] = {
        "status": "completed", "value": value, "epochs": epochs, "seconds": 12.3, **more,
    }  # fmt: skip
    return Trial(number, f"trial-{number:04d}", parameters={"lr": lr, "batch-size": batch}, **facts)  # type: ignore[arg-type]


def search(*trials: Trial, strategy: str = "bayesian") -> Search:
    return Search("dogs", "this machine, process engine", strategy, space.load(), trials, 300.0)


def usual(count: int = 20) -> Search:
    """A small learning rate is better; one trial has failed, one was ended early."""
    dice = random.Random(1)
    made = []
    for number in range(count):
        lr, batch = (10 ** dice.uniform(-3, -1), dice.choice([32, 64])) if number else (0.001, 64)
        value = 0.58 - 0.03 * (math.log10(lr) + 3) ** 2 + dice.gauss(0, 0.005)
        made.append(trial(number, lr, batch, value))
    made[3] = trial(3, 0.09, 32, None, status="failed", reason="the loss became nan in epoch 1: lower lr (exit code 1)")
    made[5] = trial(5, 0.05, 64, None, status="pruned", reason="others were better by then")
    return search(*made)


FAILED = trial(0, 0.01, 32, None, status="failed", reason="no such channel")
