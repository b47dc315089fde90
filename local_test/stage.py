"""Images and settings into the tree that the platform gives a training container."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from container_train.data import listing, sample, splits
from container_train.data.labels import SAMPLE, SPLITS

# The toolkit waits 15 minutes for every host's name to be known: a container is given this one as its own.
CONTAINER_HOST, PROCESS_HOST = "algo-1", "localhost"
INSTANCE_GROUP = "homogeneousCluster"
_CHANNEL = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}


@dataclass(frozen=True)
class Staged:
    """`outside` are channels whose images stay where they are: linked in, or mounted into a container."""

    tree: Path
    notes: list[str] = field(default_factory=list)
    outside: dict[str, Path] = field(default_factory=dict)


def stage(
    tree: Path, data: str, hyperparameters: Mapping[str, str], weights: Path | None, *, host: str = CONTAINER_HOST
) -> Staged:
    """Make `tree`, new; `data` is a folder, or SAMPLE. Raises DataError when `data` cannot be trained on."""
    channels = tree / "input" / "data"
    plan = splits.Plan({}) if data == SAMPLE else splits.plan(Path(data))
    for folder in ("input/config", "input/data", "model", "output/data", "checkpoints"):
        (tree / folder).mkdir(parents=True)
    if data == SAMPLE:
        sample.write(channels)
    outside = {name: folder.resolve() for name, folder in plan.folders.items()}
    if host == CONTAINER_HOST:
        outside = {name: folder for name, folder in outside.items() if not _leads_out(folder)}
    splits.lay_out({name: files for name, files in plan.splits.items() if name not in outside}, channels)
    names = list(SPLITS)
    if weights is not None:
        (channels / "weights").mkdir()
        splits.link(weights, channels / "weights" / weights.name)
        names.append("weights")
    write_config(tree, hyperparameters, names, host)
    # Of folders that stay as they are the training makes the other notes itself.
    notes = plan.beside if plan.is_whole else plan.notes
    return Staged(tree, notes, outside)


def _leads_out(folder: Path) -> bool:
    """Tell whether a link in it leads to what a container does not see that has this folder alone."""
    return any(path.exists() and not path.resolve().is_relative_to(folder) for path in listing.files(folder))


def link_outside(staged: Staged) -> None:
    """For programs that run on this machine: the channels that lie elsewhere, as links."""
    for name, folder in staged.outside.items():
        (staged.tree / "input" / "data" / name).symlink_to(folder, target_is_directory=True)


def make_mount_points(staged: Staged) -> None:
    """For containers: without these the engine would make them, owned by root."""
    for name in staged.outside:
        (staged.tree / "input" / "data" / name).mkdir()


def write_config(tree: Path, hyperparameters: Mapping[str, str], channels: list[str], host: str) -> None:
    """The three files of input/config, with the content that the platform gives them."""
    group = {"instance_group_name": INSTANCE_GROUP, "instance_type": "local", "hosts": [host]}
    files = {
        # The toolkit's own lines, a page of environment variables and errors that the program and the failure file
        # say better, are for a cloud's log.
        "hyperparameters": {"sagemaker_container_log_level": "50", **hyperparameters},
        "inputdataconfig": {name: _CHANNEL for name in channels},
        "resourceconfig": {
            "current_host": host,
            "current_instance_type": "local",
            "current_group_name": INSTANCE_GROUP,
            "hosts": [host],
            "instance_groups": [group],
            "network_interface_name": "eth0",
        },
    }
    for name, content in files.items():
        (tree / "input" / "config" / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
