"""What the training loop knows of the debugger: it is told of the network, the mode and the end, and never fails."""

import json
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from torch import nn

from container_train.debugger import config
from container_train.debugger.config import Plan
from container_train.paths import SageMakerPaths

log = logging.getLogger(__name__)

State = Literal["on", "off", "failed"]


class Hook:
    """`state` on, off or failed, and the `reason` of the latter two in words. No method raises.

        hook = Hook.make(tree, plan, interval=0, scale=scaler.get_scale)
        hook.register(network.head, loss)
        hook.mode("train"); ...; loss.backward(); hook.gradients(); ...; hook.mode("eval"); ...
        hook.close()

    `close` takes all of it off the network again: call it before the network is exported, at any end of the training.
    `seconds` is the time that the steps of the training spent in the hook, `setup_seconds` that before them.
    """

    def __init__(self, state: State, reason: str = "", recorder: Any = None) -> None:
        self.state: State = state
        self.reason = reason
        self.recorder = recorder
        self.interval = 0
        self.seconds = self.setup_seconds = 0.0
        self._said = self._closed = False

    @classmethod
    def off(cls, reason: str) -> "Hook":
        return cls("off", reason)

    @classmethod
    def make(
        cls, tree: SageMakerPaths, plan: Plan, *, interval: int = 0, scale: Callable[[], float] | None = None
    ) -> "Hook":
        """`interval` 0: from the plan. `scale` gives the factor on the loss (GradScaler.get_scale)."""
        hook = cls("on")
        hook._guard(hook._make, hook)(tree, plan, interval, scale)
        return hook

    def register(self, rest: nn.Module, loss: nn.Module) -> None:
        """Watch what is trained, `rest`, and its loss module: `loss(logits, targets)`."""
        if self.recorder is not None:
            self._guard(self.recorder.attach, self)(rest, loss, lambda function: self._guard(function, self))
            self.setup_seconds, self.seconds = self.seconds, 0.0

    def mode(self, mode: Literal["train", "eval"]) -> None:
        """Say what the next forward passes are for. Steps are counted for each mode by itself, over all epochs."""
        if self.recorder is not None:
            from smdebug.core.modes import ModeKeys

            self._guard(self.recorder.set_mode, self)(ModeKeys.TRAIN if mode == "train" else ModeKeys.EVAL)

    def gradients(self) -> None:
        """Record the gradients that the optimizer will use: call it after the backward pass of each training step."""
        if self.recorder is not None:
            self._guard(self.recorder.on_gradients, self)()

    def close(self) -> None:
        """Write what is left and take every hook off the network."""
        if self.recorder is not None and not self._closed:
            self._closed = True
            self.recorder.detach()
            self._guard(self.recorder.finish, self)()
            self._note()

    def describe(self) -> dict[str, Any]:
        """For job.json: state, reason, interval, folder, saved_steps, bytes, setup_seconds, ms_per_step (a mean)."""
        self._note()
        recorder = self.recorder
        return {
            "state": self.state,
            "reason": self.reason,
            "interval": self.interval,
            "folder": str(recorder.out_dir) if recorder is not None else "",
            "saved_steps": recorder.saved_steps if recorder is not None else 0,
            "bytes": recorder.written if recorder is not None else 0,
            "setup_seconds": round(self.setup_seconds, 3),
            "ms_per_step": round(1000 * self.seconds / max(recorder.seen, 1), 3) if recorder is not None else 0.0,
        }

    def _make(self, tree: SageMakerPaths, plan: Plan, interval: int, scale: Callable[[], float] | None) -> None:
        settings = config.read(tree)
        # Seconds: smdebug imports pandas and boto3. Only where it is used.
        from container_train.debugger import setup

        folder = config.folder(tree)
        self.interval = plan.interval(interval)
        config.clear(folder, plan.first(plan.evaluation_interval()))
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary, config.FILE)
            file.write_text(json.dumps(settings))
            self.recorder = setup.make(plan, self.interval, folder, settings, file)
        self.recorder.scale = scale
        self.recorder.seconds = lambda: self.seconds
        self.recorder.thrifty = settings is None and interval == 0
        if settings is not None:
            self.interval = self.recorder.evaluation_interval
            log.info("debugger: %s says what is saved", config.FILE)
        log.info("debugger: tensors of every %s step go to %s", self.interval, folder)

    def _note(self) -> None:
        if self.recorder is not None and self.recorder.exhausted and not self._said:
            self._said = True
            self.reason = f"since step {self.recorder.step} only losses are saved: {self.recorder.exhausted}"
            log.warning("debugger: %s", self.reason)

    @staticmethod
    def _guard(function: Callable[..., Any], hook: "Hook") -> Callable[..., None]:
        """`function`, timed; what it raises ends the debugging, not the training."""

        def guarded(*arguments: Any) -> None:
            if hook.state != "on":
                return
            started = time.perf_counter()
            try:
                function(*arguments)
            except Exception as error:
                hook._fail(error)
            finally:
                hook.seconds += time.perf_counter() - started

        return guarded

    def _fail(self, error: Exception) -> None:
        self.state = "failed"
        self.reason = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]
        log.warning("debugger: off, the training goes on without it: %s", self.reason)
        log.debug("debugger", exc_info=error)


def trained(model: nn.Module) -> str:
    """`the last layer`, or `N of M layers`: of the modules with parameters of their own, those that are trained."""
    layers = [list(module.parameters(recurse=False)) for module in model.modules()]
    every = [own for own in layers if own]
    some = [own for own in every if any(parameter.requires_grad for parameter in own)]
    return "the last layer" if len(some) == 1 else f"{len(some)} of {len(every)} layers"


__all__ = ["Hook", "Plan", "trained"]
