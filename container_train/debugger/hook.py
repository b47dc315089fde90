"""What the training loop knows of the debugger: it is told of the network, of the mode and of the end, and never fails."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from container_train.tree import Tree

log = logging.getLogger(__name__)

State = Literal["on", "off", "failed"]


@dataclass(frozen=True)
class Plan:
    """How long the training is, in steps: of it follows what is saved. `done` were made before the job was stopped."""

    steps_per_epoch: int
    evaluation_steps: int
    epochs: int
    done: int = 0
    done_evaluation: int = 0


class Hook:
    """`state` on, off or failed, and the `reason` of the latter two in words. No method raises.

        hook = Hook.make(tree, plan, interval=0, scale=scaler.get_scale)
        hook.register(network.rest, loss)
        hook.mode("train"); ...; hook.mode("eval"); ...
        hook.close()

    `close` takes all of it off the network again: call it before the network is exported, at any end of the training.
    """

    def __init__(self, state: State, reason: str = "") -> None:
        self.state: State = state
        self.reason = reason

    @classmethod
    def off(cls, reason: str) -> "Hook":
        return cls("off", reason)

    @classmethod
    def make(cls, tree: Tree, plan: Plan, *, interval: int = 0, scale: Callable[[], float] | None = None) -> "Hook":
        """`interval` 0: from the plan. `scale` gives the factor on the loss (GradScaler.get_scale)."""
        return cls("off", "not there yet")

    def register(self, rest: nn.Module, loss: nn.Module) -> None:
        """Watch what is trained, `rest`, and its loss module."""

    def mode(self, mode: Literal["train", "eval"]) -> None:
        """Say what the next forward passes are for."""

    def close(self) -> None:
        """Write what is left and take every hook off the network."""

    def describe(self) -> dict[str, Any]:
        """For job.json: state, reason, interval, folder, saved_steps, bytes, ms_per_step."""
        return {"state": self.state, "reason": self.reason}


def trained(model: nn.Module) -> str:
    """`the last layer`, or `N of M layers`: of the modules with parameters of their own, those that are trained."""
    layers = [list(module.parameters(recurse=False)) for module in model.modules()]
    every = [own for own in layers if own]
    some = [own for own in every if any(parameter.requires_grad for parameter in own)]
    return "the last layer" if len(some) == 1 else f"{len(some)} of {len(every)} layers"


__all__ = ["Hook", "Plan", "trained"]
_ = torch
