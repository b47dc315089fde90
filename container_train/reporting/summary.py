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
    "features": ("Frozen layers, once per image", "#009e73"),
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
NOTABLE = 0.005  # share of the job's time that has a row of its own


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
        return State("Stopped", "square", "plain", reason or f"After {lasted}; it resumes from its checkpoint.")
    if status == "failed":
        return State("Failed", "cross", "bad", reason or f"After {lasted}, without a reason.")
    if record.final:
        return State("Broke off", "cross", "bad", f"Killed after {lasted}, as it seems: it had no time to say why.")
    return State(
        "Running", "dots", "plain",
        f"As of {clock_time(now)}, {lasted} after its start. Should the job be over, it was killed soon after that.",
    )  # fmt: skip


def findings(record: Record) -> list[dict[str, Any]]:
    """The rules, those first that fired, most urgent first; every value a text or a number that can be shown."""
    rows = []
    for rule in record.rules:
        status, name = str(rule["status"]), str(rule["rule"])
        word, icon, order = STATUSES.get(status, (status, "dash", 9))
        first = table(rule.get("first"))
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
                **{key: int(np.nan_to_num(number(rule.get(key)))) for key in ("fired", "checked")},
                "parameters": {str(key): str(value) for key, value in table(rule.get("parameters")).items()},
                "evidence": [
                    (when, _evidence(record, table(rule[when]))) for when in ("first", "last") if table(rule.get(when))
                ],
                # An evaluation's step is the number of training steps before it, a training step counts from 0.
                "steps": number(first.get("step")) + (first.get("mode") == "TRAIN"),
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
    words = {
        "step": f"{step:.0f}" if math.isfinite(step) else "",
        "mode": str(evidence.get("mode") or ""),
        "time": f"{duration(float(record.clock([when])[0]))} after the start" if math.isfinite(when) else "",
        "tensor": str(evidence.get("tensor") or ""),
        "value": figure(number(evidence.get("value"))),
        "threshold": figure(number(evidence.get("threshold"))),
    }
    return {key: value for key, value in words.items() if value}


def cards(record: Record) -> list[tuple[str, str]]:
    """(figure, what it is) of what one asks first; what is not known is left out."""
    under_way = str(record.job.get("status", "")) not in TERMINAL and not record.final and not record.service
    result = [(duration(record.clock.length), "so far" if under_way else "from start to end")]
    asked, epochs = record.hyperparameters.get("epochs"), record.epochs
    if epochs or asked:
        result.append((f"{len(epochs)} of {asked}" if asked else str(len(epochs)), "epochs done"))
    if epochs:
        # As the training itself decides: of equal accuracies the one with the lower loss.
        best = max(epochs, key=lambda row: tuple(np.nan_to_num([row["valid_accuracy"], -row["valid_loss"]], nan=-1e9)))
        result.append((share(best["valid_accuracy"]), f"validation accuracy, best, epoch {best['epoch']}"))
        speeds = [row["images_per_second"] for row in epochs if math.isfinite(row["images_per_second"])]
        result += [(f"{np.median(speeds):.0f} /s", "images trained on, median epoch")] if speeds else []
    tested = number(record.metrics.get("test_accuracy"))
    result += [(share(tested), "test accuracy")] if math.isfinite(tested) else []
    total = record.steps.total[np.isfinite(record.steps.total)]
    if len(total):
        p50, p95 = np.percentile(total, [50, 95])
        result.append((duration(float(p50)), f"per step, median; 95 % below {duration(float(p95))}"))
    for curves, what in ((record.usage.gpu, "GPU"), (record.usage.cpu[:1], "CPU")):
        if curves:
            mean = np.mean([curve.average for curve in curves])
            several = f" of {len(curves)}" if len(curves) > 1 else ""
            result.append((f"{mean:.0f} %", f"{what} busy on average{several}"))
    if record.usage.memory:
        curve = max(record.usage.memory, key=lambda curve: curve.peak)
        result.append((f"{curve.peak:.0f} %", f"{curve.label}, peak"))
    return result


def shares(record: Record) -> list[Share]:
    """Where the seconds between start and end went, each second once, the parts of the training steps below them."""
    length = record.clock.length
    if not length:
        return []
    seconds = clock.leaves(record.phases)
    rows: list[Share] = []

    def add(label: str, colour: str, took: float, depth: int = 0) -> None:
        rows.append(Share(label, took, took / length, colour, depth))

    for name in [*PHASES, *sorted(seconds.keys() - PHASES.keys())]:
        if name in seconds:
            add(*PHASES.get(name, (title(name), OTHER)), seconds[name])
        if name == "train" and name in seconds:
            taken = {part: record.steps.weight * getattr(record.steps, part) for part in PARTS}
            known = {part: float(np.nansum(each)) for part, each in taken.items() if np.isfinite(each).any()}
            for part, own in known.items():
                add(*PARTS[part], own, 1)
            if known and (rest := seconds[name] - sum(known.values())) > NOTABLE * length:
                add("everything else", OTHER, rest, 1)
    if seconds and (rest := length - sum(seconds.values())) > NOTABLE * length:
        add("In between and before", OTHER, rest)
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
        took, label = max(((value, label) for label, value in parts.items() if math.isfinite(value)), default=(0.0, ""))
        rows.append(
            {
                "step": f"{steps.number[index]:.0f}",
                "epoch": f"{steps.epoch[index]:.0f}" if steps.epoch[index] >= 1 else "",
                "took": duration(float(steps.total[index])),
                "times": f"{steps.total[index] / median:.1f} times" if median > 0 else "",
                "most": f"{label}, {duration(took)}" if label else "",
            }
        )
    return rows


def notes(record: Record) -> list[str]:
    """What a reader has to know before trusting the page: what was switched off or broke, what is missing."""
    debug, problems = table(record.job.get("debug")), record.job.get("problems")
    result = {
        f"The debugger did not work, the training went on without it: {debug.get('reason') or 'unknown'}":
            debug.get("state") == "failed",
        "The debugger was off (debug=off): no gradients, and no rule on tensors.": debug.get("state") == "off",
        "The profiler was off (profile-interval=0): nothing was measured of the machine.":
            number(record.job.get("profile_interval_ms")) == 0,
        **{str(problem): True for problem in (problems if isinstance(problems, list) else [])},
        str(problem := table(record.job.get("sampler")).get("problem")): bool(problem),
        **{
            f"The job did not run for {duration(seconds)} and was taken up again; the charts leave that out.": True
            for _, seconds in record.clock.breaks
        },
        "The frozen layers have random weights: the accuracies say nothing about real training.":
            str(record.metrics.get("weights")) == "none" and record.hyperparameters.get("freeze-until") != "none",
    }  # fmt: skip
    return [note for note, holds in result.items() if holds]
