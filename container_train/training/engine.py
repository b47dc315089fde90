"""The training loop: steps, epochs, evaluation, the best epoch, checkpoints."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import InitVar, asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import nn

from container_train.debugger.config import SaveSchedule
from container_train.distributed.process_group import SINGLE, ProcessGroup
from container_train.errors import Stopped, TrainError
from container_train.features.files import Features
from container_train.features.sources import Source
from container_train.hyperparameters import Hyperparameters
from container_train.model import batch_norm
from container_train.model.builder import Network
from container_train.monitoring.monitor import OFF, Monitor
from container_train.signals import StopFlag
from container_train.training import checkpoint
from container_train.training.compiling import Compiled
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


class Told(NamedTuple):
    """What a step says of its loss. `sums` waits for the sums over all processes."""

    where: str
    images: int
    sums: Callable[[], list[float]]


def unchanged(images: torch.Tensor, targets: torch.Tensor, _step: int) -> tuple[torch.Tensor, torch.Tensor]:
    return images, targets


@dataclass(eq=False)
class Trainer:
    """Trains the head of `network` on `source`, keeping a checkpoint in `folder`.

    On a GPU nothing waits for a step before the next one was launched: its loss is read one step late, and so is what
    several processes tell each other. `prepare(images, targets, step)` may change a decoded batch on the device, after
    its normalisation and before the first layer; `step` counts from the start of the training.
    """

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
    prepare: Callable[[torch.Tensor, torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]] = unchanged

    def __post_init__(self, resumed: dict[str, Any] | None) -> None:
        self.parallel = self.group.data_parallel(self.network.head)
        self.compiled = Compiled(self.parallel, self.group) if self.hp.compile == "on" else None
        self.writer = checkpoint.Writer(self.folder, self.identity)
        self.late = 1 if self.source.device.type == "cuda" else 0  # steps
        self.told: deque[Told] = deque()
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
            self.source.close()
            self.monitor.release()
            self.writer.wait()
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
        gpu = self.source.device.type == "cuda"
        for inputs, targets in self.monitor.batches(batches, state.epoch + 1, number, gpu=gpu):
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
        self._hear(0)
        seconds = time.monotonic() - started
        # After a resume the tally holds images of the interrupted run, whose time is not known here.
        speed = (state.tally.seen - before) / max(seconds, 1e-9)
        self.group.average_buffers(self.network.head)
        with self.monitor.phase("evaluate", state.epoch + 1):
            valid = self.evaluate("valid")
        self.source.agree()
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
            self.writer.wait()
        raise Stopped(f"in epoch {self.state.epoch + 1} after {self.state.step} steps; the checkpoint holds them")

    def _step(self, inputs: Features | torch.Tensor, targets: torch.Tensor) -> None:
        """One step on a batch, of which `inputs` and `targets` are this process's part, maybe of no images."""
        state, group = self.state, self.group
        images = self.source.length("train")
        whole = min(self.hp.batch_size, images - state.step * self.hp.batch_size)
        if whole < batch_norm.FEWEST * group.size and batch_norm.is_trained(self.network.head):
            return  # what is left over at the end of an epoch
        if group.size > 1:
            # For dropout: as many random numbers as there are processes, and the same again after an interruption.
            torch.manual_seed(hash((self.hp.seed, state.epoch, state.step, group.rank)))
        features, wanted = self._features(inputs, targets)
        with self.precision.autocast():
            logits = self._head(whole)(*features)
            loss = self.loss(logits, wanted) if len(targets) else logits[:0].sum()
        self._tell(loss.detach(), logits, targets, whole)
        self.monitor.mark()
        self.optimizer.zero_grad(set_to_none=True)
        # See ProcessGroup.data_parallel: the mean over the processes is the gradient of the mean over the whole batch.
        self.scaler.scale(loss if group.size == 1 else loss * (len(targets) * group.size / whole)).backward()
        self.monitor.gradients()
        self._hear(self.late)
        self.monitor.mark()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.monitor.mark()
        state.step += 1

    def _features(self, inputs: Features | torch.Tensor, targets: torch.Tensor) -> tuple[Features, torch.Tensor]:
        """Return the inputs of the head and the targets of the loss, of at least one image.

        All processes take part in a step: one without images has a blank one, whose gradient is zero.
        """
        if not isinstance(inputs, torch.Tensor):
            return inputs if len(targets) else tuple(f.new_zeros(1, *f.shape[1:]) for f in inputs), targets
        images = self.source.normalise(inputs if len(targets) else inputs.new_zeros(1, *inputs.shape[1:]))
        if len(targets):
            images, targets = self.prepare(images, targets, self.plan().done)
        return self.source.extractor(images), targets

    def _head(self, whole: int) -> Callable[..., torch.Tensor]:
        """Return what is trained, compiled but for steps that are saved, with hooks, and batches of another size."""
        if self.compiled is None or whole < self.hp.batch_size or self.monitor.saves():
            return self.parallel
        return self.compiled

    def _tell(self, loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor, whole: int) -> None:
        """Begin to send loss, correct predictions and wishes to stop to the CPU and to all processes."""
        correct = (logits[: len(targets)].argmax(1) == targets).sum()
        flags = (self.stop.asked, bool(self.monitor.stop_reason)) if self.group.size > 1 else ()
        sums = [loss.double() * len(targets), correct, *(loss.new_full((), float(flag)) for flag in flags)]
        where = f"in epoch {self.state.epoch + 1}, step {self.state.step + 1}"
        sent = self.group.all_reduce_async(torch.stack([value.double() for value in sums]))
        self.told.append(Told(where, whole, sent))

    def _hear(self, late: int) -> None:
        """Add up what all steps but the newest `late` have told."""
        while len(self.told) > late:
            where, whole, sums = self.told.popleft()
            loss, correct, *flags = sums()
            if flags:
                self.asked, self.ruled = (flag > 0 for flag in flags)
            if not math.isfinite(loss):
                self.monitor.not_finite()
            self._check_loss("loss", loss / whole, where)
            self.state.tally.add(loss / whole, int(correct), whole)

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
        sums = torch.zeros(2, dtype=torch.float64, device=self.source.device)
        seen = 0
        for inputs, targets in self.source.evaluation(split):
            self.progressed()
            if (split, 0) not in self.source.cache:  # decoding all of them may take longer than a stop has time
                self._agree()
                if self.asked:
                    self._stop()
            if not len(targets):
                continue
            if isinstance(inputs, torch.Tensor):
                inputs = self.source.extractor(self.source.normalise(inputs))
            with self.precision.autocast():
                logits = self.network.head(*inputs)
            loss = self.loss(logits.float(), targets).double() * len(targets)
            sums += torch.stack([loss, (logits.argmax(1) == targets).sum().double()])
            seen += len(targets)
        loss_sum, correct, seen_sum = self.group.all_reduce([*sums.tolist(), seen])
        return RunningMetrics(loss_sum, int(correct), int(seen_sum))

    def _save(self) -> None:
        self._hear(0)
        state, unreadable = self.state, self.source.data.unreadable.state(self.group)
        if self.group.rank:
            return
        content = {
            "epoch": state.epoch,
            "step": state.step,
            "tally": asdict(state.tally),
            "history": list(state.history),
            "best": state.best,
            "stopped by": state.stopped_by,
            "unreadable": unreadable,
            "model": checkpoint.changing(self.network.model),
            "optimizer": checkpoint.on_cpu(self.optimizer.state_dict()),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        }
        self.writer.save(content)

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
        if "unreadable" in content:
            self.source.data.unreadable.resume(content["unreadable"])
        for record in self.state.history:
            self._check_epoch(record)
