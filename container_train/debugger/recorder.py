"""smdebug's hook, made fit for this program: it saves samples, sees what in-place ReLUs overwrite, and comes off again.

What differs from smdebug 1.0.34's own:
* Of a tensor at most sample.VALUES values are saved, and over all of it `mean`, of gradients `abs_mean` and the norm
  `l2`: a NaN or an infinite value anywhere turns them into one. An unfrozen ResNet50 would be 200 MB a step.
* Inputs of a ReLU are read before it runs. smdebug reads them after, when an in-place one holds its own output there.
  Besides, the activity of its units is saved, `relu_activity`: the share of positive inputs, one value per unit.
* Gradients are divided by the loss scale, and parameters that are not trained are not saved.
* A step is written in one go when it is over, from this thread: smdebug's own thread dies of a full disk and hangs.
* A step whose loss is not finite is saved whatever the interval says: the training ends right there.
* Nothing of smdebug's profiler runs.
"""

import math
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from smdebug.core.modes import ModeKeys
from smdebug.pytorch import Hook
from torch import nn

from container_train.debugger import config, events, sample

BUDGET = 1 << 30
"""Bytes of tensors a job may save."""
AFTERWARDS = 64 << 20
"""Bytes that losses, labels and predictions may take after that, a few kB a step."""
LEAST_FREE = 1 << 30
"""Bytes that stay free on the disk."""
SHARE = 0.04
"""Of the training's time that the hook may take at the interval of its own choice; it leaves out steps for it."""
CHEAP = 0.02
"""Seconds of a saved step that are never too dear: a training of a few layers on cached features has steps of 1 ms."""
SMALL = frozenset({"losses", "labels", "predictions"})
Guard = Callable[[Callable[..., None]], Callable[..., None]]


class Recorder(Hook):  # type: ignore[misc]
    """Records the training of `head` and `loss` in the folder `out_dir`, as smdebug's trials read it."""

    def __init__(self, **options: Any) -> None:
        self.handles: list[Any] = []
        self.tensors: list[tuple[str, torch.Tensor]] = []
        self.parameters: Sequence[tuple[str, torch.Tensor]] = ()
        self.written = self.saved_steps = self.seen = 0
        self.exhausted = ""
        self.scale: Callable[[], float] | None = None
        self.factor: float | None = None
        self.every_module = self.thrifty = False
        self.seconds: Callable[[], float] = lambda: 0.0
        self.started = time.perf_counter()
        super().__init__(**options)
        if not hasattr(self, "module_set"):  # smdebug logs what its constructor raises, and goes on
            raise RuntimeError("smdebug's hook could not be set up; SMDEBUG_LOG_LEVEL=error shows why")

    def attach(self, head: nn.Module, loss: nn.Module, guard: Guard) -> None:
        """Put hooks on the network and the loss. `guard` wraps all that the training will call."""
        kind = head._get_name()
        trained = [(f"{kind}_{name}", value) for name, value in head.named_parameters() if value.requires_grad]
        self.parameters = trained
        self.handles.append(head.register_forward_pre_hook(guard(self.on_step)))
        for name, module in head.named_modules():
            if isinstance(module, sample.RELUS):
                hook = guard(lambda _module, inputs, name=name: self.on_relu(name, inputs))
                self.handles.append(module.register_forward_pre_hook(hook))
            if self.every_module:
                path = name or kind
                hook = guard(lambda module, inputs, outputs, path=path: self.on_module(path, module, inputs, outputs))
                self.handles.append(module.register_forward_hook(hook))
        self.handles.append(loss.register_forward_hook(guard(self.on_loss)))
        # For the rules: which tensors are a layer's weights, not a normalisation's, and which layer is the new one.
        matrices = [name for name, value in trained if value.ndim > 1]
        if matrices:
            self.collection_manager.get("layers").tensor_names = [n for m in matrices for n in (m, f"gradient/{m}")]
        if trained:
            last = re.escape(trained[-1][0].rpartition(".")[0])
            self.collection_manager.get("last_layer").include([f"^(gradient/)?{last}\\."])
        self._prepare_collections()
        self.export_collections()
        self.exported_collections = True

    def detach(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles.clear()
        self.parameters = ()

    def set_mode(self, mode: str) -> None:
        self.flush()
        super().set_mode(ModeKeys[mode.upper()])

    # What the training calls.

    def on_step(self, _module: nn.Module, _inputs: Any) -> None:
        self.flush()
        if not self.seen:
            self.started = time.perf_counter()
        self.seen += 1
        self._increment_step()
        if self._get_collections_to_save_for_step():
            self.save_parameters()

    def on_relu(self, name: str, inputs: tuple[torch.Tensor, ...]) -> None:
        if not self._get_collections_to_save_for_step():
            return
        tensor = inputs[0].detach()
        path = relu_path(name)
        index = self.written_tensor_name_for_step[path]
        self.written_tensor_name_for_step[path] = index + 1
        self._save_for_tensor(f"{path}_input_{index}", tensor)
        if self._is_tensor_saved_for_step(f"{path}_activity_{index}"):
            self.tensors.append((f"{path}_activity_{index}", sample.activity(tensor)))

    def on_module(self, name: str, module: nn.Module, inputs: Any, outputs: Any) -> None:
        if not self._get_collections_to_save_for_step():
            return
        if isinstance(module, sample.RELUS):
            self._write_outputs(relu_path(name), outputs)
        else:
            self._write_inputs(name, inputs)
            self._write_outputs(name, outputs)

    def on_loss(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        # The training itself waits for this value in the next line, so that waiting here costs nothing.
        if not self._get_collections_to_save_for_step():
            if self.exhausted or math.isfinite(float(output.detach())):
                return
            self._collections_to_save_for_step = set(self._collections_to_save)
            self.save_parameters()
        self._save_for_tensor(f"{module._get_name()}_output_0", output.detach())
        logits, targets = inputs[0].detach(), inputs[1].detach()
        if targets.ndim == 1 and logits.ndim == 2:
            for name, value in (("labels", targets), ("predictions", logits.argmax(1))):
                if self._is_tensor_saved_for_step(name):
                    self.tensors.append((name, value.float()))

    def on_gradients(self) -> None:
        """Those of the whole batch: where several processes share it, autograd knows this one's part only."""
        if not self._get_collections_to_save_for_step():
            return
        for name, value in self.parameters:
            if value.grad is not None:
                self._save_for_tensor(f"{self.GRADIENT_PREFIX}{name}", value.grad)

    # How it is saved.

    def save_parameters(self) -> None:
        for name, value in self.parameters:
            self._save_for_tensor(name, value.detach())

    def _get_collections_to_save_for_step(self) -> set[Any]:
        if self._collections_to_save_for_step is None:
            chosen: set[Any] = super()._get_collections_to_save_for_step()
            if self.exhausted or (self.thrifty and self._is_dear()):
                room = self.written <= BUDGET + AFTERWARDS
                chosen = {collection for collection in chosen if room and collection.name in SMALL}
            self._collections_to_save_for_step = chosen
        return self._collections_to_save_for_step

    def _is_dear(self) -> bool:
        if self.mode_steps[self.mode] < config.FIRST_STEPS:
            return False
        seconds = self.seconds()
        return seconds > CHEAP * self.saved_steps and seconds > SHARE * (time.perf_counter() - self.started)

    @torch.no_grad()
    def _save_for_tensor(self, tensor_name: str, tensor_value: torch.Tensor, check_before_write: bool = True) -> None:
        collections = self._get_collections_with_tensor(tensor_name) & self._get_collections_to_save_for_step()
        if not collections or not tensor_value.numel():
            return
        if {collection.name for collection in collections} == {"losses"}:
            self.tensors.append((tensor_name, tensor_value.to(torch.float32, copy=True)))
            return
        gradient = tensor_name.startswith(self.GRADIENT_PREFIX)
        factor = 1 / self.loss_scale() if gradient else 1.0
        asked = {reduction for collection in collections for reduction in _reductions(collection.reduction_config)}
        ours = {("mean", True), ("l2", False)} if gradient else {("mean", False)}
        for reduction, absolute in sorted(asked | ours):
            if reduction == "mean":
                result = sample.mean_absolute(tensor_value) if absolute else sample.mean(tensor_value)
            elif reduction == "l2":
                result = sample.norm(tensor_value)
            else:
                result = self._get_reduction_of_data(reduction, tensor_value.float(), tensor_name, absolute)
            name = self._get_reduction_tensor_name(tensor_name, reduction, absolute)
            self.tensors.append((name, result.reshape(()) * factor))
        if not asked or any(collection.reduction_config.save_raw_tensor for collection in collections):
            self.tensors.append((tensor_name, sample.values(tensor_value) * factor))

    def loss_scale(self) -> float:
        if self.factor is None:
            self.factor = float(self.scale()) if self.scale else 1.0
            if self.factor != 1:
                self.tensors.append(("loss_scale", torch.tensor(self.factor)))
        return self.factor

    @torch.no_grad()
    def flush(self) -> None:
        """Write the step under way, with one transfer from the device."""
        self.factor = None
        tensors, self.tensors = self.tensors, []
        if not tensors:
            return
        device = next((value.device for _, value in tensors if value.device.type != "cpu"), torch.device("cpu"))
        line = torch.cat([value.reshape(-1).to(device) for _, value in tensors]).float().cpu().numpy()
        parts = np.split(line, np.cumsum([value.numel() for _, value in tensors])[:-1])
        named = [(name, part.reshape(value.shape)) for (name, value), part in zip(tensors, parts, strict=True)]
        folder = Path(self.out_dir)
        self.written += events.write(folder, self.step, self.mode, self.mode_steps[self.mode], named)
        self.saved_steps += 1
        self.last_saved_step = self.step
        self.exhausted = self.exhausted or spent(self.written, folder)

    def finish(self) -> None:
        """Write what is left, and mark the end as smdebug does."""
        self.exported_collections = False  # once more: they know the names of their tensors by now
        super()._cleanup()

    # What smdebug would do by itself.

    def _cleanup(self) -> None:
        """At the exit of Python everything was said by `finish`, or failed."""

    def _close_writers(self) -> None:
        self.flush()

    def _initialize_writers(self, only_initialize_if_missing: bool = False) -> None:
        pass

    def _initialize_to_last_saved_state(self) -> None:
        """Steps go on from the checkpoint of this program, not from a file that smdebug puts beside it."""

    def _write_state(self) -> None:
        pass

    def _get_num_workers(self) -> int:
        return 1

    def _get_worker_name(self) -> str:
        return events.WORKER


def spent(written: int, folder: Path) -> str:
    """Why nothing but losses can be saved any more; empty where there is room."""
    if written > BUDGET:
        return f"the {BUDGET >> 20} MB for tensors are used up"
    if shutil.disk_usage(folder).free < LEAST_FREE:
        return f"less than {LEAST_FREE >> 20} MB are free on the disk of {folder}"
    return ""


def relu_path(name: str) -> str:
    """A name that the documented expressions `.*relu_input` find, for a ReLU that its network calls otherwise."""
    return name if name.lower().endswith("relu") else f"{name}.relu" if name else "relu"


def _reductions(config: Any) -> list[tuple[str, bool]]:
    plain = [(name, False) for name in (*config.reductions, *config.norms)]
    return plain + [(name, True) for name in (*config.abs_reductions, *config.abs_norms)]
