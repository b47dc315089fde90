"""The saved steps of a training, read while they are being written."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from smdebug.core.collection_manager import CollectionManager
from smdebug.core.reductions import REDUCTIONS_PREFIX, get_numpy_reduction, get_reduction_tensor_name
from smdebug.core.reductions import reverse_reduction_tensor_name as of_reduction
from smdebug.core.utils import match_inc

from container_train.debugger import events
from container_train.profiler.store import MALFORMED

Values = npt.NDArray[np.float64]


class Step:
    """One saved step. `number` counts the steps of its mode (TRAIN, EVAL), `before` the training steps before it.

    Raises OSError, or one of MALFORMED, for files that are not whole.
    """

    def __init__(self, folder: Path, index: Path, collections: Mapping[str, Any]) -> None:
        content = json.loads(index.read_bytes())
        meta = content["meta"]
        self.global_step = int(index.name.partition("_")[0])
        self.mode, self.number = str(meta["mode"]), int(meta["mode_step"])
        # Training and evaluation steps are counted together in the global step.
        self.before = self.number if self.mode == "TRAIN" else self.global_step - self.number
        self._collections = collections
        self._places = {row["tensorname"]: (row["start_idx"], row["length"]) for row in content["tensor_payload"]}
        self._content = (folder / str(meta["event_file_name"])).read_bytes()
        if max(map(sum, self._places.values()), default=0) > len(self._content):
            raise ValueError(f"{index.name}: its tensors are cut off")
        names = (of_reduction(name)[0] if name.startswith(REDUCTIONS_PREFIX) else name for name in self._places)
        self.tensors = list(dict.fromkeys(names))
        self._names: dict[str, list[str]] = {}

    def names(self, collection: str) -> list[str]:
        """Names of the tensors of a collection (losses, gradients, weights, relu_input ...) that this step has."""
        if collection not in self._names:
            known = self._collections.get(collection)
            self._names[collection] = [
                name
                for name in self.tensors
                if known and (name in known.tensor_names or match_inc(name, known.include_regex))
            ]
        return self._names[collection]

    def values(self, tensor: str) -> Values | None:
        """Return the saved sample of the values; None where nothing was saved."""
        if tensor not in self._places:
            return None
        start, length = self._places[tensor]
        return events.decode(self._content[start : start + length])

    def reduction(self, tensor: str, name: str, absolute: bool = False) -> float | None:
        """A reduction over the whole tensor; of a tensor saved whole, it is computed from the values."""
        saved = get_reduction_tensor_name(tensor, name, absolute)
        value = self.values(saved)
        if value is None and (values := self.values(tensor)) is not None:
            value = get_numpy_reduction(name, values, absolute)
        return None if value is None else float(value)

    def gradients(self) -> list[str]:
        """Those of layers' weights: a bias in front of a normalisation has no gradient by its nature."""
        layers = set(self.names("layers"))
        return [name for name in self.names("gradients") if name in layers]

    def loss(self) -> float | None:
        """The mean of the step's losses; None where none was saved."""
        values = [value for name in self.names("losses") if (value := self.values(name)) is not None and value.size]
        return float(np.mean([value.mean() for value in values])) if values else None

    def integers(self, tensor: str) -> list[int]:
        """The values of `labels` or `predictions`, one per image; none where they were not saved."""
        values = self.values(tensor)
        return [] if values is None else [int(value) for value in values.reshape(-1)]


class Steps:
    """The saved steps below `folder`, each given once, in the order of the training; `damaged` names other files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = -1
        self.damaged: list[str] = []

    def new(self) -> Iterator[Step]:
        """Steps that came since. Nothing where there are none yet, or no folder."""
        files = sorted((self.folder / "collections").rglob("*collections.json"))
        if not files:
            return
        collections = CollectionManager.load(str(files[-1])).get_collections()
        found = {int(n): p for p in self.folder.glob("index/*/*.json") if (n := p.name.partition("_")[0]).isdigit()}
        for number in sorted(number for number in found if number > self.last):
            self.last = number
            try:
                step = Step(self.folder, found[number], collections)
            except (OSError, *MALFORMED):
                self.damaged.append(found[number].name)
            else:
                yield step
