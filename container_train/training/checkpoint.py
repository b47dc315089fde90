"""Checkpoints: all that a restarted job needs to continue as if it had not been interrupted."""

import contextlib
import hashlib
import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from container_train.errors import TrainError
from container_train.paths import replacing, sync

log = logging.getLogger(__name__)

CURRENT, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
SHARE = 0.1  # of the time that may go by while checkpoints are written, unless they take less than CHEAP_SECONDS
CHEAP_SECONDS = 1.0
NEXT = ".checkpoint.next.pt"  # complete, but not yet renamed
# What is said of a part of the identity whose value would tell nothing, or is as long as the list of classes.
OTHER = {"data": "other images", "classes": "other classes", "frozen layers": "other weights of the frozen layers"}


def changing(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies, on the CPU, of the tensors that training changes: trained parameters and all buffers."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: t.detach().to("cpu", copy=True) for name, t in model.state_dict().items() if name not in frozen}


def on_cpu(content: Any) -> Any:
    """Return `content`, dicts, lists and tuples, with copies of its tensors on the CPU."""
    return tree_map_only(torch.Tensor, lambda tensor: tensor.detach().to("cpu", copy=True), content)


def random_state() -> dict[str, torch.Tensor | None]:
    """Return the state of the global generators."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return {"random": torch.get_rng_state(), "random_cuda": cuda}


def set_random_state(content: Mapping[str, Any]) -> None:
    torch.set_rng_state(content["random"])
    if content["random_cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(content["random_cuda"])


def frozen_digest(model: nn.Module) -> str:
    """Return the SHA-256 over the frozen parameters, which a checkpoint does not hold and expects unchanged."""
    found = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            found.update(name.encode())
            found.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def save(folder: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a checkpoint and keep the one before it. Raises TrainError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # All of it is on the disk before a name changes: a full disk, or a kill, leaves both older ones. By way of a
        # buffer in memory, torch would keep the interpreter's lock for tenths of a second, and the training waiting.
        with replacing(folder / NEXT) as file:
            torch.save({"identity": dict(identity), **state}, file)
        current = folder / CURRENT
        if current.exists():
            current.replace(folder / PREVIOUS)
        (folder / NEXT).replace(current)
        sync(folder)
    except (OSError, RuntimeError) as error:  # torch's own, of a file that is not whole, after the disk's
        if (reason := error if isinstance(error, OSError) else error.__context__) is None:
            raise
        words = reason.strerror if isinstance(reason, OSError) else reason
        raise TrainError(f"checkpoint in {folder} could not be written: {words}; the one before it is kept") from error


class Writer:
    """Writes checkpoints beside the training, one at a time."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder, self.identity = folder, identity
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._begun = self._seconds = 0.0  # of the newest one: when its writing began, and how long it took

    def save(self, state: Mapping[str, Any]) -> None:
        """Begin to write `state`, which nobody changes any more. Raises TrainError if the one before it failed."""
        self.wait()
        self._begun = time.monotonic()
        self._writing = self._thread.submit(self._write, state)

    def is_due(self) -> bool:
        """Return False where another one at once would take more than SHARE of the time, and is not a matter of course.

        A GPU may have epochs that are shorter than the writing of half a gigabyte.
        """
        since = time.monotonic() - self._begun
        under_way = self._writing is not None and not self._writing.done()
        seconds = since if under_way else self._seconds
        return seconds < CHEAP_SECONDS or since > seconds / SHARE

    def _write(self, state: Mapping[str, Any]) -> None:
        save(self.folder, self.identity, state)
        self._seconds = time.monotonic() - self._begun

    def wait(self) -> None:
        """Wait until the newest one is on the disk. Raises TrainError if it could not be written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


@contextlib.contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Within, raise TrainError for a checkpoint that lacks something, or holds it in another form."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise TrainError(
            f"the checkpoint in {folder} is of another version of this program ({words}): use an empty checkpoint"
            " folder, or the image that made it"
        ) from error


def load(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the newest readable checkpoint, or None. Raises TrainError for another job's."""
    for name in (CURRENT, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            if not path.is_file():  # a named pipe would be waited for
                raise ValueError("not a regular file")
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            found, epoch, step = {**state["identity"]}, state["epoch"], state["step"]
        except Exception as error:
            log.debug("torch.load: %s", error)  # advises to load it unsafely
            wrong = f"{path.stat().st_size} bytes, damaged or no checkpoint: {type(error).__name__}"
            log.warning("checkpoint %s is not readable (%s): trying an older one", path, wrong)
            continue
        for key, value in identity.items():
            if found.get(key) != value:
                both = f"{key} {found.get(key)!r}, this job has {value!r}"
                raise TrainError(
                    f"checkpoint {path} was made with {OTHER.get(key, both)}: use an empty checkpoint folder, or the"
                    " settings and data of the checkpoint"
                )
        log.info("resuming from %s: epoch %d, step %d", path, epoch + 1, step)
        return state
    return None
