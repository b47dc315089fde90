"""`tune.py --local`, from its flags to its results."""

import argparse
import contextlib
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from container_train.paths import locked
from local_test import engine as local_engine
from local_test import run as local_run
from local_test.engine import DockerEngine, Engine
from local_test.errors import ignore_signals, naming
from local_test.options import Options
from scripts.aws import names
from scripts.aws.errors import CloudError
from scripts.console.command import Interrupted, progress
from scripts.jobs import local_training
from scripts.jobs.inputs import SAMPLE, Weights
from scripts.s3.objects import digest
from scripts.tuning import results, table
from scripts.tuning.local_search import LocalSearch, images_digest, staged_data
from scripts.tuning.space import Space
from scripts.tuning.trials import OVER, Search

# Flags of the cloud's that do nothing here, beside those of train.py --local.
LEFT_OUT = {
    "--early-stopping": "--strategy hyperband ends poor trials here",
    "--warm-start": "a search of the same --name resumes with its own trials",
    "--image": "the image of these files is taken",
    "--environment": "the trials have this machine's",
    "--output": "results go to --results",
}


def run(flags: argparse.Namespace, space: Space, weights: Weights, given: Mapping[str, str]) -> int:
    """The whole search. Raises CloudError, or Interrupted with what resumes it."""
    local_training.check(flags)
    left_out = [f"{flag} ({why})" for flag, why in LEFT_OUT.items() if getattr(flags, flag[2:].replace("-", "_"))]
    if left_out:
        progress("--local leaves out: " + "; ".join(left_out))
    data = flags.data if flags.data == SAMPLE else str(Path(flags.data).resolve())
    name = names.checked(flags.name or Path(data).name)
    folder = Path(flags.results or results.FOLDER).absolute() / name
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"another search is working in {folder}: wait for it, or give another --name"
    with naming(folder), locked(folder / "lock", lambda: CloudError(busy)):
        engine, why = local_engine.choose(flags.engine, folder)
        progress(f"engine: {engine.name}, because {why}")
        local_engine.check_tracker(space.fixed, in_image=isinstance(engine, DockerEngine))
        engine.features = folder / "features"
        engine.features.mkdir(exist_ok=True)
        engine.find_images("train")
        chosen = dict(given)
        file = local_training.backbone(
            weights, chosen, is_sample=data == SAMPLE, in_container=isinstance(engine, DockerEngine)
        )
        found = _search(flags, space.with_fixed(chosen), engine, data, file, name, folder)
        results.tell(found, folder, as_json=flags.json)
        if found.best is None:
            raise CloudError(f"none of {len(found.trials)} trials was completed; their logs are in {folder / 'trials'}")
        best = found.hyperparameters()
        if flags.train_best:
            progress(f"training with the best values, into {folder / 'best'}")
            asked = file or best.pop("weights", None)
            options = Options(engine.name, data, asked, None, folder / "best", best, engine.features)
            local_run.run(options, serve=False)
        else:
            progress(f"next: {found.command}")
    return 0


def _search(
    flags: argparse.Namespace, space: Space, engine: Engine, data: str, file: Path | None, name: str, folder: Path
) -> Search:
    """All trials, and the results written, however it ends."""
    from optuna.exceptions import StorageInternalError  # Optuna takes a second to import

    from scripts.tuning.study import Study, broken

    images, notes = staged_data(folder, data)
    for note in notes:
        progress(note)
    identity = {
        "space": space.digest,
        "data": data,
        "set of images": SAMPLE if data == SAMPLE else images_digest(Path(data)),
        "weights": str(file or space.fixed.get("weights", "DEFAULT")),
        "content of the weights": digest(file)[:12] if file else "",
    }
    study = Study(folder, space, flags.strategy, identity, parallel=flags.parallel)
    search = LocalSearch(study, engine, images, file, space.fixed, name, flags.parallel)
    if done := search.search().count(*OVER):
        progress(f"resuming {name}, which has {done} trials already")
    try:
        with table.live(flags.trials) as show:
            search.run(flags.trials, show)
    except StorageInternalError as error:
        raise broken(folder, error, "the same call resumes it") from None
    except KeyboardInterrupt:
        ignore_signals()  # a second one would lose the results, and the way to resume
        done = search.search().count(*OVER)
        kept = f"{done} of {flags.trials} trials, which are kept in {folder}"
        raise Interrupted(f"interrupted after {kept}: the same call resumes it") from None
    finally:
        with contextlib.suppress(StorageInternalError):
            found = search.search()
            if best := found.hyperparameters():
                found = replace(found, command=_next(engine, flags.data, file, best, name, folder))
            results.write(found, folder)
    return found


def _next(engine: Engine, data: str, weights: Path | None, best: Mapping[str, str], name: str, folder: Path) -> str:
    """The command that trains with the best values, in the same engine."""
    words = ["--data", data, *(["--weights", str(weights)] if weights else [])]
    if isinstance(engine, DockerEngine):
        found = name if folder.parent == results.FOLDER else str(folder)
        return shlex.join(["scripts/train.py", "--local", *words, "--from-tuning", found])
    values = [word for key, value in best.items() for word in (f"--{key}", value)]
    return shlex.join(["local_test/train_local.sh", "--engine", "process", *words, *values])
