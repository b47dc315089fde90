"""The job's channels: the folder of each split, and input modes that are not supported. Needs no torch."""

from pathlib import Path

from container_train import configuration
from container_train.data.labels import SPLIT_NAMES, SPLITS, split_folders
from container_train.data.listing import is_hidden
from container_train.errors import TrainError
from container_train.paths import SageMakerPaths

TRAINING = "training"  # the one channel that may hold all three
WEIGHTS = "weights"
OTHERS = {
    WEIGHTS,
    "features",
    "code",
}  # features: see features/location.py; code, and those that begin with sm_, are the SDKs'

# Key in inputdataconfig.json: the value that is refused, and those that work.
UNSUPPORTED = {
    "TrainingInputMode": ("Pipe", "File or FastFile"),
    "S3DataType": ("AugmentedManifestFile", "S3Prefix"),
    "RecordWrapperType": ("RecordIO", "None"),
}


def splits(tree: SageMakerPaths) -> dict[str, Path]:
    """Return the folder of each split: a channel each, or the folders of one channel `training`. Raises TrainError."""
    _check_modes(tree)
    there = _folders(tree.channels)
    try:
        named = split_folders(there)
        root = tree.channels
        if set(named.values()) == {TRAINING} and split_folders(_folders(root / TRAINING)):
            root = tree.channels / TRAINING
            named = split_folders(_folders(root))
    except ValueError as error:
        raise TrainError(f"channels {error}") from None
    for split in SPLITS:
        if split not in named:
            raise TrainError(
                f"channel {split}: {root / split} is not there (found: {', '.join(there) or 'no channel at all'});"
                f" expected channels {', '.join(SPLITS)}, or one channel {TRAINING} with three such folders"
            )
    return {split: root / named[split] for split in SPLITS}


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def are_streamed(tree: SageMakerPaths) -> bool:
    """Return True if a file is fetched from S3 whenever it is read (FastFile mode)."""
    config = configuration.read_or_empty(tree, "inputdataconfig.json")
    names = {path.relative_to(tree.channels).parts[0] for path in splits(tree).values()}
    used = [channel for name, channel in config.items() if name in names and isinstance(channel, dict)]
    return any(channel.get("TrainingInputMode") == "FastFile" for channel in used)


def _check_modes(tree: SageMakerPaths) -> None:
    """Raise TrainError for channels that do not come as folders of files."""
    ours = {name for names in SPLIT_NAMES.values() for name in names} | {WEIGHTS}
    for name, channel in configuration.read_or_empty(tree, "inputdataconfig.json").items():
        for key, (wrong, right) in UNSUPPORTED.items():
            if name in ours and isinstance(channel, dict) and channel.get(key) == wrong:
                raise TrainError(f"channel {name} has {key} {wrong}: this program reads files in folders; use {right}")


def weights(tree: SageMakerPaths) -> Path | None:
    """Return the one file of the channel `weights`, if the job has that channel. Raises TrainError."""
    folder = tree.channels / WEIGHTS
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not is_hidden(path.name))
    if len(files) != 1:
        names = ", ".join(path.name for path in files[:5]) or "none"
        raise TrainError(f"channel weights: {folder} holds {len(files)} files ({names}); expected one state_dict file")
    return files[0]


def unused(tree: SageMakerPaths) -> list[str]:
    """List the channels, or folders of the one channel, that hold nothing for this program."""
    used = list(splits(tree).values())
    root = used[0].parent
    beside = [f"{TRAINING}/{name}" for name in _folders(root) if root != tree.channels and root / name not in used]
    ours = {path.relative_to(tree.channels).parts[0] for path in used} | OTHERS
    return [*(name for name in _folders(tree.channels) if name not in ours and not name.startswith("sm_")), *beside]
