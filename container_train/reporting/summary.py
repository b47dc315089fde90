"""What a report says in words and figures: how the job stands, what is wrong, what to do first, where the time went."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from container_train.reporting import clock
from container_train.reporting.record import TERMINAL, Record, number, table
from container_train.reporting.words import clock_time, duration, figure, share, title

# First what makes a training useless, then what makes it worse, then what makes it slow.
URGENCY = (
    "exploding_tensor", "vanishing_gradient", "poor_weight_initialization", "loss_not_decreasing", "dead_relu",
    "overtraining", "overfit", "class_imbalance", "dataloader", "io_bottleneck", "cpu_bottleneck",
    "low_gpu_utilization", "batch_size", "gpu_memory_increase", "load_balancing",
)  # fmt: skip
STATUSES = {  # status of a rule: (word, icon, order)
    "fired": ("fired", "alert", 0),
    "error": ("failed itself", "cross", 1),
    "waiting": ("too early", "dots", 2),
    "ok": ("ok", "check", 3),
    "not_applicable": ("not applicable", "dash", 4),
}
PHASES = {  # name: (what it is, colour); colours that the colour-blind can tell apart, and each has its own row
    "data": ("Reading and checking the data", "#56b4e9"),
    "model": ("Building the model", "#cc79a7"),
    "features": ("Frozen layers, once a picture", "#009e73"),
    "train": ("Training steps", "#2f6fb3"),
    "evaluate": ("Evaluation", "#d9772b"),
    "checkpoint": ("Checkpoints", "#882255"),
    "export": ("Export of the model", "#999933"),
    "measure": ("Measuring by the serving code", "#b08d00"),
    "report": ("Report", "#8a8f98"),
}
OTHER = "#8a8f98"
PARTS = {  # of a step: (what it is, colour)
    "data": ("waiting for data", "#d9772b"),
    "forward": ("forward", "#7fadd8"),
    "backward": ("backward", "#2f6fb3"),
    "optimizer": ("optimizer", "#009e73"),
}
SLOWEST = 5  # steps that are listed


@dataclass(frozen=True)
class State:
    """`word` and `icon` for how a job stands, `tone` good, bad or plain, and one sentence."""

    word: str
    icon: str
    tone: str
    sentence: str


@dataclass(frozen=True)
class Share:
    """A row of "where the time went": `depth` 1 is a part of the row of depth 0 before it."""

    label: str
    seconds: float
    share: float
    colour: str
    depth: int = 0

    @property
    def took(self) -> str:
        return duration(self.seconds)

    @property
    def percent(self) -> str:
        return share(self.share)


def state(record: Record, now: float) -> State:
    """How the job stands. One that says "running", and from which nothing more will come, was killed."""
    status, reason = str(record.job.get("status", "")), str(record.job.get("reason") or "")
    lasted = duration(record.clock.length)
    if record.service:
        return State("Profiled", "dash", "plain", f"By the service's profiler: {lasted} of it.")
    if status == "completed":
        return State("Completed", "check", "good", reason or f"In {lasted}.")
    if status == "stopped":
        return State("Stopped", "square", "plain", reason or f"After {lasted}; it goes on from its checkpoint.")
    if status == "failed":
        return State("Failed", "cross", "bad", reason or f"After {lasted}, without a reason.")
    if status not in TERMINAL and record.final:
        return State("Broke off", "cross", "bad", f"Killed after {lasted}, as it seems: it had no time to say why.")
    return State(
        "Running", "dots", "plain",
        f"As of {clock_time(now)}, {lasted} after its start. Should the job be over, it was killed soon after that.",
    )  # fmt: skip


def findings(record: Record) -> list[dict[str, Any]]:
    """The rules, those first that fired, most urgent first; every value a text or a number that can be shown."""
    rows = []
    for rule in record.rules:
        status = str(rule["status"])
        word, icon, order = STATUSES.get(status, (status, "dash", 9))
        name = str(rule["rule"])
        fired, checked = number(rule.get("fired")), number(rule.get("checked"))
        rows.append(
            {
                "name": name,
                "anchor": "rule-" + "".join(c if c.isalnum() else "-" for c in name),
                "title": title(name),
                "about": "training" if rule.get("kind") == "debugger" else "machine",
                "status": status,
                "detailed": status != "not_applicable",  # there the reason says it all
                "word": word,
                "icon": icon,
                "reason": str(rule.get("reason") or ""),
                "advice": str(rule.get("advice") or ""),
                "fired": 0 if math.isnan(fired) else int(fired),
                "checked": 0 if math.isnan(checked) else int(checked),
                "parameters": {str(key): str(value) for key, value in table(rule.get("parameters")).items()},
                "evidence": [
                    (when, _evidence(record, table(rule[when]))) for when in ("first", "last") if table(rule.get(when))
                ],
                "step": number(table(rule.get("first")).get("step")),
                "order": (order, URGENCY.index(name) if name in URGENCY else len(URGENCY), name),
            }
        )
    return sorted(rows, key=lambda row: row["order"])


def passed_over(findings: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(rules, why they do not apply), those of one reason together."""
    reasons: dict[str, list[str]] = {}
    for row in findings:
        if not row["detailed"]:
            reasons.setdefault(row["reason"], []).append(row["title"])
    return [(", ".join(titles), reason) for reason, titles in reasons.items()]


def _evidence(record: Record, evidence: dict[str, Any]) -> dict[str, str]:
    """One time that a rule fired, in words."""
    step, when = number(evidence.get("step")), number(evidence.get("time"))
    words = {"step": f"{step:.0f}" if math.isfinite(step) else ""}
    if evidence.get("mode"):
        words["mode"] = str(evidence["mode"])
    if math.isfinite(when):
        words["time"] = f"{duration(float(record.clock([when])[0]))} after the start"
    words["tensor"] = str(evidence.get("tensor") or "")
    words["value"] = figure(number(evidence.get("value")))
    words["threshold"] = figure(number(evidence.get("threshold")))
    return {key: value for key, value in words.items() if value}


def cards(record: Record) -> list[tuple[str, str]]:
    """(figure, what it is) of what one asks first; what is not known is left out."""
    result = [(duration(record.clock.length), "so far" if _under_way(record) else "from start to end")]
    asked = record.hyperparameters.get("epochs")
    epochs = record.epochs
    if epochs:
        # As the training itself decides: of equal accuracies the one with the lower loss.
        best = max(epochs, key=lambda row: tuple(np.nan_to_num([row["valid_accuracy"], -row["valid_loss"]], nan=-1e9)))
        result.append((f"{len(epochs)} of {asked}" if asked else str(len(epochs)), "epochs done"))
        result.append((share(best["valid_accuracy"]), f"validation accuracy, best, epoch {best['epoch']}"))
        speeds = [row["images_per_second"] for row in epochs if math.isfinite(row["images_per_second"])]
        if speeds:
            result.append((f"{np.median(speeds):.0f} /s", "pictures trained on, median epoch"))
    elif asked:
        result.append((f"0 of {asked}", "epochs done"))
    tested = number(record.metrics.get("test_accuracy"))
    if math.isfinite(tested):
        result.append((share(tested), "test accuracy"))
    total = record.steps.total[np.isfinite(record.steps.total)]
    if len(total):
        result.append((duration(float(np.median(total))), f"a step, median; 95 % below {_p95(total)}"))
    for curves, what in ((record.usage.gpu, "GPU"), (record.usage.cpu[:1], "CPU")):
        if curves:
            mean = np.mean([curve.average for curve in curves])
            several = f" of {len(curves)}" if len(curves) > 1 else ""
            result.append((f"{mean:.0f} %", f"{what} busy on average{several}"))
    if record.usage.memory:
        curve = max(record.usage.memory, key=lambda curve: curve.peak)
        result.append((f"{curve.peak:.0f} %", f"{curve.label}, peak"))
    return result


def _p95(total: Any) -> str:
    return duration(float(np.percentile(total, 95)))


def _under_way(record: Record) -> bool:
    return str(record.job.get("status", "")) not in TERMINAL and not record.final and not record.service


def shares(record: Record) -> list[Share]:
    """Where the seconds between start and end went, each second once, the parts of the training steps below them."""
    length = record.clock.length
    if not length:
        return []
    seconds = clock.leaves(record.timeline.phases)
    rows: list[Share] = []
    for name in [*PHASES, *sorted(seconds.keys() - PHASES.keys())]:
        if name not in seconds:
            continue
        label, colour = PHASES.get(name, (title(name), OTHER))
        rows.append(Share(label, seconds[name], seconds[name] / length, colour))
        if name == "train":
            rows += _parts(record, seconds[name], length)
    rest = length - sum(seconds.values())
    if seconds and rest > 0.005 * length:
        rows.append(Share("In between and before", rest, rest / length, OTHER))
    return rows


def _parts(record: Record, train: float, length: float) -> list[Share]:
    rows = []
    for part, (label, colour) in PARTS.items():
        taken = record.steps.weight * getattr(record.steps, part)
        if np.isfinite(taken).any():
            rows.append(Share(label, (own := float(np.nansum(taken))), own / length, colour, 1))
    rest = train - sum(row.seconds for row in rows)
    if rows and rest > 0.005 * length:
        rows.append(Share("everything else", rest, rest / length, OTHER, 1))
    return rows


def slowest(record: Record) -> list[dict[str, str]]:
    """The slowest steps, and what made them slow."""
    steps = record.steps
    if len(steps) < 2:
        return []
    median = float(np.nanmedian(steps.total))
    rows = []
    for index in np.argsort(-np.nan_to_num(steps.total))[:SLOWEST].tolist():
        parts = {label: float(getattr(steps, part)[index]) for part, (label, _) in PARTS.items()}
        known = {label: value for label, value in parts.items() if math.isfinite(value)}
        most = max(known, key=lambda label: known[label]) if known else ""
        rows.append(
            {
                "step": f"{steps.number[index]:.0f}",
                "epoch": f"{steps.epoch[index]:.0f}" if steps.epoch[index] >= 1 else "",
                "took": duration(float(steps.total[index])),
                "times": f"{steps.total[index] / median:.1f} times" if median > 0 else "",
                "most": f"{most}, {duration(known[most])}" if most else "",
            }
        )
    return rows


def notes(record: Record) -> list[str]:
    """What a reader has to know before trusting the page: what was switched off or broke, what is missing."""
    debug = table(record.job.get("debug"))
    result = []
    if debug.get("state") == "failed":
        result.append(f"The debugger did not work, the training went on without it: {debug.get('reason') or 'unknown'}")
    elif debug.get("state") == "off":
        result.append("The debugger was off (debug=off): no gradients, and no rule on tensors.")
    if number(record.job.get("profile_interval_ms")) == 0:
        result.append("The profiler was off (profile-interval=0): nothing was measured of the machine.")
    problems = record.job.get("problems")
    result += [str(problem) for problem in problems] if isinstance(problems, list) else []
    if sampler := str(table(record.job.get("sampler")).get("problem") or ""):
        result.append(sampler)
    for _, seconds in record.clock.breaks:
        result.append(f"The job did not run for {duration(seconds)} and was taken up again; the charts leave that out.")
    if str(record.metrics.get("weights")) == "none" and record.hyperparameters.get("freeze-until") != "none":
        result.append("The frozen layers have random weights: the accuracies say nothing about real training.")
    return result
