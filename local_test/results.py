"""The files that a run leaves for its user: reports and summary.json."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from container_train.paths import replace_file
from local_test.errors import LocalError, reason
from local_test.predictions import Row

PROFILER_FILES = ("profiler-report.html", "rules.json")


def copy_reports(tree: Path, folder: Path) -> list[dict[str, Any]] | None:
    """Copy the report, and the profiler's where it has one, into `folder`.

    Gives the rules of debugger and profiler that fired, as rules.json has them, or None where nothing watched.
    """
    output = tree / "output" / "data"
    if not (output / "report.html").is_file():
        raise LocalError("training wrote no output/data/report.html")
    for name in ("report.html", *PROFILER_FILES):
        if (output / name).is_file():
            shutil.copyfile(output / name, folder / name)
    try:
        rules = json.loads((folder / "rules.json").read_text())["rules"]
        return [rule for rule in rules if rule["status"] == "fired"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def in_words(fired: list[dict[str, Any]]) -> str:
    """Return what is wrong with its reason, and by name what is only worth knowing."""
    wrong = [f"{rule['rule']} ({rule['reason']})" for rule in fired if rule["severity"] != "information"]
    known = [rule["rule"] for rule in fired if rule["severity"] == "information"]
    words = "; ".join(wrong) or "no problem found"
    return f"{words}; worth knowing: {', '.join(known)}" if known else words


def read(path: Path) -> dict[str, Any]:
    """A file that the training has written. Raises LocalError."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LocalError(f"training's {path.name} cannot be read: {reason(error)}") from None
    return content


def write_summary(folder: Path, tree: Path, rows: list[Row], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write summary.json, of what the training has measured, the server's answers, and `facts` of the run."""
    metrics, model = read(tree / "output" / "data" / "metrics.json"), read(tree / "model" / "model.json")
    try:
        summary = {
            **{key: model[key] for key in ("classes", "precision", "accuracy", "accuracy_interval")},
            **{key: metrics[key] for key in ("images", "test_accuracy", "hyperparameters", "chance")},
            "test_accuracy_interval": model["accuracy_interval"][model["precision"]]["test"],
            "training_seconds": metrics["seconds"],
            "prediction": asdict(rows[0]),
            "predictions": [asdict(row) for row in rows],
            **facts,
        }
    except KeyError as error:
        raise LocalError(f"training's metrics.json or model.json has no key {error}") from None
    replace_file(folder / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
    return summary
