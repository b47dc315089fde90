"""A look at single test images: the surest mistakes, and the most confused pairs of classes."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import nn

from container_serve.errors import RequestError
from container_serve.preprocess import Preprocessing, preprocess
from container_train.data.files import Split
from container_train.export.evaluation import Answers
from container_train.export.quantize import Choice
from container_train.reporting import activation_map
from container_train.training import classification

EXAMPLES = 6  # mistakes
PAIRS = 4  # of classes that are confused
SIDE = 160  # of a thumbnail, in pixels
DARK = 0.2  # what is left of an image's brightness where nothing speaks for the class

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tested:
    """The serving code's predictions of the test images.

    `served` are the answers to the images of `split`, as `preprocessing` gives them to `model`; without a model there
    are no activation maps.
    """

    confusion: classification.Confusion
    split: Split
    served: Answers
    preprocessing: Preprocessing
    model: nn.Module | None = None

    @classmethod
    def of(cls, choice: Choice, name: str, model: nn.Module) -> "Tested":
        """The answers of the chosen graph to the images of a split; `model` is what it was made from."""
        split, served, made = choice.splits[name], choice.served[name], choice.artifact
        confusion = classification.Confusion.of(split.targets, served.predicted, len(made.classes))
        return cls(confusion, split, served, made.preprocessing, model)

    def figures(self, choice: Choice) -> dict[str, Any]:
        """Return what of these metrics.json has."""
        made = choice.artifact
        return {
            **{f"{name}_accuracy": share for name, share in choice.accuracy[made.precision].items()},
            "precision": made.precision,
            "accuracy": choice.accuracy,
            **{name: made.document[name] for name in ("accuracy_interval", "quantization")},
            "per_class": classification.per_class(self.confusion, made.classes),
            "calibration": classification.calibration(
                self.served.probabilities[:, 0], self.served.correct(self.split.targets)
            ),
        }


def galleries(tested: Tested, classes: Sequence[str]) -> dict[str, Any]:
    """Return `wrong` and `pairs` for the page; what is wrong with maps of what spoke for the predicted class."""
    true, predicted = tested.split.targets, tested.served.predicted
    surest = np.argsort(-tested.served.probabilities[:, 0], kind="stable")
    wrong = surest[predicted[surest] != true[surest]][:EXAMPLES].tolist()
    maps = None
    if wrong and tested.model is not None:
        tensors = np.stack([_tensor(tested, index) for index in wrong])
        maps = activation_map.of(tested.model, tensors, predicted[wrong].tolist())
    examples = [
        _example(tested, classes, index, None if maps is None else maps[position])
        for position, index in enumerate(wrong)
    ]
    return {"wrong": examples, "pairs": _pairs(tested, classes, surest)}


def _pairs(tested: Tested, classes: Sequence[str], surest: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """The pairs of classes that are taken for each other most often, with the surest such mistake and a right image."""
    true, predicted, confusion = tested.split.targets, tested.served.predicted, tested.confusion
    wrong = confusion.true != confusion.predicted
    one, other_one = confusion.true[wrong], confusion.predicted[wrong]
    both, where = np.unique(
        np.minimum(one, other_one) * confusion.classes + np.maximum(one, other_one), return_inverse=True
    )
    often = np.argsort(-np.bincount(where, confusion.images[wrong], len(both)), kind="stable")[:PAIRS]
    pairs = []
    for a, b in zip(*(part.tolist() for part in np.divmod(both[often], confusion.classes)), strict=True):
        as_a, as_b = confusion.row(a), confusion.row(b)
        if as_b[a] > as_a[b]:
            a, b, as_a, as_b = b, a, as_b, as_a
        mistaken = surest[(true[surest] == a) & (predicted[surest] == b)][0]
        other = sorted(surest[true[surest] == b].tolist(), key=lambda index: predicted[index] != b)[:1]
        pairs.append(
            {
                "there": (classes[a], classes[b], int(as_a[b]), int(as_a.sum())),
                "back": (classes[b], classes[a], int(as_b[a]), int(as_b.sum())),
                "images": [_example(tested, classes, index) for index in (int(mistaken), *other)],
            }
        )
    return pairs


def _example(tested: Tested, classes: Sequence[str], index: int, evidence: Pixels | None = None) -> dict[str, Any]:
    tensor = _tensor(tested, index)
    path, served, true = tested.split.paths[index], tested.served, tested.split.targets[index]
    top = zip(served.classes[index].tolist(), served.probabilities[index].tolist(), strict=True)
    return {
        "file": f"{path.parent.name}/{path.name}",
        "true": (classes[true], float(served.own[index])),
        "top": [(classes[k], share) for k, share in top],
        "image": _jpeg(tensor, tested.preprocessing),
        "map": None if evidence is None else _jpeg(tensor, tested.preprocessing, evidence),
    }


def _tensor(tested: Tested, index: int) -> Pixels:
    """The image as the network sees it; grey if it cannot be read any more, which is no reason for a job to fail."""
    try:
        return preprocess(tested.split.paths[index].read_bytes(), tested.preprocessing)
    except (OSError, RequestError):
        return np.zeros((3, tested.preprocessing.crop, tested.preprocessing.crop), dtype=np.float32)


def _jpeg(tensor: Pixels, spec: Preprocessing, evidence: Pixels | None = None) -> str:
    """The image as the network sees it, all of one size; darker where the `evidence` (h, w) is small."""
    pixels = tensor * np.array(spec.std, np.float32)[:, None, None] + np.array(spec.mean, np.float32)[:, None, None]
    shown = Image.fromarray((255 * pixels).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)).resize(
        (SIDE, SIDE)
    )
    if evidence is not None:
        light = Image.fromarray(evidence).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        bright = DARK + (1 - DARK) * np.asarray(light).clip(0, 1)[..., None]
        shown = Image.fromarray((np.asarray(shown) * bright).astype(np.uint8))
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
