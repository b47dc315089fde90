"""The steps of the story: the programs that each calls, what it costs at most, and what it has seen at the end.

Each removes the endpoint that it has made, so that nothing is billed beside the step in progress.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.aws import instances
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.aws.polling import ENDPOINT_SECONDS, poll
from scripts.aws.settings import Settings
from scripts.endpoints import lookup, scaling
from scripts.endpoints.lookup import LOG_GROUP
from scripts.jobs import training_jobs
from scripts.story.programs import StepError, ask, call

HOUR = 3600
IDLE_SECONDS = 2 * HOUR  # until an asynchronous endpoint has no instance any more
IDLE_POLL = 30.0


@dataclass
class Story:
    """Shared by all steps. `images`: those that are asked about, by their labels; `made`: what steps have found."""

    aws: Aws
    settings: Settings
    data: Path  # train/, valid/, test/
    images: dict[Path, str]
    kinds: Mapping[str, str]  # of instances: that train, that serve
    hyperparameters: Sequence[str]
    made: dict[str, str] = field(default_factory=dict)

    def name(self, what: str) -> str:
        return f"{self.settings.project}-{what}"

    def place(self, what: str) -> S3Uri:
        return self.settings.home() / what


@dataclass(frozen=True)
class Step:
    """`seconds`: after that it is broken off; `instances`: how many of the `kind` (train, serve) may be billed then."""

    name: str
    work: Callable[[Story], dict[str, Any]]
    seconds: int = HOUR
    kind: str = ""
    instances: int = 1
    usd: float = 0.01  # without instances: storage, requests, seconds of a serverless endpoint
    needs: tuple[str, ...] = ()  # what `made` has to have

    def cost(self, kinds: Mapping[str, str], region: str, seconds: float | None = None) -> float:
        """Return USD at most, of so many seconds. Raises CloudError where a price is not known."""
        if not self.kind:
            return self.usd
        kind = kinds[self.kind]
        usd = instances.price(kind, region).limit(self.seconds if seconds is None else seconds, self.instances)
        if usd is None:
            raise CloudError(f"the price of {kind} is not known here, so --max-usd cannot hold: take ml.m5.xlarge", 2)
        return usd


def _push(story: Story) -> dict[str, Any]:
    lacking = [target for target in ("train", "serve") if target not in story.made]
    for target in lacking:
        (image,) = ask("push.sh", target)["images"]
        story.made[target] = image["uri"]
    return {"pushed": ", ".join(lacking) or "nothing, both were given"}


def _upload(story: Story) -> dict[str, Any]:
    found = ask("prepare_data.py", story.data, "--s3")
    story.made["data"] = found["s3"]
    return {"files": found["sent"]}


def _train(story: Story) -> dict[str, Any]:
    name = story.name(f"train-{int(time.time())}")
    found = ask(
        "train.py", "--image", story.made["train"], "--data", story.made["data"], "--spot", "--name", name,
        "--instance-type", story.kinds["train"], "--max-run", TRAIN.seconds, "--max-wait", 2 * TRAIN.seconds,
        *story.hyperparameters,
    )  # fmt: skip
    story.made |= {"job": name, "model": found["model"]}
    job = training_jobs.describe(story.aws, name)
    starts = {step["Status"]: step["StartTime"] for step in job.transitions if "StartTime" in step}
    first = min(starts.values(), default=None)
    waits = {f"{status.lower()} after s": round((start - first).total_seconds()) for status, start in starts.items()}
    keys = ("training_seconds", "billable_seconds", "cost_usd", "spot_saved")
    return {**{key: found[key] for key in keys}, **waits, "test_accuracy": found["metrics"].get("test_accuracy")}


def _real_time(story: Story) -> dict[str, Any]:
    name = story.name("live")
    seen = _deploy(story, name) | _ask(story, name)
    begun = time.monotonic()
    _deploy(story, name, "--update", "--prune", "--strategy", "all-at-once")
    seen |= {"update s": round(time.monotonic() - begun), "after the update": _ask(story, name)["right"]}
    return _remove(name, seen)


def _serverless(story: Story) -> dict[str, Any]:
    name = story.name("rare")
    seen = _deploy(story, name, "--serverless", 2048)
    first = _ask(story, name, list(story.images)[:1])
    seen |= {"cold start ms": first["p50 ms"]} | _ask(story, name)
    return _remove(name, seen)


def _asynchronous(story: Story) -> dict[str, Any]:
    """Also the first start from zero: wait until no instance is left, then ask."""
    name = story.name("queue")
    answers = story.place("answers")
    seen = _deploy(story, name, "--async", answers, "--min-instances", 0, "--max-instances", 1)
    seen |= _ask(story, name, None, "--async")
    target = story.aws.client(scaling.SERVICE).describe_scalable_targets(
        ServiceNamespace=scaling.NAMESPACE, ResourceIds=[scaling.variant(name)["ResourceId"]]
    )["ScalableTargets"]
    seen["service-linked role"] = target[0].get("RoleARN", "").rpartition("/")[2] if target else "none"
    begun = time.monotonic()
    poll(
        lambda: lookup.find(story.aws, name),
        lambda found: found is None or found.instances == 0 or time.monotonic() - begun > IDLE_SECONDS,
        pause=IDLE_POLL,
        seconds=ENDPOINT_SECONDS,
    )
    seen["idle after s"] = round(time.monotonic() - begun)
    begun = time.monotonic()
    _ask(story, name, list(story.images)[:1], "--async")
    seen["first answer from zero s"] = round(time.monotonic() - begun)
    return _remove(name, seen)


def _multi_model(story: Story) -> dict[str, Any]:
    name, prefix = story.name("many"), story.place("models")
    for model in ("first", "second"):
        call("deploy.py", "--image", story.made["serve"], "--multi-model", prefix, "--add", model, story.made["model"])
    seen = _deploy(story, name, "--multi-model", prefix)
    for model in ("first", "second"):
        loaded = _ask(story, name, list(story.images)[:1], "--model", model)
        seen[f"load of the {model} model ms"] = loaded["p50 ms"]
        seen |= _ask(story, name, None, "--model", model)
    return _remove(name, seen)


def _transform(story: Story) -> dict[str, Any]:
    out = story.place("night")
    name = story.name(f"transform-{int(time.time())}")
    found = ask(
        "transform.py", "--image", story.made["serve"], "--job", story.made["job"], "--name", name,
        "--data", f"{story.made['data']}/test", "--out", out, "--instance-type", story.kinds["serve"],
    )  # fmt: skip
    listed = story.aws.client("s3").list_objects_v2(Bucket=out.bucket, Prefix=f"{out.key}/").get("Contents", ())
    answers = [item["Key"].removeprefix(f"{out.key}/") for item in listed if item["Key"].endswith(".out")]
    return {"images": found["images"], "failed": len(found["failed"]), "an answer's key": next(iter(answers), "none")}


def _deploy(story: Story, name: str, *flags: object) -> dict[str, Any]:
    what = () if "--multi-model" in flags else ("--job", story.made["job"])
    kind = () if "--serverless" in flags else ("--instance-type", story.kinds["serve"])
    found = ask("deploy.py", "--image", story.made["serve"], *what, "--name", name, *kind, *flags)
    log = "\n".join(lookup.last_lines(story.aws, LOG_GROUP.format(name)))
    workers = re.search(r"starting (\d+ worker\(s\) with \d+ thread\(s\))", log)  # as many as there are vCPUs
    return {"in service after s": round(found["seconds"]), "server": workers[1] if workers else ""}


def _ask(story: Story, name: str, images: Sequence[Path] | None = None, *flags: object) -> dict[str, Any]:
    """Return the number of right labels, and the median in ms. Raises StepError where an answer is missing."""
    chosen = list(story.images) if images is None else images
    rows = ask("predict.py", name, *chosen, *flags)["results"]
    right = sum(row["predictions"][0]["label"] == story.images[path] for path, row in zip(chosen, rows, strict=True))
    times = sorted(row["milliseconds"] for row in rows if row.get("milliseconds") is not None)
    if not right:
        raise StepError(f"{name} answers, and none of {len(chosen)} labels is right")
    return {"right": f"{right} of {len(chosen)}", "p50 ms": round(times[len(times) // 2]) if times else None}


def _remove(name: str, seen: dict[str, Any]) -> dict[str, Any]:
    call("cleanup.py", name, "--yes")
    return seen


TRAIN = Step("train on spot", _train, HOUR // 2, "train", needs=("train", "data"))
STEPS = (
    Step("push", _push, 2 * HOUR, usd=0.05),
    Step("upload", _upload),
    TRAIN,
    Step("real-time, update", _real_time, HOUR, "serve", 2, needs=("serve", "job")),
    Step("serverless", _serverless, HOUR, usd=0.05, needs=("serve", "job")),
    Step("asynchronous, from zero", _asynchronous, 3 * HOUR, "serve", needs=("serve", "job")),
    Step("multi-model", _multi_model, HOUR, "serve", needs=("serve", "model")),
    Step("transform", _transform, HOUR, "serve", needs=("serve", "job", "data")),
)
