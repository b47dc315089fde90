"""The training loop: steps, epochs, evaluation, the best epoch, checkpoints."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import InitVar, asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from container_train.debugger.config import SaveSchedule
from container_train.distributed.process_group import SINGLE, ProcessGroup
from container_train.errors import Stopped, TrainError
from container_train.features.sources import Source
from container_train.hyperparameters import Hyperparameters
from container_train.model import batch_norm
from container_train.model.builder import Network
from container_train.monitoring.monitor import OFF, Monitor
from container_train.signals import StopFlag
from container_train.training import checkpoint
from container_train.training.metrics import line
from container_train.training.optimization import optimizer_for
from container_train.training.precision import Precision

log = logging.getLogger(__name__)

# What a training resumes from.
KEYS = frozenset(("tally", "history", "best", "model", "optimizer", "scaler", "random", "random_cuda"))


@dataclass
class RunningMetrics:
    """Sums over the images of an epoch so far."""

    loss: float = 0.0
    correct: int = 0
    seen: int = 0

    def add(self, loss: float, correct: int, seen: int) -> None:
        self.loss += loss * seen
        self.correct += correct
        self.seen += seen


@dataclass
class State:
    """The state of a training. `epoch` counts from 0 and is the current one; `step` counts its finished steps."""

    epoch: int = 0
    step: int = 0
    tally: RunningMetrics = field(default_factory=RunningMetrics)
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)  # epoch, accuracy, loss, model
    stopped_by: str = ""  # the rule, if one ended the training


@dataclass(eq=False)
class Trainer:
    """Trains the head of `network` on `source`, keeping a checkpoint in `folder`."""

    network: Network
    source: Source
    hp: Hyperparameters
    precision: Precision
    folder: Path
    identity: dict[str, Any]
    stop: StopFlag
    resumed: InitVar[dict[str, Any] | None] = None
    monitor: Monitor = OFF
    group: ProcessGroup = SINGLE

    def __post_init__(self, resumed: dict[str, Any] | None) -> None:
        self.parallel = self.group.data_parallel(self.network.head)
        self.optimizer = optimizer_for(self.network, self.hp)
        self.scaler = self.precision.scaler()
        self.loss = nn.CrossEntropyLoss()
        self.state = State()
        self.asked = self.ruled = False  # known to all processes at the same step
        self.progressed: Callable[[], None] = lambda: None
        self._resume(resumed)

    def fit(self) -> list[dict[str, float]]:
        """Train to the end, leave the best epoch's weights in the network and return the history of the epochs."""
        self.monitor.debug(self.network.head, self.loss, self.plan(), self.scaler.get_scale)
        try:
            with self.group.watchdog() as self.progressed:
                while self.state.epoch < self.hp.epochs and not self._patience_is_over() and not self._rule_says_stop():
                    self._epoch()
                    (self.ruled,) = self.group.any(bool(self.monitor.stop_reason))
        finally:
            self.monitor.release()
        self.network.model.load_state_dict(self.state.best["model"], strict=False)
        self.network.eval_mode()
        log.info(line("best_epoch", self.state.best["epoch"]))
        return self.state.history

    def _patience_is_over(self) -> bool:
        over = self.hp.patience > 0 and self.state.epoch - self.state.best.get("epoch", 0) >= self.hp.patience
        if over and self.state.best:
            log.info("stopping early: no better validation accuracy for %d epochs", self.hp.patience)
        return over and bool(self.state.best)

    def _agree(self) -> None:
        """Learn whether a stop was asked for in any process, or by a rule in the one that is watched."""
        self.asked, self.ruled = self.group.any(self.stop.asked, bool(self.monitor.stop_reason))

    def _rule_says_stop(self) -> bool:
        state, reason = self.state, self.monitor.stop_reason or "of the first process"
        if not self.ruled and not state.stopped_by:
            return False
        if not state.best:
            raise TrainError(f"rule {reason}; hyperparameter on-rule is stop, and no epoch was finished yet")
        if not state.stopped_by:
            # A job that is interrupted later, in its export, is not to train on.
            state.stopped_by = reason
            self._save()
        log.info("stopping early: rule %s; the best epoch is kept", state.stopped_by)
        self.monitor.note(reason=f"stopped early by rule {state.stopped_by}")
        return True

    def plan(self) -> SaveSchedule:
        """Return the numbers of steps that there are and were, of training and of evaluation."""
        train, valid = (math.ceil(len(self.source.data.splits[s]) / self.hp.batch_size) for s in ("train", "valid"))
        done = self.state.epoch * train + self.state.step
        return SaveSchedule(train, self.hp.epochs, done, self.state.epoch * valid)

    def _epoch(self) -> None:
        state, started, before = self.state, time.monotonic(), self.state.tally.seen
        self.network.train_mode()
        self.monitor.mode("train")
        batches = self.source.training(state.epoch, skip=state.step * self.hp.batch_size)
        number = state.epoch * self.plan().steps_per_epoch + state.step
        self._agree()
        for inputs, targets in self.monitor.batches(
            batches, state.epoch + 1, number, lambda: self.source.backbone_seconds
        ):
            if self.group.size == 1:
                self._agree()  # several have agreed in the step before
            if self.asked:
                self._stop()
            if self.ruled:
                return  # what was learned since the last epoch is not measured, and so not kept
            self._step(inputs, targets)
            self.progressed()
            if self.hp.checkpoint_every and state.step % self.hp.checkpoint_every == 0:
                with self.monitor.phase("checkpoint", state.epoch + 1):
                    self._save()
        seconds = time.monotonic() - started
        # After a resume the tally holds images of the interrupted run, whose time is not known here.
        speed = (state.tally.seen - before) / max(seconds, 1e-9)
        self.group.average_buffers(self.network.head)
        with self.monitor.phase("evaluate", state.epoch + 1):
            valid = self.evaluate("valid")
        record = {
            "epoch": state.epoch + 1,
            "train_loss": state.tally.loss / state.tally.seen,
            "train_accuracy": state.tally.correct / state.tally.seen,
            "valid_loss": valid.loss / valid.seen,
            "valid_accuracy": valid.correct / valid.seen,
            "images_per_second": speed,
        }
        self._check_epoch(record)
        for name, value in record.items():
            log.info(line(name, value))
        self.monitor.epoch(record)
        state.history.append(record)
        rank = (record["valid_accuracy"], -record["valid_loss"])
        if not state.best or rank > (state.best["accuracy"], -state.best["loss"]):
            state.best = {
                "epoch": state.epoch + 1,
                "accuracy": record["valid_accuracy"],
                "loss": record["valid_loss"],
                "model": checkpoint.changing(self.network.model),
            }
        state.epoch, state.step, state.tally = state.epoch + 1, 0, RunningMetrics()
        with self.monitor.phase("checkpoint", state.epoch):
            self._save()

    def _stop(self) -> NoReturn:
        with self.monitor.phase("checkpoint", self.state.epoch + 1):
            self._save()
        raise Stopped(f"in epoch {self.state.epoch + 1} after {self.state.step} steps; the checkpoint holds them")

    def _step(self, inputs: tuple[torch.Tensor, ...], targets: torch.Tensor) -> None:
        """One step on a batch, of which `inputs` and `targets` are this process's part, maybe of no images."""
        state, group = self.state, self.group
        images = len(self.source.data.splits["train"])
        whole = min(self.hp.batch_size, images - state.step * self.hp.batch_size)
        if whole < batch_norm.FEWEST * group.size and batch_norm.is_trained(self.network.head):
            return  # what is left over at the end of an epoch
        if group.size > 1:
            # For dropout: as many random numbers as there are processes, and the same again after an interruption.
            torch.manual_seed(hash((self.hp.seed, state.epoch, state.step, group.rank)))
        if not len(targets):  # all processes take part in a step: one blank image, whose gradient is zero
            inputs = tuple(feature.new_zeros(1, *feature.shape[1:]) for feature in inputs)
        with self.precision.autocast():
            logits = self.parallel(*inputs)
            loss = self.loss(logits, targets) if len(targets) else logits[:0].sum()
        value = float(loss.detach())  # on a GPU this waits for the forward pass
        correct = int((logits[: len(targets)].argmax(1) == targets).sum())
        # All that the processes tell each other beside gradients, on its way while these are computed.
        told = (value * len(targets), correct, self.stop.asked, bool(self.monitor.stop_reason))
        sums = group.all_reduce_async([float(number) for number in told])
        self.monitor.mark()
        self.optimizer.zero_grad(set_to_none=True)
        # See ProcessGroup.data_parallel: the mean over the processes is the gradient of the mean over the whole batch.
        self.scaler.scale(loss if group.size == 1 else loss * (len(targets) * group.size / whole)).backward()
        self.monitor.gradients()
        total, correct_sum, asked, ruled = sums()
        self.asked, self.ruled = asked > 0, ruled > 0
        value = value if group.size == 1 else total / whole
        self._check_loss("loss", value, f"in epoch {state.epoch + 1}, step {state.step + 1}")
        self.monitor.mark()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        state.tally.add(value, int(correct_sum), whole)
        if self.source.device.type == "cuda":
            torch.cuda.synchronize(self.source.device)  # what is marked is the step's own time
        self.monitor.mark()
        state.step += 1

    def _check_epoch(self, record: dict[str, float]) -> None:
        self._check_loss("validation loss", record["valid_loss"], f"after epoch {record['epoch']:.0f}")

    def _check_loss(self, name: str, value: float, where: str) -> None:
        """Raise TrainError where predictions are not numbers: the most probable class of such is none."""
        if not math.isfinite(value):
            raise TrainError(f"the {name} became {value} {where}: lower lr (it is {self.hp.lr:g})")

    @torch.no_grad()
    def evaluate(self, split: str) -> RunningMetrics:
        """Return loss and correct predictions of the network as it is on a split."""
        self.network.eval_mode()
        self.monitor.mode("eval")
        tally = RunningMetrics()
        for inputs, targets in self.source.evaluation(split):
            self.progressed()
            if (split, 0) not in self.source.cache:  # decoding all of them may take longer than a stop has time
                self._agree()
                if self.asked:
                    self._stop()
            if not len(targets):
                continue
            with self.precision.autocast():
                logits = self.network.head(*inputs)
            loss = float(self.loss(logits.float(), targets))
            tally.add(loss, int((logits.argmax(1) == targets).sum()), len(targets))
        if self.group.size == 1:
            return tally
        loss, correct, seen = self.group.all_reduce([tally.loss, tally.correct, tally.seen])
        return RunningMetrics(loss, int(correct), int(seen))

    def _save(self) -> None:
        state = self.state
        if self.group.rank:
            return
        content = {
            "epoch": state.epoch,
            "step": state.step,
            "tally": asdict(state.tally),
            "history": state.history,
            "best": state.best,
            "stopped by": state.stopped_by,
            "model": checkpoint.changing(self.network.model),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        }
        checkpoint.save(self.folder, self.identity, content)

    def _resume(self, content: dict[str, Any] | None) -> None:
        if content is None:
            torch.manual_seed(self.hp.seed)
            return
        self.network.model.load_state_dict(content["model"], strict=False)
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        torch.set_rng_state(content["random"])
        if content["random_cuda"] is not None and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(content["random_cuda"])
        self.state = State(
            content["epoch"], content["step"], RunningMetrics(**content["tally"]), content["history"], content["best"],
            content.get("stopped by", ""),
        )  # fmt: skip
        for record in self.state.history:
            self._check_epoch(record)
