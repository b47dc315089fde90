"""`tune.py --local`, from its flags to its results."""

import argparse
import contextlib
from collections.abc import Mapping
from pathlib import Path

from local_test import engine as local_engine
from local_test import run as local_run
from local_test.engine import DockerEngine, Engine
from local_test.options import Options
from scripts.aws import names
from scripts.aws.errors import CloudError, one_line
from scripts.console.command import Interrupted, progress
from scripts.jobs import local_training
from scripts.jobs.inputs import SAMPLE, Weights
from scripts.jobs.local_training import locally
from scripts.tuning import results, table
from scripts.tuning.local_search import LocalSearch, claimed, file_digest, pictures_digest, staged_data
from scripts.tuning.space import Space
from scripts.tuning.trials import OVER

# Flags of the cloud's that do nothing here, beside those of train.py --local.
LEFT_OUT = {
    "--early-stopping": "--strategy hyperband ends poor trials here",
    "--warm-start": "a search of the same --name goes on with its own trials",
    "--image": "the image of these files is taken",
    "--environment": "the trials have this machine's",
    "--output": "results go to --results",
}


def run(flags: argparse.Namespace, space: Space, weights: Weights, given: Mapping[str, str]) -> int:
    """The whole search. Raises CloudError, or Interrupted with what takes it up again."""
    local_training.check(flags)
    left_out = [f"{flag} ({why})" for flag, why in LEFT_OUT.items() if getattr(flags, flag[2:].replace("-", "_"))]
    if left_out:
        progress("--local leaves out: " + "; ".join(left_out))
    is_sample = flags.data == SAMPLE
    data = flags.data if is_sample else str(Path(flags.data).resolve())
    name = names.checked(flags.name or Path(data).name)
    folder = Path(flags.results or results.FOLDER).absolute() / name
    total = len(space.grid()) if flags.strategy == "grid" else flags.trials
    with claimed(folder):
        engine, why = locally(lambda: local_engine.choose(flags.engine, folder))
        progress(f"engine: {engine.name}, because {why}")
        engine.features = folder / "features"
        engine.features.mkdir(exist_ok=True)
        if isinstance(engine, DockerEngine):
            locally(lambda: engine.find_images(("train",)))
        chosen = dict(given)
        file = local_training.backbone(
            weights, chosen, is_sample=is_sample, in_container=isinstance(engine, DockerEngine)
        )
        space = space.with_fixed(chosen)
        pictures, notes = staged_data(folder, data, is_sample=is_sample)
        for note in notes:
            progress(note)
        from optuna.exceptions import StorageInternalError  # Optuna takes a second to import

        from scripts.tuning.study import Study

        identity = {
            "space": space.digest,
            "data": data,
            "set of pictures": SAMPLE if is_sample else pictures_digest(Path(data)),
            "weights": str(file or chosen.get("weights", "DEFAULT")),
            "content of the weights": file_digest(file) if file else "",
        }
        study = Study(folder, space, flags.strategy, identity, parallel=flags.parallel)
        search = LocalSearch(study, engine, pictures, file, space.fixed, name, flags.parallel)
        if done := search.search().count(*OVER):
            progress(f"{name} has {done} trials already, and goes on")
        try:
            with table.live(total) as show:
                locally(lambda: search.run(total, show))
        except StorageInternalError as error:
            raise CloudError(f"{folder / 'study.db'}: {one_line(str(error.__cause__ or error))[:300]}") from None
        except KeyboardInterrupt:
            found = search.search()
            raise Interrupted(
                f"interrupted after {found.count(*OVER)} of {total} trials, which are kept in {folder}: the same call"
                " goes on with it"
            ) from None
        finally:
            with contextlib.suppress(StorageInternalError):
                found = search.search()
                results.write(found, folder)
        results.tell(found, folder, as_json=flags.json)
        if found.best is None:
            raise CloudError(f"none of {len(found.trials)} trials was completed; their logs are in {folder / 'trials'}")
        if flags.train_best:
            _train(engine, data, file, found.hyperparameters(), folder)
        else:
            from_file = f" --weights {file}" if file else ""
            train = f"scripts/train.py --local --data {flags.data}{from_file}"
            progress(f"next: {train} --from-tuning {_short(folder, name)}")
    return 0


def _short(folder: Path, name: str) -> str:
    return name if folder.parent == results.FOLDER else str(folder)


def _train(engine: Engine, data: str, weights: Path | None, hyperparameters: dict[str, str], folder: Path) -> None:
    """The final training, with everything that one has: FOLDER/best, as local_test/train_local.sh leaves it."""
    out = folder / "best"
    progress(f"training with the best values, into {out}")
    options = Options(
        engine.name, data, weights or hyperparameters.pop("weights", None), None, out, hyperparameters, engine.features
    )
    locally(lambda: local_run.run(options, serve=False))
