"""Small real trainings under the real hook, healthy ones and ill ones, and what the rules say of them."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from container_train.debugger import config
from container_train.debugger.config import SaveSchedule
from container_train.debugger.evaluator import RuleEvaluator
from container_train.debugger.hook import Hook
from container_train.debugger.saved_steps import Steps
from container_train.monitoring.findings import Finding
from container_train.paths import SageMakerPaths

CLASSES, FEATURES, BATCH = 4, 16, 32
Batch = tuple[torch.Tensor, torch.Tensor]


def pictures(count: int, seed: int, apart: float = 3.0, classes: int = CLASSES) -> Batch:
    """`count` points (count, FEATURES) around one centre for each class, that many standard deviations apart."""
    centres = apart * torch.eye(classes, FEATURES)
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % classes
    return centres[targets] + torch.randn(count, FEATURES, generator=generator), targets


def batches(data: Batch, size: int = BATCH) -> list[Batch]:
    return list(zip(data[0].split(size), data[1].split(size), strict=True))


def network(*hidden: int, activation: Callable[[], nn.Module] = lambda: nn.ReLU(inplace=True)) -> nn.Sequential:
    """A linear network with `hidden` layers, started by He's rule."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    before = FEATURES
    for width in hidden:
        layers += [nn.Linear(before, width), activation()]
        before = width
    layers.append(nn.Linear(before, CLASSES))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def train(
    folder: Path,
    head: nn.Module,
    *,
    epochs: int = 3,
    lr: float = 0.01,
    train_on: Iterable[Batch] | None = None,
    valid_on: Iterable[Batch] | None = None,
    interval: int = 1,
    before: Callable[[int], None] = lambda step: None,
    scaler: torch.amp.GradScaler | None = None,
    hook: Hook | None = None,
) -> Hook:
    """Train as the engine does. `before` is called before each step, and may make the training ill."""
    data = list(train_on if train_on is not None else batches(pictures(640, seed=1)))
    valid = list(valid_on if valid_on is not None else batches(pictures(160, seed=2)))
    loss = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(head.parameters(), lr=lr)
    schedule = SaveSchedule(len(data), epochs)
    hook = hook or Hook(
        SageMakerPaths(folder), schedule, interval=interval, scale=None if scaler is None else scaler.get_scale
    )
    hook.register(head, loss)
    step = 0
    try:
        for _ in range(epochs):
            head.train()
            hook.mode("train")
            for inputs, targets in data:
                before(step)
                value = loss(head(inputs), targets)
                if not bool(torch.isfinite(value)):
                    hook.not_finite()
                    return hook  # as the engine does: the job ends here
                optimizer.zero_grad(set_to_none=True)
                (value if scaler is None else scaler.scale(value)).backward()
                hook.gradients()
                optimizer.step()
                step += 1
            head.eval()
            hook.mode("eval")
            with torch.no_grad():
                for inputs, targets in valid:
                    loss(head(inputs), targets)
        return hook
    finally:
        hook.close()


def evaluated(folder: Path, **parameters: Mapping[str, Any]) -> RuleEvaluator:
    """All rules after they saw the training in `folder`."""
    evaluator = RuleEvaluator(parameters)
    evaluator.see(Steps(config.folder(SageMakerPaths(folder))).new())
    return evaluator


def judge(
    folder: Path, job: Mapping[str, Any] | None = None, final: bool = True, **parameters: Mapping[str, Any]
) -> dict[str, Finding]:
    """Return what the rules say of the training in `folder`: {rule: finding}."""
    return {finding.rule: finding for finding in evaluated(folder, **parameters).findings(job or {}, final=final)}
