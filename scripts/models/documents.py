"""Documents of a model package: the model card, and the quality of the model, made of model.json and a job's output."""

import csv
import json
from collections.abc import Mapping
from typing import Any

from container_serve import scratch
from local_test.errors import LocalError, reason
from scripts.aws.account import Aws
from scripts.aws.names import S3Uri
from scripts.console.command import progress
from scripts.jobs import outputs

MATRIX = "confusion_matrix.csv"  # in the job's output: a row per true class, a column per predicted one
MAX_VALUES = 100  # of a list in a model card


def quality(model: Mapping[str, Any], matrix: Mapping[str, Mapping[str, int]] | None) -> dict[str, Any]:
    """Return ModelQuality's statistics, in the form that the service's own monitor writes.

    `model`: model.json. The accuracy is that of the served graph on the test images, with its 95 % interval.
    """
    metrics: dict[str, Any] = {}
    for split, (share, interval) in _measured(model).items():
        name = "accuracy" if split == "test" else f"{split}_accuracy"
        metrics[name] = {"value": share, "standard_deviation": "NaN", "confidence_interval_95": interval}
    if matrix is not None:
        metrics["confusion_matrix"] = matrix
    return {"multiclass_classification_metrics": metrics}


def card(model: Mapping[str, Any], artifact: S3Uri, image: str) -> str:
    """Return ModelCardContent: JSON by the schema of a model package's card. `image` serves the model."""
    training, data = model.get("training", {}), model.get("data", {})
    images = data.get("images", {})
    hyperparameters = [
        {"name": name, "value": str(value)} for name, value in sorted(model.get("hyperparameters", {}).items())
    ]
    metrics = [
        {
            "name": f"accuracy on {split}",
            "type": "number",
            "value": share,
            "notes": f"{images.get(split, '?')} images; 95 % interval {interval[0]:.4f} to {interval[1]:.4f}",
        }
        for split, (share, interval) in _measured(model).items()
    ]
    details = {
        "architecture": model.get("architecture"),
        "precision": model.get("precision"),
        "classes": len(model.get("classes", ())),
        "weights": model.get("weights"),
        "best epoch": model.get("best_epoch"),
        "training job": training.get("job"),
        "data fingerprint": data.get("fingerprint"),
        "serving image": image,
        **{f"images of {split}": count for split, count in images.items()},
    }
    content: dict[str, Any] = {
        "model_overview": {"model_artifact": [str(artifact)]},
        "training_details": {
            "training_job_details": {
                "training_environment": {"container_image": [training["image"]] if training.get("image") else []},
                "hyper_parameters": hyperparameters[:MAX_VALUES],
            },
        },
        "evaluation_details": [{"name": "accuracy", "metric_groups": [{"name": "accuracy", "metric_data": metrics}]}],
        "additional_information": {
            "custom_details": {name: str(value) for name, value in details.items() if value not in (None, "")}
        },
    }
    if warning := model.get("warning"):
        content["training_details"]["training_observations"] = warning
    return json.dumps(content)


def confusion(aws: Aws, artifact: S3Uri) -> dict[str, dict[str, int]] | None:
    """Return the counts by true and predicted class from the output beside a job's artifact.

    None where there is none, which is said.
    """
    place = S3Uri(artifact.bucket, artifact.key.rpartition("/")[0]) / outputs.ARCHIVE
    try:
        with scratch.folder() as folder:
            file = outputs.fetch(str(place), folder, lambda: aws) / MATRIX
            (_, *classes), *rows = csv.reader(file.read_text().splitlines())
        return {label: dict(zip(classes, map(int, counts), strict=True)) for label, *counts in rows}
    except (LocalError, OSError, ValueError) as error:
        progress(f"no confusion matrix is registered: {place} has none ({reason(error)})")
        return None


def _measured(model: Mapping[str, Any]) -> dict[str, tuple[float, list[float]]]:
    """Return the accuracy and its interval by split, of the graph that is served; model.json may lack them."""
    shares = model.get("accuracy", {}).get(model.get("precision"), {})
    intervals = model.get("accuracy_interval", {}).get(model.get("precision"), {})
    return {split: (share, intervals[split]) for split, share in shares.items() if split in intervals}
