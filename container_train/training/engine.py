"""The training loop: steps, epochs, evaluation, the best epoch, checkpoints."""

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import InitVar, asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch.func import functional_call

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
from container_train.training.averaging import Average
from container_train.training.compiling import Compiled
from container_train.training.loss import divisors, loss_for
from container_train.training.metrics import line
from container_train.training.mixing import Mixing
from container_train.training.optimization import clip, optimizer_for, schedule_for
from container_train.training.precision import Precision
from container_train.training.stages import Stage
from container_train.training.state import Evaluation, RunningMetrics, State

log = logging.getLogger(__name__)

# What a training resumes from.
KEYS = frozenset(
    ("stage", "tally", "history", "best", "model", "average", "optimizer", "schedule", "scaler", "random",
     "random_cuda")
)  # fmt: skip


class Told(NamedTuple):
    """A step's report of its loss. `sums` waits for the sums over all processes, of the loss before its division."""

    where: str
    images: int
    divisor: float
    sums: Callable[[], list[float]]


@dataclass(eq=False)
class Trainer:
    """Trains the head of `network` on `source`, keeping a checkpoint in `folder`.

    On a GPU nothing waits for a step before the next one was launched: its loss is read one step late, and so is what
    several processes tell each other.

    `before` is the state at the end of the stage before this one, whose best weights the network has. The debugger
    watches the last stage alone: its rules compare the steps of one training.
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
    stage: Stage | None = None
    before: InitVar[State | None] = None

    def __post_init__(self, resumed: dict[str, Any] | None, before: State | None) -> None:
        hp, head = self.hp, self.network.head
        self.at = self.stage or Stage(0, hp)
        self.classes = len(self.source.data.classes)
        self.parallel = self.group.data_parallel(head, accumulates=hp.accumulate > 1)
        self.compiled = Compiled(self.parallel, self.group) if self.hp.compile == "on" else None
        self.writer = checkpoint.Writer(self.folder, self.identity)
        self.saved = -1  # the epoch that the newest checkpoint resumes with
        self.late = 1 if self.source.device.type == "cuda" else 0  # steps
        self.told: deque[Told] = deque()
        self.optimizer = optimizer_for(self.network, hp)
        self.schedule = schedule_for(self.optimizer, hp, self.steps("train"))
        self.scaler = self.precision.scaler()
        self.average = Average(head, hp.ema) if hp.ema else None
        self.mixing = Mixing(hp, self.classes)
        self.loss = loss_for(hp, self.source.targets["train"], self.classes)
        self.divisors: list[float] = []  # of the loss in each step of this epoch
        self.state = State(self.at.first)
        if before is not None:
            self.state.history, self.state.stopped_by = before.history, before.stopped_by
            # With the weights that this stage changes, too.
            self.state.best = {**before.best, "model": checkpoint.changing(self.network.model)}
        self.asked = self.ruled = False  # known to all processes at the same step
        self.progressed: Callable[[], None] = lambda: None
        self._resume(resumed)

    def fit(self) -> list[dict[str, float]]:
        """Train to the end, leave the best epoch's weights in the network and return the history of the epochs."""
        if self.at.last:
            self.monitor.debug(self.network.head, self.loss, self.plan(), self.scaler.get_scale)
        try:
            with self.group.watchdog() as self.progressed:
                while self.state.epoch < self.at.end and not self._patience_is_over() and not self._rule_says_stop():
                    self._epoch()
                    (self.ruled,) = self.group.any(bool(self.monitor.stop_reason))
                if self.saved != self.state.epoch:
                    self._save()
        finally:
            self.source.close()
            self.monitor.release()
            self.writer.wait()
        self.network.model.load_state_dict(self.state.best["model"], strict=False)
        self.average = None  # the best one is in the network now
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
        """Return the numbers of steps that there are and were in this stage, of training and of evaluation."""
        train, valid = self.steps("train"), self.steps("valid")
        epochs = self.state.epoch - self.at.first
        return SaveSchedule(train, self.hp.epochs, epochs * train + self.state.step, epochs * valid)

    def steps(self, split: str) -> int:
        """Return the number of batches of a split."""
        return math.ceil(len(self.source.data.splits[split]) / self.hp.batch_size)

    def _epoch(self) -> None:
        state, started, before = self.state, time.monotonic(), self.state.tally.seen
        self.network.train_mode()
        self.loss.train()
        self.monitor.mode("train")
        targets = self.source.targets["train"]
        shuffled = targets[self.source.indices("train", state.epoch).to(targets.device)]
        self.divisors = divisors(self.loss, shuffled, self.hp.batch_size)
        batches = self.source.training(state.epoch, skip=state.step * self.hp.batch_size)
        number = state.epoch * self.steps("train") + state.step
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
                self.source.data.unreadable.share(self.group)
                with self.monitor.phase("checkpoint", state.epoch + 1):
                    self._save()
        self._hear(0)
        seconds = time.monotonic() - started
        # After a resume the tally holds images of the interrupted run, whose time is not known here.
        speed = (state.tally.seen - before) / max(seconds, 1e-9)
        self.group.average_buffers(self.network.head)
        if self.average:
            self.average.agree(self.network.head, self.group)
        with self.monitor.phase("evaluate", state.epoch + 1):
            valid = self.evaluate("valid")
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
                "model": self._evaluated(),
            }
        state.epoch, state.step, state.tally = state.epoch + 1, 0, RunningMetrics()
        if self.writer.is_due():
            with self.monitor.phase("checkpoint", state.epoch):
                self._save()

    def _evaluated(self) -> dict[str, torch.Tensor]:
        """Return copies, on the CPU, of the tensors that training changes, as they are evaluated: averages if kept."""
        found = checkpoint.changing(self.network.model)
        if self.average:
            averages = self.average.module.state_dict()
            found |= {name: averages[name].to("cpu", copy=True) for name in found.keys() & averages.keys()}
        return found

    def _stop(self) -> NoReturn:
        self.source.data.unreadable.share(self.group)
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
        # See ProcessGroup.data_parallel: the mean over the processes is the gradient of the mean over the whole batch.
        divisor = self.divisors[state.step]
        # As many in all processes, of which some have an image less.
        parts = batch_norm.parts(self.network.head, whole // group.size, self.hp.accumulate)
        sums = torch.zeros(2, dtype=torch.float64, device=wanted.device)  # loss, correct predictions
        self.optimizer.zero_grad(set_to_none=True)
        batches = zip(*(tensor.tensor_split(parts) for tensor in (*features, wanted)), strict=True)
        for number, (*part, labels) in enumerate(batches):
            last = number == parts - 1
            if number:
                self.monitor.further_part()
            with contextlib.nullcontext() if last else group.no_sync(self.parallel):
                with self.precision.autocast():
                    logits = self._head(whole)(*part)
                    loss = self.loss(logits, labels) if len(labels) else logits[:0].sum()
                own = self.loss.divisor(labels)
                classes = labels if labels.ndim == 1 else labels.argmax(1)
                correct = (logits[: len(labels)].argmax(1) == classes).sum()
                sums += torch.stack([(loss.detach() * own).double(), correct.double()])
                if last:
                    self._tell(sums, whole, divisor)
                    self.monitor.mark()
                self.scaler.scale(loss * (own * group.size / divisor)).backward()
        self.monitor.gradients()
        self._hear(self.late)
        self.monitor.mark()
        if self.hp.clip:
            self.scaler.unscale_(self.optimizer)
            clip(self.network.trainable(), self.hp.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        if self.average:
            self.average.update_parameters(self.network.head)
        self.monitor.mark()
        state.step += 1

    def _features(self, inputs: Features | torch.Tensor, targets: torch.Tensor) -> tuple[Features, torch.Tensor]:
        """Return the inputs of the head and the targets of the loss, of at least one image.

        All processes take part in a step: one without images has a blank one, whose gradient is zero.
        """
        if isinstance(inputs, torch.Tensor):
            pixels = inputs if len(targets) else inputs.new_zeros(1, *inputs.shape[1:])
            inputs = self.source.extractor(pixels)
        elif not len(targets):
            inputs = tuple(feature.new_zeros(1, *feature.shape[1:]) for feature in inputs)
        if not self.mixing or not len(targets):
            return inputs, targets
        inputs, targets = self.mixing(inputs, targets, self.state.epoch, self.state.step)
        first = 0 if self.group.size == 1 else 1  # the one before this process's, which came along to be mixed
        return tuple(feature[first:] for feature in inputs), targets[first:]

    def _head(self, whole: int) -> Callable[..., torch.Tensor]:
        """Return what is trained, compiled but for steps that are saved, with hooks, and batches of another size."""
        if self.compiled is None or whole < self.hp.batch_size or self.monitor.saves():
            return self.parallel
        return self.compiled

    def _tell(self, sums: torch.Tensor, whole: int, divisor: float) -> None:
        """Begin to send loss, correct predictions and wishes to stop to the CPU and to all processes."""
        flags = (self.stop.asked, bool(self.monitor.stop_reason)) if self.group.size > 1 else ()
        where = f"in epoch {self.state.epoch + 1}, step {self.state.step + 1}"
        sent = self.group.all_reduce_async(torch.cat([sums, sums.new_tensor([float(flag) for flag in flags])]))
        self.told.append(Told(where, whole, divisor, sent))

    def _hear(self, late: int) -> None:
        """Add up what all steps but the newest `late` have told."""
        while len(self.told) > late:
            where, whole, divisor, sums = self.told.popleft()
            loss, correct, *flags = sums()
            if flags:
                self.asked, self.ruled = (flag > 0 for flag in flags)
            if not math.isfinite(loss):
                self.monitor.not_finite()
            self._check_loss("loss", loss / divisor, where)
            self.state.tally.add(loss / divisor, int(correct), whole)

    def _check_epoch(self, record: dict[str, float]) -> None:
        self._check_loss("validation loss", record["valid_loss"], f"after epoch {record['epoch']:.0f}")

    def _check_loss(self, name: str, value: float, where: str) -> None:
        """Raise TrainError where predictions are not numbers: the most probable class of such is none."""
        if not math.isfinite(value):
            raise TrainError(f"the {name} became {value} {where}: lower {self.at.rate} (it is {self.hp.lr:g})")

    @torch.no_grad()
    def evaluate(self, split: str) -> Evaluation:
        """Return loss and correct predictions of the network as it is, or of its average, on a split."""
        self.network.eval_mode()
        self.loss.eval()
        self.monitor.mode("eval")
        averages = self.average.tensors() if self.average else {}
        loss = torch.zeros((), dtype=torch.float64, device=self.source.device)
        by_class = torch.zeros(3, self.classes, dtype=torch.float64, device=self.source.device)
        for inputs, targets in self.source.evaluation(split):
            self.progressed()
            if (split, 0) not in self.source.cache:  # decoding all of them may take longer than a stop has time
                self._agree()
                if self.asked:
                    self._stop()
            if not len(targets):
                continue
            if isinstance(inputs, torch.Tensor):
                inputs = self.source.extractor(inputs)
            with self.precision.autocast():
                logits = functional_call(self.network.head, averages, tuple(inputs))
            loss += self.loss(logits.float(), targets).double() * len(targets)
            predicted = logits.argmax(1)
            hits = (predicted == targets).double()
            for row, (classes, counts) in enumerate(((targets, hits), (targets, None), (predicted, None))):
                by_class[row].index_add_(0, classes, torch.ones_like(hits) if counts is None else counts)
        total, *counts = self.group.all_reduce([float(loss), *by_class.flatten().tolist()])
        found = torch.tensor(counts, dtype=torch.float64).reshape(3, -1)
        return Evaluation(total, int(found[0].sum()), int(found[1].sum()), found)

    def _save(self) -> None:
        self._hear(0)
        state = self.state
        if self.group.rank:
            return
        content = {
            "stage": self.at.number,
            "epoch": state.epoch,
            "step": state.step,
            "tally": asdict(state.tally),
            "history": list(state.history),
            "best": state.best,
            "stopped by": state.stopped_by,
            "unreadable": self.source.data.unreadable.state(),
            "model": checkpoint.changing(self.network.model),
            "average": checkpoint.on_cpu(dict(self.average.state_dict())) if self.average else None,
            "optimizer": checkpoint.on_cpu(self.optimizer.state_dict()),
            "schedule": checkpoint.on_cpu(self.schedule.state_dict()),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        }
        self.writer.save(content)
        self.saved = state.epoch

    def _resume(self, content: dict[str, Any] | None) -> None:
        if content is None or content["stage"] != self.at.number:
            torch.manual_seed(self.hp.seed)
            return
        self.network.model.load_state_dict(content["model"], strict=False)
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        if self.average:
            self.average.load_state_dict(content["average"])
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
        self.saved = self.state.epoch
        for record in self.state.history:
            self._check_epoch(record)
