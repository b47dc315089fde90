"""Hooks on the network and its loss that save tensors in the files, and under the names, of smdebug's own hook.

What differs from smdebug 1.0.34's:
* Of a tensor at most reductions.VALUES values are saved, and over all `mean`, of gradients `abs_mean` and the norm
  `l2`: a NaN or an infinite value anywhere turns them into one. An unfrozen ResNet50 would be 200 MB a step.
* Inputs of a ReLU are read before it runs. smdebug reads them after, when an in-place one holds its own output there.
  Besides, the activity of its units is saved, `relu_activity`: the share of positive inputs, one value per unit.
* Gradients are divided by the loss scale, and parameters that are not trained are not saved.
* A step is written in one go when it is over, from this thread: smdebug's own thread dies of a full disk and hangs.
* A step whose loss is not finite is saved at any interval: the training ends right there.
* In a step that is not saved, no hook is on a ReLU, and nothing waits for a GPU.
"""

import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from smdebug.core.access_layer import training_has_ended
from smdebug.core.collection_manager import CollectionManager
from smdebug.core.modes import ModeKeys
from smdebug.core.reductions import get_reduction_tensor_name
from torch import nn

from container_train.debugger import config, events, reductions
from container_train.debugger.config import SaveSchedule

BUDGET = 1 << 30  # bytes of tensors a job may save; then only losses, labels and predictions are, a few kB a step
LEAST_FREE = 1 << 30  # bytes that stay free on the disk
SHARE = 0.04
"""Of the training's time that the hook may take at the interval of its own choice; it leaves out steps for it."""
CHEAP = 0.02
"""Seconds of a saved step that are never too dear: a training of a few layers on cached features has steps of 1 ms."""
COLLECTIONS = {  # expressions for the names of their tensors
    "losses": "[Ll]oss_(?!input).*output",
    "gradients": "^gradient",
    "weights": "^(?!gradient).*weight",
    "biases": "^(?!gradient).*bias",
    "relu_input": "[Rr]e[Ll][Uu]_input_",
    "relu_activity": "[Rr]e[Ll][Uu]_activity_",
    "labels": "^labels$",
    "predictions": "^predictions$",
}
RELUS = (nn.ReLU, nn.ReLU6)
Guard = Callable[[Callable[..., None]], Callable[..., None]]
SUMS = {("mean", False): reductions.mean}
GRADIENT_SUMS = {("mean", True): reductions.mean_absolute, ("l2", False): reductions.norm}


class Recorder:
    """Records a training in `folder`, as smdebug's trials read it.

    `scale` gives the factor on the loss, `seconds` the time spent in hooks so far; a `thrifty` one keeps to SHARE.
    """

    def __init__(
        self, folder: Path, schedule: SaveSchedule, interval: int, scale: Callable[[], float] | None, *,
        thrifty: bool, seconds: Callable[[], float],
    ) -> None:  # fmt: skip
        self.folder, self.interval, self.scale, self.thrifty, self.seconds = folder, interval, scale, thrifty, seconds
        self.from_start = schedule.done == 0
        self.mode, self.step = ModeKeys.TRAIN, schedule.done - 1  # of training and evaluation together
        self.mode_steps = {ModeKeys.TRAIN: schedule.done - 1, ModeKeys.EVAL: -1}
        self.all = self.small = False  # whether this step is saved: all of it, or losses, labels and predictions
        self.further = False  # the next forward pass is of a further part of a batch: the first part is saved
        self.handles: list[Any] = []
        self.relus: list[tuple[nn.Module, Callable[..., None]]] = []
        self.relu_handles: list[Any] = []  # in a step that is saved
        self.newest: list[tuple[str, torch.Tensor]] = []  # loss, labels, logits of the newest step
        self.tensors: list[tuple[str, torch.Tensor]] = []
        self.parameters: list[tuple[str, torch.Tensor]] = []
        self.calls: Counter[str] = Counter()  # of each ReLU, in this step
        self.written = self.saved_steps = self.seen = 0
        self.exhausted = ""
        self.factor: float | None = None
        self.started = time.perf_counter()

    def attach(self, head: nn.Module, loss: nn.Module, guard: Guard) -> None:
        """Put hooks on the network and the loss. `guard` wraps all that the training will call."""
        kind = head._get_name()
        self.parameters = [(f"{kind}_{name}", value) for name, value in head.named_parameters() if value.requires_grad]
        self.handles.append(head.register_forward_pre_hook(guard(self.on_step)))
        self.relus = [
            (module, guard(lambda _module, inputs, name=name: self.on_relu(name, inputs)))
            for name, module in head.named_modules()
            if isinstance(module, RELUS)
        ]
        self.handles.append(loss.register_forward_hook(guard(self.on_loss)))
        collections = CollectionManager()
        for name, expression in COLLECTIONS.items():
            collections.get(name).include(expression)
        # For the rules: which tensors are a layer's weights, not a normalisation's, and which layer is the new one.
        matrices = [name for name, value in self.parameters if value.ndim > 1]
        collections.get("layers").tensor_names = [n for m in matrices for n in (m, f"gradient/{m}")]
        if self.parameters:
            last = re.escape(self.parameters[-1][0].rpartition(".")[0])
            collections.get("last_layer").include(f"^(gradient/)?{last}\\.")
        collections.export(str(self.folder), f"{events.WORKER}_collections.json")

    def detach(self) -> None:
        self.unhook_relus()
        for handle in self.handles:
            handle.remove()
        self.handles.clear()
        self.relus.clear()
        self.parameters.clear()

    def hook_relus(self) -> None:
        if not self.relu_handles:
            self.relu_handles = [module.register_forward_pre_hook(hook) for module, hook in self.relus]

    def unhook_relus(self) -> None:
        while self.relu_handles:
            self.relu_handles.pop().remove()

    def set_mode(self, mode: str) -> None:
        self.flush()
        self.mode = ModeKeys[mode.upper()]

    # What the training calls.

    def on_step(self, _module: nn.Module, _inputs: Any) -> None:
        if self.further:
            self.unhook_relus()
            return
        self.flush()
        if not self.seen:
            self.started = time.perf_counter()
        self.seen += 1
        self.step += 1
        self.mode_steps[self.mode] += 1
        number, train = self.mode_steps[self.mode], self.mode == ModeKeys.TRAIN
        self.small = not train or self._is_chosen(number)
        self.all = self.small and train and not self.exhausted and not (self.thrifty and self._is_dear(number))
        if self.all:
            self.save_parameters()
            self.hook_relus()
        else:
            self.unhook_relus()

    def is_next_saved(self) -> bool:
        """Return True where tensors of the next step of the training are saved, unless that is too dear."""
        return self._is_chosen(self.mode_steps[ModeKeys.TRAIN] + 1) and not self.exhausted

    def _is_chosen(self, number: int) -> bool:
        return number % self.interval == 0 or (self.from_start and number < config.FIRST_STEPS)

    def _is_dear(self, number: int) -> bool:
        seconds = self.seconds()
        dear = seconds > CHEAP * self.saved_steps and seconds > SHARE * (time.perf_counter() - self.started)
        return number >= config.FIRST_STEPS and dear

    def on_relu(self, name: str, inputs: tuple[torch.Tensor, ...]) -> None:
        if self.all:
            path = name if name.lower().endswith("relu") else f"{name}.relu" if name else "relu"
            index, tensor = self.calls[path], inputs[0].detach()
            self.calls[path] += 1
            self.save(f"{path}_input_{index}", tensor)
            self.tensors.append((f"{path}_activity_{index}", reductions.activity(tensor)))

    def on_loss(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if self.further:
            self.further = False
            return
        logits, targets = inputs[0].detach(), inputs[1].detach()
        self.newest = [(f"{module._get_name()}_output_0", output.detach())]
        if targets.ndim == 1 and logits.ndim == 2:
            self.newest += [("labels", targets), ("predictions", logits)]
        if self.small:
            self.save_loss()

    def save_loss(self) -> None:
        for name, value in self.newest:
            kept = value.argmax(1) if name == "predictions" else value
            self.tensors.append((name, kept.to(torch.float32, copy=True)))

    def on_not_finite(self) -> None:
        if self.exhausted or self.all:
            return
        if not self.small:
            self.save_loss()
        self.small = self.all = True
        self.save_parameters()
        self.on_gradients()

    def on_gradients(self) -> None:
        """Those of the whole batch: where several processes share it, autograd knows this one's part only."""
        for name, value in self.parameters if self.all else ():
            if value.grad is not None:
                self.save(f"gradient/{name}", value.grad, gradient=True)

    # How it is saved.

    def save_parameters(self) -> None:
        for name, value in self.parameters:
            self.save(name, value.detach())

    @torch.no_grad()
    def save(self, name: str, value: torch.Tensor, *, gradient: bool = False) -> None:
        if not value.numel():
            return
        factor = 1 / self.loss_scale() if gradient else 1.0
        for (reduction, absolute), of in (GRADIENT_SUMS if gradient else SUMS).items():
            self.tensors.append((get_reduction_tensor_name(name, reduction, absolute), of(value) * factor))
        self.tensors.append((name, reductions.values(value) * factor))

    def loss_scale(self) -> float:
        if self.factor is None:
            self.factor = float(self.scale()) if self.scale else 1.0
            if self.factor != 1:
                self.tensors.append(("loss_scale", torch.tensor(self.factor)))
        return self.factor

    @torch.no_grad()
    def flush(self) -> None:
        """Write the step under way, with one transfer from the device."""
        tensors, self.tensors, self.factor = self.tensors, [], None
        self.calls.clear()
        if not tensors:
            return
        device = next((value.device for _, value in tensors if value.device.type != "cpu"), torch.device("cpu"))
        line = torch.cat([value.reshape(-1).to(device) for _, value in tensors]).float().cpu().numpy()
        parts = np.split(line, np.cumsum([value.numel() for _, value in tensors])[:-1])
        named = [(name, part.reshape(value.shape)) for (name, value), part in zip(tensors, parts, strict=True)]
        self.written += events.write(self.folder, self.step, self.mode, self.mode_steps[self.mode], named)
        self.saved_steps += 1
        if self.written > BUDGET:
            self.exhausted = f"the {BUDGET >> 20} MB for tensors are used up"
        elif shutil.disk_usage(self.folder).free < LEAST_FREE:
            self.exhausted = f"less than {LEAST_FREE >> 20} MB are free on the disk of {self.folder}"

    def finish(self) -> None:
        """Write what is left, and mark the end as smdebug does."""
        self.flush()
        training_has_ended(str(self.folder))
