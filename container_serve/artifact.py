"""The model's folder: what training leaves, packed as model.tar.gz, and what serving reads.

`model.json` describes it: `format_version`, `classes` (labels in index order), `files` (name -> sha256 and
bytes of every other file), `architecture`, `preprocessing`, `precision`, further keys of training's, and
`checksum`, of all that.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from container_serve.errors import ArtifactError, shown
from container_serve.spec import Preprocessing

FORMAT_VERSION = 1
MODEL_JSON = "model.json"
WEIGHTS = "model.pth"
GRAPH = "model.xml"
GRAPH_WEIGHTS = "model.bin"
CHECKSUM = "checksum"  # who changes model.json by hand removes this line
CODE = "code"  # a user's own inference.py and requirements.txt lie here, listed or not

# The files that an operating system leaves in every folder that it shows: they belong to no model and no data set.
_LITTER = re.compile(r"\._.*|\.ds_store|__macosx|thumbs\.db|ehthumbs\.db|desktop\.ini", re.IGNORECASE | re.DOTALL)
_KEYS = ("format_version", "classes", "files", "architecture", "preprocessing", "precision")
_UNLISTED_SHOWN = 5  # of the files that are not listed
# What no name or label may have: control and line-break characters, which no table, CSV or log could carry, and lone
# surrogates, which JSON can smuggle in.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def visible(name: str) -> str:
    """Return a name for a message: as it is, with escapes for characters that no log could hold."""
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], name)


@dataclass(frozen=True)
class Artifact:
    """A model's folder that was checked; `document` is the whole model.json, `notices` what is odd but does no harm."""

    directory: Path
    classes: tuple[str, ...]
    architecture: str
    preprocessing: Preprocessing
    precision: str
    document: Mapping[str, Any]
    notices: tuple[str, ...] = ()

    @property
    def details(self) -> dict[str, Any]:
        """The keys that are not the format's own, as `write` takes them."""
        return {key: value for key, value in self.document.items() if key not in (*_KEYS, CHECKSUM)}


def is_litter(name: str) -> bool:
    """Tell by the name of a file or folder: macOS's .DS_Store, ._* and __MACOSX, Windows' Thumbs.db and desktop.ini."""
    return _LITTER.fullmatch(name) is not None


def read(directory: Path, *, verify: bool = True) -> Artifact:
    """The artifact in `directory`; with `verify` each listed file's size and sha256 are checked too.

    The weights for further training may be missing: they are not served. Files that are not listed are not used.
    Raises ArtifactError, one line with the file and the reason.
    """
    document = _document(directory)
    artifact, files = _artifact(directory, document), _listed(document["files"])
    if CHECKSUM in document and document[CHECKSUM] != _checksum(document):
        raise _wrong(
            f"corrupt, its {CHECKSUM} is another one; copy the artifact again (or, if you changed the file yourself,"
            f" remove its line {CHECKSUM!r})"
        )
    notices = []
    for name, (sha256, size) in files.items():
        if name == WEIGHTS and not (directory / name).exists():
            notices.append(f"{name}: missing; the model can be served, but not trained further")
            continue
        path = _inside(directory, name)
        try:
            found = path.stat().st_size
            if found != size:
                state = "truncated" if found < size else "changed"
                reason = f"{state}, has {found} bytes, {MODEL_JSON} says {size}"
            elif verify and _sha256(path) != sha256:
                reason = f"corrupt, its SHA-256 is not the one in {MODEL_JSON}"
            else:
                continue
        except OSError as error:
            raise ArtifactError(f"{name}: cannot be read ({error.strerror})") from None
        raise ArtifactError(f"{name}: {reason}; copy the artifact again")
    names = (path.relative_to(directory).as_posix() for path in _walk(directory))
    if unlisted := [name for name in names if name not in files and not name.startswith(f"{CODE}/")]:
        listing = ", ".join(map(visible, unlisted[:_UNLISTED_SHOWN]))
        more = f" and {len(unlisted) - _UNLISTED_SHOWN} more" if len(unlisted) > _UNLISTED_SHOWN else ""
        notices.append(f"not listed in {MODEL_JSON}, and not used: {listing}{more} (own code belongs in {CODE}/)")
    return replace(artifact, notices=tuple(notices))


def write(
    directory: Path,
    *,
    classes: Sequence[str],
    architecture: str,
    preprocessing: Preprocessing,
    precision: str,
    details: Mapping[str, Any] | None = None,
) -> Artifact:
    """Describe all files of `directory` in its model.json, which appears whole or not at all.

    `details` are further top-level keys (JSON values). Raises ArtifactError.
    """
    details = dict(details or {})
    if reserved := [key for key in details if key in (*_KEYS, CHECKSUM)]:
        raise _wrong(f"the key {reserved[0]!r} is the format's own; name the detail otherwise")
    partial = directory / f".{MODEL_JSON}.partial"
    try:
        partial.unlink(missing_ok=True)
        files = {
            path.relative_to(directory).as_posix(): {"sha256": _sha256(path), "bytes": path.stat().st_size}
            for path in _walk(directory)
            if "__pycache__" not in path.parts  # Python rewrites what is in there
        }
        document: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "architecture": architecture,
            "precision": precision,
            "preprocessing": preprocessing.to_dict(),
            "classes": list(classes),
            "files": files,
            **details,
        }
        document = json.loads(json.dumps(document, allow_nan=False))  # as it will be read: keys are text
        document[CHECKSUM] = _checksum(document)
        artifact = _artifact(directory, document)
        _listed(document["files"])
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(directory / MODEL_JSON)
    except (ValueError, TypeError) as error:
        raise _wrong(f"a detail is not JSON ({error})") from None
    except OSError as error:
        raise _wrong(f"cannot be written to {directory} ({error.strerror})") from None
    finally:
        if partial.exists():
            partial.unlink()
    return artifact


def _wrong(reason: str) -> ArtifactError:
    return ArtifactError(f"{MODEL_JSON}: {reason}")


def _require(ok: object, reason: str) -> None:
    if not ok:
        raise _wrong(reason)


def _document(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise ArtifactError(f"{directory}: there is no such folder; the model's files have to be mounted there")
    path = directory / MODEL_JSON
    if path.exists() and not path.is_file():  # a named pipe would be waited for
        raise _wrong("is not a regular file")
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        advice = "a model is exported with python -m container_train.export"
        for nested in directory.glob(f"*/{MODEL_JSON}"):
            folder = nested.parent.name
            advice = f"it is in the folder {folder} in there: pack it with tar -C {folder} -czf model.tar.gz ."
        raise _wrong(f"missing in {directory}; {advice}") from None
    except OSError as error:
        raise _wrong(f"cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0][:120]
        raise _wrong(f"is not JSON ({reason}); copy the artifact again") from None
    _require(isinstance(document, dict), f"expected an object, got {shown(document)}")
    version = document.get("format_version")
    # Before anything else: a newer format may lack or add any key.
    if type(version) is int and version > FORMAT_VERSION:
        raise _wrong(
            f"made by a newer version (format_version {version}), this server reads up to {FORMAT_VERSION};"
            " serve it with a newer image"
        )
    for key in _KEYS:
        _require(key in document, f"the key {key!r} is missing; export the model again")
    valid = type(version) is int and version >= 1
    _require(valid, f"format_version: expected a whole number from 1, got {shown(version)}")
    return dict(document)


def _artifact(directory: Path, document: Mapping[str, Any]) -> Artifact:
    """Checks the types of the keys; the files are not looked at."""
    classes = document["classes"]
    _require(isinstance(classes, list) and classes, f"classes: expected a list of labels, got {shown(classes)}")
    seen: set[str] = set()
    for index, label in enumerate(classes):
        if not isinstance(label, str) or not label or CONTROL.search(label):
            plain = " without control characters" if isinstance(label, str) and label else ""
            raise _wrong(f"classes[{index}]: expected a label{plain}, got {shown(label)}")
        if label in seen:
            raise _wrong(f"classes[{index}]: {label!r} occurs twice, labels have to differ")
        seen.add(label)
    for key in ("architecture", "precision"):
        _require(
            isinstance(document[key], str) and document[key], f"{key}: expected a name, got {shown(document[key])}"
        )
    try:
        preprocessing = Preprocessing.from_dict(document["preprocessing"])
    except ValueError as error:
        raise _wrong(f"preprocessing: {error}") from None
    return Artifact(directory, tuple(classes), document["architecture"], preprocessing, document["precision"], document)


def _listed(files: object) -> dict[str, tuple[str, int]]:
    """name -> (sha256, bytes) of the key `files`."""
    if not isinstance(files, dict):
        raise _wrong(f"files: expected an object, got {shown(files)}")
    listed: dict[str, tuple[str, int]] = {}
    for name, entry in files.items():
        path = PurePosixPath(name)
        plain = path.parts and path.as_posix() == name and not re.search(r"[\\\0]", name)
        if not plain or path.is_absolute() or ".." in path.parts or name == MODEL_JSON:
            raise _wrong(f"files: {name!r} is refused, names have to stay in the model's folder")
        sha256, size = (entry.get("sha256"), entry.get("bytes")) if isinstance(entry, dict) else (None, None)
        if not isinstance(sha256, str) or len(sha256) != 64 or type(size) is not int or size < 0:
            raise _wrong(f"files: {name}: expected sha256 (64 hexadecimal digits) and bytes (a whole number)")
        listed[name] = (sha256.lower(), size)
    return listed


def _inside(directory: Path, name: str) -> Path:
    """The regular file of that name; a link may not lead out of the folder either."""
    path = directory / name
    if not path.exists():
        raise ArtifactError(f"{name}: missing, {MODEL_JSON} lists it; copy the artifact again")
    if not path.is_file():
        raise ArtifactError(f"{name}: is not a regular file")
    if not path.resolve().is_relative_to(directory.resolve()):
        raise ArtifactError(f"{name}: is a link that leads out of the model's folder; put the file itself there")
    return path


def _walk(directory: Path) -> Iterator[Path]:
    """Every file below `directory` but model.json and an operating system's litter, sorted."""
    for path in sorted(directory.rglob("*")):
        if any(map(is_litter, path.relative_to(directory).parts)):
            continue
        if (path.is_symlink() or not path.is_dir()) and path != directory / MODEL_JSON:
            yield path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(document: Mapping[str, Any]) -> str:
    """SHA-256 of what the document says, however it is laid out; of all keys but its own."""
    said = {key: value for key, value in document.items() if key != CHECKSUM}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
