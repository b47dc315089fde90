"""The files that a search leaves in its folder: best.json, trials.json and tuning-report.html; and reading them."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from container_train.paths import replace_file
from local_test.errors import reason
from scripts.aws.errors import CloudError
from scripts.console.command import progress
from scripts.environment import ROOT
from scripts.tuning import trials
from scripts.tuning.trials import Search, words

FOLDER = ROOT / "local_test" / "tuning"  # of all searches, each in a folder of its name
BEST, TRIALS, REPORT = "best.json", "trials.json", "tuning-report.html"


def write(search: Search, folder: Path) -> None:
    """Write the three files; best.json only where a trial was completed."""
    from scripts.tuning import report

    def put(name: str, document: Any) -> None:
        replace_file(folder / name, (json.dumps(document, indent=1) + "\n").encode())

    folder.mkdir(parents=True, exist_ok=True)
    document = search.to_dict()
    put(TRIALS, document)
    if best := document["best"]:
        head = {key: document[key] for key in ("name", "where", "strategy", "objective", "direction")}
        put(BEST, head | {"value": best["value"], "trial": best["name"], "hyperparameters": best["hyperparameters"]})
    else:
        (folder / BEST).unlink(missing_ok=True)  # of a search that was here before, whose study somebody removed
    report.write(replace(search, images=search.images or _validation_images(folder)), folder / REPORT)


def _validation_images(folder: Path) -> int:
    """As a trial of this machine has counted them; 0 where none has come so far."""
    for file in folder.glob("trials/*/metrics.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return int(json.loads(file.read_text())["images"]["valid"])
    return 0


def tell(search: Search, folder: Path, *, as_json: bool) -> None:
    """The table and the best on standard output, or all of it as one JSON object."""
    print(json.dumps({**search.to_dict(), "folder": str(folder)}) if as_json else trials.render(search))
    best = search.best
    if best is None:
        progress("no trial was completed")
        return
    found = ", ".join(f"{name} {words(value)}" for name, value in best.parameters.items())
    progress(f"best: {search.space.objective} {words(best.value)} in trial {best.number} with {found}")
    progress(f"  {folder / BEST}\n  {folder / REPORT}")


def read(where: str) -> dict[str, str] | None:
    """The best hyperparameters of a search: best.json, a folder that has it, or a name below FOLDER.

    None where there is nothing of that name here. Raises CloudError for a search that has found nothing (yet).
    """
    path = next((path for path in (Path(where), FOLDER / where) if path.exists()), None)
    if path is None:
        return None
    file = path / BEST if path.is_dir() else path
    try:
        content: dict[str, Any] = json.loads(file.read_text())
        return {str(key): str(value) for key, value in content["hyperparameters"].items()}
    except FileNotFoundError:
        raise CloudError(f"{path} has no {BEST}: its search has completed no trial yet", 2) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CloudError(f"{file} was not written by scripts/tune.py: {reason(error)}", 2) from None
