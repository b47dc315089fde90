"""A job's outcome: the words, the JSON, and the exit code."""

import json
import math
from collections.abc import Mapping
from typing import Any

from scripts.aws import instances
from scripts.aws.errors import one_line
from scripts.console.command import progress
from scripts.jobs import training_jobs, watch
from scripts.jobs.training_jobs import Job


def of_cloud(job: Job, metrics: Mapping[str, float], *, as_json: bool) -> int:
    completed = job.status == "Completed"
    if job.billable_seconds is not None:
        cost = "" if job.cost is None else f", {job.cost:.2f} USD at the price of {instances.PRICE_REGION}"
        progress(f"billed: {job.billable_seconds} s of {job.instance_count} x {job.instance_type}{cost}")
    if job.saved is not None:
        progress(f"spot instances saved {job.saved:.0%}")
    if job.warm_pool:
        stop = watch.stop(job.name, job.region)
        progress(f"its instances are kept for a next job, and billed (--keep-alive); give them back with: {stop}")
    _tell(
        {
            "name": job.name,
            "status": job.status,
            "model": job.artifact,
            "image": job.image,
            "instance_type": job.instance_type,
            "instance_count": job.instance_count,
            "training_seconds": job.training_seconds,
            "billable_seconds": job.billable_seconds,
            "cost_usd": None if job.cost is None else round(job.cost, 4),
            "spot_saved": None if job.saved is None else round(job.saved, 4),
            "failure": job.failure,
            "console": training_jobs.console(job.region, job.name),
        },
        metrics,
        job.artifact if completed else None,
        as_json=as_json,
    )
    if completed:
        progress(f"next: scripts/deploy.py --job {job.name} --region {job.region} --image URI-OF-BYOC-SERVE")
        return 0
    reason = one_line(job.failure or "") or job.secondary
    if job.status == "Stopped":
        kept = f"; what it had saved: {job.artifact}" if job.artifact else ""
        progress(f"train.py: {job.name} was stopped ({reason}){kept}")
    else:
        again = "; call it again with another --instance-type, or several: A,B" if job.lacks_capacity else ""
        progress(f"train.py: {job.name} failed: {reason}{again}")
    return 1


def of_local(name: str, image: str, result: Any, metrics: Mapping[str, float], *, as_json: bool) -> int:
    """`result`: local.Result. The exit code is the training program's."""
    code: int = result.code
    model = None if code else result.model
    _tell(
        {
            "name": name,
            "status": "Failed" if code else "Completed",
            "model": None if model is None else str(model),
            "output": None if result.output is None else str(result.output),
            "image": image,
            "failure": result.failure or None,
            "exit_code": code,
        },
        metrics,
        model,
        as_json=as_json,
    )
    if code:
        reason = next(iter(result.failure.splitlines()), "it left no failure file")
        progress(f"train.py: training failed with exit code {code}: {reason}; {result.left}")
    elif model is None:
        progress(f"train.py: training has ended without a model; {result.left}")
    else:
        progress(f"next: scripts/deploy.py --local --model-data {model}")
    return code


def _tell(document: Mapping[str, Any], metrics: Mapping[str, float], line: object, *, as_json: bool) -> None:
    """Say the metrics, and give the document or, where there is one, the line. JSON has no NaN and no infinity."""
    if metrics:
        progress("metrics: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    if as_json:
        numbers = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        print(json.dumps({**document, "metrics": numbers}))
    elif line:
        print(line)
