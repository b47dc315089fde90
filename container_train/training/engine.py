"""The training loop: epochs, stops, the best epoch, checkpoints."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from container_train.debugger.config import SaveSchedule
from container_train.errors import Stopped, TrainError
from container_train.features.sources import Source
from container_train.monitoring.monitor import OFF, Monitor
from container_train.training import checkpoint
from container_train.training.learner import Learner
from container_train.training.metrics import line
from container_train.training.stages import Stage
from container_train.training.state import RunningMetrics, State

log = logging.getLogger(__name__)


class Trainer:
    """Trains the head of the source's network, keeping a checkpoint in `folder`.

    `before` is the state at the end of the stage before this one, whose best weights the network has. The debugger
    watches the last stage alone: its rules compare the steps of one training.
    """

    def __init__(
        self, source: Source, folder: Path, identity: dict[str, Any], resumed: dict[str, Any] | None = None,
        monitor: Monitor = OFF, stage: Stage | None = None, before: State | None = None,
    ) -> None:  # fmt: skip
        self.source, self.monitor = source, monitor
        self.network, self.hp, self.group = source.network, source.hp, source.group
        self.at = stage or Stage(0, self.hp)
        self.learner = Learner(source, self.at, monitor)
        self.writer = checkpoint.Writer(folder, identity)
        self.saved = -1  # the epoch that the newest checkpoint resumes with
        self.progressed: Callable[[], None] = lambda: None
        if resumed is not None and resumed["stage"] == self.at.number:
            with checkpoint.fitting(folder):
                self.learner.load_state_dict(resumed)
                source.data.unreadable.resume(resumed["unreadable"])
            self.saved = self.state.epoch
            for record in self.state.history:
                self._check_epoch(record)
            return
        if before is not None:
            self.state.history, self.state.stopped_by = before.history, before.stopped_by
            # With the weights that this stage changes, too.
            self.state.best = {**before.best, "model": checkpoint.changing(self.network.model)}
        torch.manual_seed(self.hp.seed)

    @property
    def state(self) -> State:
        return self.learner.state

    def fit(self) -> list[dict[str, float]]:
        """Train to the end, leave the best epoch's weights in the network and return the history of the epochs."""
        learner = self.learner
        if self.at.last:
            steps = learner.steps("train")
            done = (self.state.epoch - self.at.first) * steps + self.state.step
            schedule = SaveSchedule(steps, self.hp.epochs, done)
            self.monitor.debug(self.network.head, learner.loss, schedule, learner.scaler.get_scale)
        try:
            with self.group.watchdog() as self.progressed:
                while self.state.epoch < self.at.end and not self._patience_is_over() and not self._rule_says_stop():
                    self._epoch()
                    learner.agree()
                if self.saved != self.state.epoch:
                    self._save()
        finally:
            self.source.close()
            self.monitor.release()
            self.writer.wait()
        self.network.model.load_state_dict(self.state.best["model"], strict=False)
        learner.average = None  # the best one is in the network now
        self.network.eval_mode()
        if self.at.last:
            log.info(line("best_epoch", self.state.best["epoch"]))
        return self.state.history

    def _patience_is_over(self) -> bool:
        since = max(self.state.best.get("epoch", 0), self.at.first)
        over = self.hp.patience > 0 and self.state.epoch - since >= self.hp.patience
        if over and self.state.best:
            log.info("stopping early: no better validation %s for %d epochs", self.hp.select_by, self.hp.patience)
        return over and bool(self.state.best)

    def _rule_says_stop(self) -> bool:
        state, reason = self.state, self.monitor.stop_reason or "of the first process"
        if not self.learner.ruled and not state.stopped_by:
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

    def _epoch(self) -> None:
        learner, state, started, before = self.learner, self.state, time.monotonic(), self.state.tally.seen
        learner.begin()
        batches = self.source.training(state.epoch, skip=state.step * self.hp.batch_size)
        number = state.epoch * learner.steps("train") + state.step
        learner.agree()
        gpu = self.source.device.type == "cuda"
        for inputs, targets in self.monitor.batches(batches, state.epoch + 1, number, gpu=gpu):
            if self.group.size == 1:
                learner.agree()  # several have agreed in the step before
            if learner.asked:
                self._stop()
            if learner.ruled:
                return  # what was learned since the last epoch is not measured, and so not kept
            learner.step(inputs, targets)
            self.progressed()
            if self.hp.checkpoint_every and state.step % self.hp.checkpoint_every == 0:
                self.source.data.unreadable.share(self.group)
                with self.monitor.phase("checkpoint", state.epoch + 1):
                    self._save()
        learner.hear()
        seconds = time.monotonic() - started
        # After a resume the tally holds images of the interrupted run, whose time is not known here.
        speed = (state.tally.seen - before) / max(seconds, 1e-9)
        learner.end()
        with self.monitor.phase("evaluate", state.epoch + 1):
            valid = learner.evaluate("valid", self._look)
        self.source.agree()
        record = {
            "epoch": state.epoch + 1,
            "train_loss": state.tally.loss / state.tally.seen,
            "train_accuracy": state.tally.correct / state.tally.seen,
            "valid_loss": valid.loss / valid.seen,
            "valid_accuracy": valid.correct / valid.seen,
            "valid_macro_f1": valid.macro_f1,
            "images_per_second": speed,
        }
        self._check_epoch(record)
        for name, value in record.items():
            log.info(line(name, value))
        self.monitor.epoch(record)
        state.history.append(record)
        score = record["valid_accuracy" if self.hp.select_by == "accuracy" else "valid_macro_f1"]
        if not state.best or (score, -record["valid_loss"]) > (state.best["score"], -state.best["loss"]):
            state.best = {
                "epoch": state.epoch + 1,
                "score": score,
                "accuracy": record["valid_accuracy"],
                "loss": record["valid_loss"],
                "model": learner.evaluated(),
            }
        state.epoch, state.step, state.tally = state.epoch + 1, 0, RunningMetrics()
        if self.writer.is_due():
            with self.monitor.phase("checkpoint", state.epoch):
                self._save()

    def _look(self) -> None:
        """Between the batches of an evaluation: decoding all of them may take longer than a stop has time."""
        self.progressed()
        if ("valid", 0) not in self.source.cache:
            self.learner.agree()
            if self.learner.asked:
                self._stop()

    def _stop(self) -> NoReturn:
        self.source.data.unreadable.share(self.group)
        with self.monitor.phase("checkpoint", self.state.epoch + 1):
            self._save()
            self.writer.wait()
        raise Stopped(f"in epoch {self.state.epoch + 1} after {self.state.step} steps; the checkpoint holds them")

    def _check_epoch(self, record: dict[str, float]) -> None:
        self.learner.check_loss("validation loss", record["valid_loss"], f"after epoch {record['epoch']:.0f}")

    def _save(self) -> None:
        self.learner.hear()
        if self.group.rank:
            return
        self.writer.save({**self.learner.state_dict(), "unreadable": self.source.data.unreadable.state()})
        self.saved = self.state.epoch
