"""A step of a training: the trained layers with their loss, optimizer, schedule and average; and their evaluation."""

import contextlib
import math
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.optim.lr_scheduler import LambdaLR

from container_train.errors import TrainError
from container_train.features.files import Features
from container_train.features.sources import Source
from container_train.model import batch_norm
from container_train.monitoring.monitor import Monitor
from container_train.training import checkpoint
from container_train.training.averaging import Average
from container_train.training.compiling import Compiled
from container_train.training.loss import divisors, loss_for
from container_train.training.mixing import Mixing
from container_train.training.optimization import factor, optimizer_for
from container_train.training.stages import Stage
from container_train.training.state import Evaluation, RunningMetrics, State


class Learner:
    """Trains the head of the source's network step by step; `state` counts the steps.

    On a GPU nothing waits for a step before the next one was launched: its loss is read one step late, and so is what
    several processes tell each other.
    """

    def __init__(self, source: Source, stage: Stage, monitor: Monitor) -> None:
        self.source, self.stage, self.monitor = source, stage, monitor
        self.network, self.hp = source.network, source.hp
        self.precision, self.stop, self.group = source.runtime.precision, source.runtime.stop, source.group
        hp, head = self.hp, self.network.head
        self.state = State(stage.first)
        self.classes = len(source.data.classes)
        self.parallel = self.group.data_parallel(head, accumulates=hp.accumulate > 1)
        self.compiled = Compiled(self.parallel, self.group) if hp.compile == "on" else None
        self.optimizer = optimizer_for(self.network, hp)
        self.schedule = LambdaLR(self.optimizer, factor(hp, self.steps("train")))
        self.scaler = self.precision.scaler()
        self.average = Average(head, hp.ema) if hp.ema else None
        self.mixing = Mixing(hp, self.classes)
        self.loss = loss_for(hp, source.targets["train"], self.classes)
        self.divisors: list[float] = []  # of the loss in each step of this epoch
        self.late = 1 if source.device.type == "cuda" else 0  # steps
        # Of each step: where it was, images, divisor of the loss; the function waits for the sums over all processes.
        self.told: deque[tuple[str, int, float, Callable[[], list[float]]]] = deque()
        self.asked = self.ruled = False  # a stop, by the platform or by a rule: known to all at the same step

    def steps(self, split: str) -> int:
        """Return the number of batches of a split."""
        return math.ceil(len(self.source.data.splits[split]) / self.hp.batch_size)

    def agree(self) -> None:
        """Learn whether a stop was asked for in any process, or by a rule in the one that is watched."""
        self.asked, self.ruled = self.group.any(self.stop.asked, bool(self.monitor.stop_reason))

    def begin(self) -> None:
        """Prepare for the steps of an epoch."""
        targets = self.source.targets["train"]
        shuffled = targets[self.source.indices("train", self.state.epoch).to(targets.device)]
        self.divisors = divisors(self.loss, shuffled, self.hp.batch_size)
        self.network.train_mode()
        self.loss.train()
        self.monitor.hook.mode("train")

    def step(self, inputs: Features | torch.Tensor, targets: torch.Tensor) -> None:
        """One step on a batch, of which `inputs` and `targets` are this process's part, maybe of no images."""
        state, group = self.state, self.group
        whole = min(self.hp.batch_size, self.source.length("train") - state.step * self.hp.batch_size)
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
        fewest = batch_norm.FEWEST if batch_norm.is_trained(self.network.head) else 1
        sums = torch.zeros(2, dtype=torch.float64, device=wanted.device)  # loss, correct predictions
        self.optimizer.zero_grad(set_to_none=True)
        batches = zip(*(tensor.tensor_split(parts) for tensor in (*features, wanted)), strict=True)
        for number, (*part, labels) in enumerate(batches):
            last = number == parts - 1
            if number:
                self.monitor.hook.further_part()
            with contextlib.nullcontext() if last else group.no_sync(self.parallel):
                with self.precision.autocast():
                    logits = self._head(len(wanted))(*(_filled(feature, fewest) for feature in part))[: len(labels)]
                    loss = self.loss(logits, labels) if len(labels) else logits.sum()
                own = self.loss.divisor(labels)
                classes = labels if labels.ndim == 1 else labels.argmax(1)
                correct = (logits.argmax(1) == classes).sum()
                sums += torch.stack([(loss.detach() * own).double(), correct.double()])
                if last:
                    self._tell(sums, whole, divisor)
                    self.monitor.mark()
                self.scaler.scale(loss * (own * group.size / divisor)).backward()
        self.monitor.hook.gradients()
        self.hear(self.late)
        self.monitor.mark()
        if self.hp.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.trainable(), self.hp.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        if self.average:
            self.average.update_parameters(self.network.head)
        self.monitor.mark()
        state.step += 1

    def _features(self, inputs: Features | torch.Tensor, targets: torch.Tensor) -> tuple[Features, torch.Tensor]:
        """Return the inputs of the head and the targets of the loss; the inputs may have a blank image more."""
        features = self.source.features(_filled(inputs, 1) if isinstance(inputs, torch.Tensor) else inputs)
        if not self.mixing or not len(targets):
            return features, targets
        features, targets = self.mixing(features, targets, self.state.epoch, self.state.step)
        first = 0 if self.group.size == 1 else 1  # the one before this process's, which came along to be mixed
        return tuple(feature[first:] for feature in features), targets[first:]

    def _head(self, images: int) -> Callable[..., torch.Tensor]:
        """Return what is trained, compiled except for steps that are saved, with hooks, and batches of another size."""
        if self.compiled is None or images < self.hp.batch_size or self.monitor.hook.saves():
            return self.parallel
        return self.compiled

    def _tell(self, sums: torch.Tensor, whole: int, divisor: float) -> None:
        """Begin to send loss, correct predictions and wishes to stop to the CPU and to all processes."""
        flags = (self.stop.asked, bool(self.monitor.stop_reason)) if self.group.size > 1 else ()
        where = f"in epoch {self.state.epoch + 1}, step {self.state.step + 1}"
        sent = self.group.all_reduce_async(torch.cat([sums, sums.new_tensor([float(flag) for flag in flags])]))
        self.told.append((where, whole, divisor, sent))

    def hear(self, late: int = 0) -> None:
        """Add up what all steps but the newest `late` have told. Raises TrainError for a loss that is not finite."""
        while len(self.told) > late:
            where, whole, divisor, sums = self.told.popleft()
            loss, correct, *flags = sums()
            if flags:
                self.asked, self.ruled = (flag > 0 for flag in flags)
            if not math.isfinite(loss):
                self.monitor.hook.not_finite()
            self.check_loss("loss", loss / divisor, where)
            self.state.tally.add(loss / divisor, int(correct), whole)

    def check_loss(self, name: str, value: float, where: str) -> None:
        """Raise TrainError where predictions are not numbers: the most probable class of such is none."""
        if not math.isfinite(value):
            raise TrainError(f"the {name} became {value} {where}: lower {self.stage.rate} (it is {self.hp.lr:g})")

    def end(self) -> None:
        """After the last step of an epoch: give all processes the same statistics."""
        self.group.average_buffers(self.network.head)
        if self.average:
            self.average.agree(self.network.head, self.group)

    @torch.no_grad()
    def evaluate(self, split: str, look: Callable[[], None] = lambda: None) -> Evaluation:
        """Return loss and correct predictions of the network as it is, or of its average, on a split.

        `look` is called before each batch.
        """
        self.network.eval_mode()
        self.loss.eval()
        self.monitor.hook.mode("eval")
        averages = self.average.tensors() if self.average else {}
        loss = torch.zeros((), dtype=torch.float64, device=self.source.device)
        by_class = torch.zeros(3, self.classes, dtype=torch.float64, device=self.source.device)
        for inputs, targets in self.source.evaluation(split):
            look()
            if not len(targets):
                continue
            features = self.source.features(inputs)
            with self.precision.autocast():
                logits = functional_call(self.network.head, averages, features)
            loss += self.loss(logits.float(), targets).double() * len(targets)
            predicted = logits.argmax(1)
            hits = (predicted == targets).double()
            for row, (classes, counts) in enumerate(((targets, hits), (targets, None), (predicted, None))):
                by_class[row].index_add_(0, classes, torch.ones_like(hits) if counts is None else counts)
        total, *counts = self.group.all_reduce([float(loss), *by_class.flatten().tolist()])
        found = torch.tensor(counts, dtype=torch.float64).reshape(3, -1)
        return Evaluation(total, int(found[0].sum()), int(found[1].sum()), found)

    def evaluated(self) -> dict[str, torch.Tensor]:
        """Return copies, on the CPU, of the tensors that training changes, as they are evaluated: averages if kept."""
        found = checkpoint.changing(self.network.model)
        if self.average:
            averages = self.average.module.state_dict()
            found |= {name: averages[name].to("cpu", copy=True) for name in found.keys() & averages.keys()}
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return copies, on the CPU, of all that a checkpoint keeps of the learner."""
        state = self.state
        return {
            "stage": self.stage.number,
            "epoch": state.epoch,
            "step": state.step,
            "tally": asdict(state.tally),
            "history": list(state.history),
            "best": state.best,
            "stopped by": state.stopped_by,
            "model": checkpoint.changing(self.network.model),
            "average": checkpoint.on_cpu(dict(self.average.state_dict())) if self.average else None,
            "optimizer": checkpoint.on_cpu(self.optimizer.state_dict()),
            "schedule": checkpoint.on_cpu(self.schedule.state_dict()),
            "scaler": self.scaler.state_dict(),
            **checkpoint.random_state(),
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        self.network.model.load_state_dict(content["model"], strict=False)
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        if self.average:
            self.average.load_state_dict(content["average"])
        self.scaler.load_state_dict(content["scaler"])
        checkpoint.set_random_state(content)
        self.state = State(
            content["epoch"], content["step"], RunningMetrics(**content["tally"]), content["history"], content["best"],
            content["stopped by"],
        )  # fmt: skip


def _filled(inputs: torch.Tensor, fewest: int) -> torch.Tensor:
    """Return inputs (N, ...) with blank ones after them, if they are fewer: they have no target, and no gradient.

    All processes take part in a step, also where none of their images can be read.
    """
    missing = fewest - len(inputs)
    return torch.cat([inputs, inputs.new_zeros(missing, *inputs.shape[1:])]) if missing > 0 else inputs
