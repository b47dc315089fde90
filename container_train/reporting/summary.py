"""The words and figures of a report: how the job stands, what is wrong, what to do first, where the time went."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from container_train.monitoring.findings import Evidence, Finding
from container_train.profiler.store import Phase
from container_train.reporting.measures import MEASURES, best_epoch, images_of
from container_train.reporting.record import TERMINAL, Record, number, table
from container_train.reporting.words import clock_time, duration, figure, title
from container_train.training.metrics import interval_words

# First what makes a training useless, then what makes it worse, then what makes it slow.
URGENCY = (
    "exploding_tensor", "vanishing_gradient", "poor_weight_initialization", "loss_not_decreasing", "dead_relu",
    "overtraining", "overfit", "class_imbalance", "dataloader", "io_bottleneck", "cpu_bottleneck",
    "low_gpu_utilization", "batch_size", "gpu_memory_increase", "load_balancing",
)  # fmt: skip
STATES = {  # of a rule, its severity if it fired, else its status: (word, icon); the worst first
    "problem": ("problem", "alert"),
    "warning": ("warning", "alert"),
    "information": ("information", "info"),
    "error": ("failed itself", "cross"),
    "waiting": ("too early", "dots"),
    "ok": ("ok", "check"),
    "not_applicable": ("not applicable", "dash"),
}
GRAVE = ("problem", "warning")
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


def state(record: Record, now: float) -> State:
    """Return how the job stands. One that says "running", and from which nothing more will come, was killed."""
    status, reason = str(record.job.get("status", "")), str(record.job.get("reason") or "")
    lasted = duration(record.clock.length)
    if record.service:
        return State("Profiled", "dash", "plain", f"By the service's profiler: {lasted} of it.")
    # With neither debugger nor profiler there is only what a training writes at its end.
    if status == "completed" or (record.metrics and not record.job):
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


def found(rules: Sequence[Finding]) -> list[dict[str, Any]]:
    """The rules as the pages show them, the worst first, of these the most urgent. Older files have no severity."""
    rows, urgency = [], {name: place for place, name in enumerate(URGENCY)}
    for rule in rules:
        state = (rule.severity or "warning") if rule.status == "fired" else rule.status
        word, icon = STATES[state]
        rows.append(
            {
                **vars(rule),
                "state": state,
                "grave": state in GRAVE,
                "anchor": "rule-" + "".join(c if c.isalnum() else "-" for c in rule.rule),
                "title": title(rule.rule),
                "about": "training" if rule.kind == "debugger" else "machine",
                "word": word,
                "icon": icon,
                "order": (list(STATES).index(state), urgency.get(rule.rule, len(URGENCY)), rule.rule),
            }
        )
    return sorted(rows, key=lambda row: row["order"])


def findings(record: Record) -> list[dict[str, Any]]:
    """`found`, with the first and the last time that each rule fired."""
    rows = found(record.rules)
    for row in rows:
        row["evidence"] = [(key, _evidence(record, row[key])) for key in ("first", "last") if row[key]]
    return rows


def marks(record: Record) -> list[tuple[float, str]]:
    """(steps that were done when it first fired, title) of the debugger's rules.

    An evaluation's step is the number of training steps before it, a training step counts from 0.
    """
    fired = [(rule.first, rule) for rule in record.rules if rule.kind == "debugger" and rule.status == "fired"]
    return [(e.step + (e.mode == "TRAIN"), title(rule.rule)) for e, rule in fired if e and e.step is not None]


def _evidence(record: Record, evidence: Evidence) -> dict[str, str]:
    """One time that a rule fired, in words."""
    after = None if evidence.time is None else f"{duration(float(record.clock([evidence.time])[0]))} after the start"
    words = {
        "step": evidence.step,
        "mode": evidence.mode,
        "time": after,
        "tensor": evidence.tensor,
        "value": figure(number(evidence.value)),
        "threshold": figure(number(evidence.threshold)),
    }
    return {key: str(value) for key, value in words.items() if value is not None}


def cards(record: Record) -> list[tuple[str, str]]:
    """(figure, what it is) of what one asks first; what is not known is left out."""
    under_way = str(record.job.get("status", "")) not in TERMINAL and not record.final and not record.service
    asked, rows = record.epochs_asked, []
    for label, measure in MEASURES.items():
        value, words = measure.of(record), label
        shown = measure.words(value)
        if label == "time from start to end":
            words = "so far" if under_way else "from start to end"
        elif label == "epochs":
            shown, words = (f"{shown} of {asked}" if asked else shown), "epochs done"
        elif label.startswith("best"):
            words += f", epoch {best_epoch(record).get('epoch')}"
        if images := images_of(record, label):
            words += f"; 95 % interval {interval_words(value, images)}"
        # The problems have a box of their own.
        if math.isfinite(value) and (value or asked or label != "epochs") and label != "problems and warnings":
            rows.append((shown, words))
    return rows


def shares(record: Record) -> list[Share]:
    """Return the rows of "where the time went", each second once, the parts of the training steps below them."""
    length = record.clock.length
    if not length:
        return []
    seconds = leaves(record.phases)
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


def leaves(phases: list[Phase]) -> dict[str, float]:
    """Seconds that each phase had for itself, without the phases within it."""
    seconds: dict[str, float] = {}
    edges = sorted({edge for phase in phases for edge in (phase.start, phase.end)})
    nested = sorted(phases, key=lambda phase: (phase.start, -phase.end))
    index, under_way = 0, list[Phase]()
    for edge, following in itertools.pairwise(edges):
        while index < len(nested) and nested[index].start <= edge:
            under_way.append(nested[index])
            index += 1
        under_way = [phase for phase in under_way if phase.end > edge]
        if under_way:  # the one that began last is the innermost
            name = under_way[-1].name
            seconds[name] = seconds.get(name, 0.0) + following - edge
    return seconds


def notes(record: Record) -> list[str]:
    """Return what a reader has to know before trusting the page: what was switched off or broke, what is missing."""
    debug = table(record.job.get("debug"))
    state, reason = debug.get("state"), debug.get("reason")
    result = {
        str(record.metrics.get("chance")): bool(record.metrics.get("chance")),
        f"The debugger did not work, the training continued without it: {reason or 'unknown'}": state == "failed",
        f"The debugger: {reason}": state == "on" and bool(reason),
        "The debugger was off (debug=off): no gradients, and no rule on tensors.": state == "off",
        "The profiler was off (profile-interval=0): nothing was measured of the machine.":
            number(record.job.get("profile_interval_ms")) == 0,
        **dict.fromkeys(record.problems, True),
        "The frozen layers have random weights: the accuracies say nothing about real training.":
            str(record.metrics.get("weights")) == "none" and record.hyperparameters.get("freeze-until") != "none",
    }  # fmt: skip
    return [note for note, holds in result.items() if holds]
