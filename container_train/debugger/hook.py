"""The debugger as the training loop sees it: it is told of the network, the mode and the end, and never fails."""

import logging
import time
from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from container_train.debugger import config
from container_train.debugger.config import SaveSchedule
from container_train.paths import SageMakerPaths

log = logging.getLogger(__name__)


class Hook:
    """`state` off (without a tree), on or failed, and the `reason` of the latter in words. No method raises.

    `interval` 0: from the schedule. `scale` gives the factor on the loss (GradScaler.get_scale). `seconds` is the time
    that the steps of the training spent in the hook.
    """

    def __init__(
        self,
        tree: SageMakerPaths | None = None,
        schedule: SaveSchedule | None = None,
        *,
        interval: int = 0,
        scale: Callable[[], float] | None = None,
    ) -> None:
        self.state, self.reason = "off" if tree is None else "on", ""
        self.recorder: Any = None
        self.interval = 0
        self.seconds = 0.0
        self._closed = False
        self._guard(self._make)(tree, schedule, interval, scale)

    def _make(
        self, tree: SageMakerPaths, schedule: SaveSchedule, interval: int, scale: Callable[[], float] | None
    ) -> None:
        # A second: smdebug imports pandas and boto3. Only where it is used.
        from container_train.debugger.recorder import Recorder

        folder, asked = config.folder(tree), interval or config.service_interval(tree)
        self.interval = schedule.interval(asked)
        config.clear(folder)
        self.recorder = Recorder(
            folder, schedule, self.interval, scale, thrifty=not asked, seconds=lambda: self.seconds
        )
        log.info("debugger: tensors of every %s step go to %s", self.interval, folder)

    def register(self, head: nn.Module, loss: nn.Module) -> None:
        """Watch what is trained, `head`, and its loss module: `loss(logits, targets)`."""
        self._guard(lambda: self.recorder.attach(head, loss, self._guard))()
        self.seconds = 0.0

    def mode(self, mode: Literal["train", "eval"]) -> None:
        """Say what the next forward passes are for. Steps are counted for each mode by itself, over all epochs."""
        self._guard(lambda: self.recorder.set_mode(mode))()

    def further_part(self) -> None:
        """Say that the next forward pass is of the same step, a further part of its batch."""
        if self.recorder is not None:
            self.recorder.further = True

    def gradients(self) -> None:
        """Record the gradients that the optimizer will use: call it after the backward pass of each training step."""
        self._guard(lambda: self.recorder.on_gradients())()

    def saves(self) -> bool:
        """Return True where tensors of the next step are saved: only then are the hooks in the network needed."""
        return self.state == "on" and bool(self.recorder.is_next_saved())

    def not_finite(self) -> None:
        """Save the step at any interval: its loss, or that of the step before, is no number."""
        self._guard(lambda: self.recorder.on_not_finite())()

    def close(self) -> None:
        """Write what is left and take every hook off the network."""
        if self.recorder is not None and not self._closed:
            self._closed = True
            self.recorder.detach()
            self._guard(self.recorder.finish)()
            self.describe()

    def describe(self) -> dict[str, Any]:
        """For job.json: state, reason, interval, folder, saved_steps, bytes."""
        facts = {"state": self.state, "reason": self.reason, "interval": self.interval}
        if (recorder := self.recorder) is None:
            return facts
        if recorder.exhausted and not self.reason:
            self.reason = facts["reason"] = f"since step {recorder.step} only losses are saved: {recorder.exhausted}"
            log.warning("debugger: %s", self.reason)
        return facts | {
            "folder": str(recorder.folder),
            "saved_steps": recorder.saved_steps,
            "bytes": recorder.written,
        }

    def _guard(self, function: Callable[..., Any]) -> Callable[..., None]:
        """`function`, timed; what it raises ends the debugging, not the training."""

        def guarded(*arguments: Any) -> None:
            if self.state != "on":
                return
            started = time.perf_counter()
            try:
                function(*arguments)
            except Exception as error:
                self.state = "failed"
                self.reason = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]
                log.warning("debugger: off, the training continues without it: %s", self.reason)
                log.debug("debugger", exc_info=error)
            finally:
                self.seconds += time.perf_counter() - started

        return guarded


def trained(model: nn.Module) -> str:
    """`the last layer`, or `N of M layers`: of the modules with parameters of their own, those that are trained."""
    layers = [own for module in model.modules() if (own := list(module.parameters(recurse=False)))]
    some = [own for own in layers if any(parameter.requires_grad for parameter in own)]
    return "the last layer" if len(some) == 1 else f"{len(some)} of {len(layers)} layers"
