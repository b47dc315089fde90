"""model.tar.gz for tests of what deploys it: whole, and damaged in one way each."""

import json
from collections.abc import Callable
from pathlib import Path

from container_serve import artifact
from container_serve.preprocess import Preprocessing
from local_test import pack


def folder(root: Path, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """An artifact whose description is right; no server could load its graph."""
    root.mkdir(parents=True)
    (root / artifact.GRAPH).write_text("<net/>")
    (root / artifact.GRAPH_WEIGHTS).write_bytes(bytes(range(256)) * 40)
    artifact.write(
        root,
        classes=classes,
        architecture="resnet50",
        preprocessing=Preprocessing(256, 224, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear"),
        precision="fp32",
    )
    return root


def _newer(root: Path) -> None:
    path = root / artifact.MODEL_JSON
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))


def _without_description(root: Path) -> None:
    (root / artifact.MODEL_JSON).unlink()


def _flipped(root: Path) -> None:
    path = root / artifact.GRAPH_WEIGHTS
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)


def _nested(root: Path) -> None:
    inner = root / "inner"
    inner.mkdir()
    for path in [path for path in root.iterdir() if path != inner]:
        path.rename(inner / path.name)


def with_code(root: Path) -> None:
    (root / "code").mkdir()
    (root / "code" / "inference.py").write_text("def model_fn(model_dir):\n    return None\n")


CHANGES: dict[str, Callable[[Path], None]] = {
    "newer": _newer,
    "without model.json": _without_description,
    "flipped": _flipped,
    "nested": _nested,
    "own code": with_code,
}


def archive(root: Path, change: str | None = None) -> bytes:
    """The bytes of model.tar.gz, `change` one of CHANGES, or cut."""
    model = folder(root / "model")
    if change in CHANGES:
        CHANGES[change](model)
    pack.pack(model, root / "model.tar.gz")
    content = (root / "model.tar.gz").read_bytes()
    return content[:-30] if change == "cut" else content
