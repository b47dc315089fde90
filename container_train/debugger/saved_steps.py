"""The saved steps of a training, read through smdebug's trials while they are being written.

A trial is made for a few new steps at a time and thrown away: one that lives as long as the training keeps an object
for every tensor of every step, and stops for good at the first damaged index file.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from smdebug.core.index_reader import LocalIndexReader
from smdebug.exceptions import TensorUnavailableForStep
from smdebug.trials.local_trial import LocalTrial

from container_train.debugger import events

log = logging.getLogger(__name__)

BATCH = 50  # steps of one trial
Values = npt.NDArray[np.float64]


class Reader(LocalIndexReader):  # type: ignore[misc]
    """Reads the file of a step once, not once a tensor, and never waits for one that is not there."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.file, self.content = "", b""

    def fetch_tensor_value(self, tensor_location: Any) -> npt.NDArray[np.generic]:
        name, start = tensor_location.event_file_name, int(tensor_location.start_idx)
        try:
            if name != self.file:
                self.content, self.file = Path(name).read_bytes(), name
            return events.decode(self.content[start : start + int(tensor_location.length)])
        except (OSError, ValueError) as error:
            unavailable = TensorUnavailableForStep(
                tname=tensor_location.tensorname, mode=tensor_location.mode, step=tensor_location.mode_step
            )
            raise unavailable from error


class Step:
    """One saved step. `number` counts the steps of its mode (TRAIN, EVAL), `before` the training steps before it."""

    def __init__(self, trial: Any, number: int, mode: Any, global_step: int) -> None:
        self.trial, self.number, self.global_step, self._mode = trial, number, global_step, mode
        self.mode: str = mode.name
        # Training and evaluation steps are counted together in the global step.
        self.before = number if self.mode == "TRAIN" else global_step - number
        self._names: dict[str, list[str]] = {}

    def names(self, collection: str) -> list[str]:
        """Names of the tensors of a collection (losses, gradients, weights, relu_input ...) that this step has."""
        if collection not in self._names:
            known = collection in self.trial.collections()
            found = self.trial.tensor_names(step=self.number, mode=self._mode, collection=collection) if known else []
            self._names[collection] = found
        return self._names[collection]

    def tensors(self) -> list[str]:
        names: list[str] = self.trial.tensor_names(step=self.number, mode=self._mode)
        return names

    def values(self, tensor: str) -> Values | None:
        """What was saved of the values; None where nothing was, or the file is damaged."""
        return self._get(lambda: self.trial.tensor(tensor).value(self.number, mode=self._mode))

    def reduction(self, tensor: str, name: str, absolute: bool = False) -> float | None:
        """A reduction over the whole tensor; of a tensor saved whole, it is computed from the values."""
        result = self._get(
            lambda: self.trial.tensor(tensor).reduction_value(self.number, name, self._mode, abs=absolute)
        )
        return None if result is None else float(result)

    def mean_absolute(self, tensor: str) -> float | None:
        return self.reduction(tensor, "mean", absolute=True)

    def loss(self) -> float | None:
        """The mean of the step's losses; None where none was saved."""
        values = [value for name in self.names("losses") if (value := self.values(name)) is not None and value.size]
        return float(np.mean([value.mean() for value in values])) if values else None

    def _get(self, read: Any) -> Values | None:
        try:
            value = read()
        except Exception as error:
            # smdebug raises all kinds of errors for files that are cut short or gone.
            log.debug("%s step %d: %s", self.mode, self.number, error)
            return None
        return None if value is None else np.asarray(value, dtype=np.float64)


class Steps:
    """The saved steps below `folder`, each given once, in the order of the training."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = -1
        self.damaged = 0

    def new(self) -> Iterator[Step]:
        """Steps that came since. Nothing where there are none yet, or no folder. Raises nothing for damaged files."""
        numbers = sorted(n for n in self._numbers() if n > self.last)
        for start in range(0, len(numbers), BATCH):
            batch = numbers[start : start + BATCH]
            for trial, chosen in self._trials(batch):
                for number in chosen:
                    mode, mode_step = trial.mode_modestep(number)
                    if mode is not None:
                        yield Step(trial, mode_step, mode, number)
            self.last = batch[-1]

    def _numbers(self) -> Iterator[int]:
        index = self.folder / "index"
        if not any((self.folder / "collections").rglob("*collections.json")):
            return
        for file in index.glob("*/*.json"):
            number = file.name.partition("_")[0]
            if number.isdigit():
                yield int(number)

    def _trials(self, numbers: list[int]) -> Iterator[tuple[Any, list[int]]]:
        try:
            yield self._trial(numbers), numbers
            return
        except Exception as error:
            log.debug("steps %d to %d: %s", numbers[0], numbers[-1], error)
        for number in numbers:  # one of them is damaged: the others still count
            try:
                trial = self._trial([number])
            except Exception as error:
                self.damaged += 1
                log.warning("step %d was passed over: %s", number, str(error).strip() or type(error).__name__)
                continue
            yield trial, [number]

    def _trial(self, numbers: list[int]) -> Any:
        trial = LocalTrial("training", str(self.folder), range_steps=(numbers[0], numbers[-1] + 1))
        trial.dynamic_refresh = False  # it would list the folder at every question
        trial.index_reader = Reader(str(self.folder))
        return trial
