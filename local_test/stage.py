"""Pictures and settings into the tree that the platform gives a training container."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from container_train.data import listing
from container_train.data.labels import SPLITS
from local_test import sample
from local_test.errors import LocalError
from scripts.dataset import folders

SEED = 0
# The toolkit waits 15 minutes for every host's name to be known: a container is given this one as its own.
CONTAINER_HOST, PROCESS_HOST = "algo-1", "localhost"
INSTANCE_GROUP = "homogeneousCluster"
PROFILER_FILES = ("profiler-report.html", "rules.json")


@dataclass(frozen=True)
class Staged:
    """`outside` are channels whose pictures stay where they are: linked in, or mounted into a container."""

    tree: Path
    notes: list[str] = field(default_factory=list)
    outside: dict[str, Path] = field(default_factory=dict)


def stage(
    tree: Path,
    data: str,
    hyperparameters: Mapping[str, str],
    weights: Path | None,
    *,
    is_sample: bool,
    host: str = CONTAINER_HOST,
) -> Staged:
    """Make `tree`, new. Raises LocalError when `data` cannot be trained on."""
    channels = tree / "input" / "data"
    for folder in ("input/config", "input/data", "model", "output/data", "checkpoints"):
        (tree / folder).mkdir(parents=True)
    staged = Staged(tree)
    if is_sample:
        sample.write(channels, SEED)
    else:
        _stage_folder(staged, Path(data))
    names = list(SPLITS)
    if weights is not None:
        (channels / "weights").mkdir()
        folders.link(weights, channels / "weights" / weights.name)
        names.append("weights")
    write_config(tree, hyperparameters, names, host)
    return staged


def is_whole(root: Path) -> bool:
    """Whether it holds all three splits, and can be read where it is. Raises LocalError as `check` does."""
    return not _plan(root).made


@dataclass(frozen=True)
class _Plan:
    """Of a user's folder: the splits to lay out, and those that stay where they are."""

    notes: list[str]
    made: dict[str, folders.ClassFiles]
    outside: dict[str, Path]


def check(root: Path) -> None:
    """Raises LocalError when `root` cannot be trained on; makes nothing."""
    _plan(root)


def _plan(root: Path) -> _Plan:
    shares = dict(zip(SPLITS, folders.FRACTIONS, strict=True))
    try:
        found = folders.find(root)
        if not found.is_split:
            note = f"{root} is not split: taking 80/10/10 % of every class (seed {SEED})"
            return _Plan([*found.remarks, note], folders.split(found.splits[""], shares, SEED), {})
        missing = [name for name in SPLITS if name not in found.splits]
        if not missing:
            return _Plan(found.beside, {}, found.folders)  # the training makes the other remarks
        note = f"{root} has no {' and no '.join(missing)}: taken from train (10 % each, seed {SEED})"
        complete = folders.complete(found, shares, SEED)
    except folders.DataError as error:
        raise LocalError(str(error), 2) from None
    made = {name: complete[name] for name in ("train", *missing)}
    outside = {name: folder for name, folder in found.folders.items() if name not in made}
    return _Plan([*found.remarks, note], made, outside)


def _stage_folder(staged: Staged, root: Path) -> None:
    plan = _plan(root)
    staged.notes.extend(plan.notes)
    folders.lay_out(plan.made, staged.tree / "input" / "data")
    staged.outside.update({name: folder.resolve() for name, folder in plan.outside.items()})


def link_outside(staged: Staged) -> None:
    """For programs that run on this machine: the channels that lie elsewhere, as links."""
    for name, folder in staged.outside.items():
        (staged.tree / "input" / "data" / name).symlink_to(folder, target_is_directory=True)


def make_mount_points(staged: Staged) -> None:
    """For containers: without these the engine would make them, owned by root.

    Raises LocalError for a link that leads out of its channel: the container would find nothing there.
    """
    for name, root in staged.outside.items():
        for path in listing.files(root):
            if path.exists() and not path.resolve().is_relative_to(root):
                raise LocalError(
                    f"{path} leads to {path.resolve()}, which a container does not see: put copies or hard links there,"
                    " or use --engine process",
                    2,
                )
        (staged.tree / "input" / "data" / name).mkdir()


def write_config(tree: Path, hyperparameters: Mapping[str, str], channels: list[str], host: str) -> None:
    """The three files of input/config, with the content that the platform gives them."""
    channel = {
        "TrainingInputMode": "File",
        "S3DistributionType": "FullyReplicated",
        "RecordWrapperType": "None",
    }
    resource = {
        "current_host": host,
        "current_instance_type": "local",
        "current_group_name": INSTANCE_GROUP,
        "hosts": [host],
        "instance_groups": [{"instance_group_name": INSTANCE_GROUP, "instance_type": "local", "hosts": [host]}],
        "network_interface_name": "eth0",
    }
    files = {
        # The toolkit's own lines, a page of environment variables and errors that the program and the failure file
        # say better, are for a cloud's log.
        "hyperparameters": {"sagemaker_container_log_level": "50", **hyperparameters},
        "inputdataconfig": {name: channel for name in channels},
        "resourceconfig": resource,
    }
    for name, content in files.items():
        (tree / "input" / "config" / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def copy_reports(tree: Path, folder: Path) -> None:
    """Copy what a job leaves to be read into `folder`: the report, and the profiler's where it has one."""
    output = tree / "output" / "data"
    if not (output / "report.html").is_file():
        raise LocalError("training wrote no output/data/report.html")
    for name in ("report.html", *PROFILER_FILES):
        if (output / name).is_file():
            shutil.copyfile(output / name, folder / name)


def fired_rules(folder: Path) -> list[str] | None:
    """The rules of debugger and profiler that fired, or None where nothing watched the training."""
    try:
        rules = json.loads((folder / "rules.json").read_text())["rules"]
        return [f"{rule['rule']} ({rule['reason']})" for rule in rules if rule["status"] == "fired"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
