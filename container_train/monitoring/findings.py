"""Findings of rules: the common form of the debugger's and the profiler's, and the parameters users give."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from container_train.errors import TrainError, did_you_mean
from container_train.hyperparameters import read_number
from container_train.reporting.words import count

log = logging.getLogger(__name__)

Kind = Literal["debugger", "profiler"]
Status = Literal["ok", "fired", "not_applicable", "waiting", "error"]
"""`waiting`: too little was seen so far; at the end of a job it becomes `not_applicable`."""
Severity = Literal["information", "warning", "problem"]
"""Of a rule that fired: a `problem` makes the training useless, a `warning` costs accuracy or time, an `information`
is worth knowing and often normal."""
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "information")
Parameters = Mapping[str, Any]
MODES = ("", "TRAIN", "EVAL")
AT_LEAST_1 = ("window", "scan_interval_us")  # distances between two looks of a rule


@dataclass(frozen=True)
class Evidence:
    """One time that a rule fired. `threshold` is what `value` was compared with, in the same unit."""

    value: float
    threshold: float
    step: int | None = None
    mode: str | None = None
    tensor: str | None = None
    time: float | None = None  # seconds since 1970, where there is no step


Hit = tuple[str, Evidence]  # the reason, and one time that a rule fired


@dataclass(frozen=True)
class Finding:
    """The state of one rule. `reason` is one sentence, `advice` what one usually does about it."""

    rule: str
    kind: Kind
    status: Status
    reason: str
    advice: str = ""
    parameters: Parameters = field(default_factory=dict)
    checked: int = 0
    fired: int = 0
    first: Evidence | None = None
    last: Evidence | None = None
    severity: Severity | None = None  # None: it did not fire


Judge = Callable[[Any, Parameters], Finding]


@dataclass(frozen=True)
class Rule:
    """`judge` gets all that is known of a job and the parameters; `evaluate` adds to its Finding what is the same.

    `severity` is that of a finding which brings none of its own.
    """

    judge: Judge
    defaults: Parameters
    advice: str = ""
    severity: Severity = "warning"


def found(status: Status, reason: str, checked: int = 0, **more: Any) -> Finding:
    """Return what a rule has found, to which `evaluate` adds the rest."""
    return Finding("", "profiler", status, reason, checked=checked, **more)


def judged(hits: Sequence[Hit], checked: int, healthy: str) -> Finding:
    """Fired for the reason of the first of the `hits`; without any ok, and then `healthy`."""
    if not hits:
        return found("ok", healthy, checked)
    return found("fired", hits[0][0], checked, fired=len(hits), first=hits[0][1], last=hits[-1][1])


def evaluate(
    rules: Mapping[str, Rule], kind: Kind, context: Any, parameters: Mapping[str, Parameters], *, final: bool
) -> list[Finding]:
    """Return the findings of all rules on `context`; `parameters` {rule: {parameter: value}} over their defaults.

    `final`: the job is over, and nothing is waited for. Never raises: a rule that fails says `error`.
    """
    findings = []
    for name, rule in rules.items():
        chosen = {**rule.defaults, **parameters.get(name, {})}
        try:
            finding = rule.judge(context, chosen)
        except Exception as error:  # one rule's mistake is not to hide what the others say
            finding = found("error", f"the rule failed: {type(error).__name__}: {error}".splitlines()[0])
            log.debug("rule %s", name, exc_info=True)
        if final and finding.status == "waiting":
            finding = replace(finding, status="not_applicable")
        advice, severity = (rule.advice, finding.severity or rule.severity) if finding.status == "fired" else ("", None)
        findings.append(replace(finding, rule=name, kind=kind, parameters=chosen, advice=advice, severity=severity))
    return findings


def counted(severities: Iterable[str | None]) -> str:
    """Return `2 problems, 1 warning, 1 information` of the rules that fired, `nothing` if none did."""
    numbers = Counter(severity or "warning" for severity in severities)  # older files have none
    words = (f"{numbers[s]} {s}" if s == "information" else count(numbers[s], s) for s in SEVERITIES if numbers[s])
    return ", ".join(words) or "nothing"


def from_json(row: Mapping[str, Any]) -> Finding:
    """A Finding as rules.json holds it. Raises TypeError for a row that is none."""
    evidence = {key: Evidence(**row[key]) if row.get(key) else None for key in ("first", "last")}
    return Finding(**{**row, **evidence})


def parse_parameters(text: str, known: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """`vanishing_gradient:threshold=1e-6,patience=2;overfit:...` -> {rule: {parameter: value}}.

    `known` are the rules with their parameters' defaults, whose types the values take; a text is one of MODES. `none`
    and "" give {}. Raises TrainError naming the rule or parameter and those that exist.
    """
    result: dict[str, dict[str, Any]] = {}
    for part in text.split(";") if text not in ("", "none") else []:
        name, _, assignments = part.strip().partition(":")
        if name not in known:
            hint = did_you_mean(name, known, "docs/debugger.md lists all rules")
            raise TrainError(f"hyperparameter rule: unknown rule {name!r}: {hint}")
        values = result.setdefault(name, {})
        for assignment in filter(None, (word.strip() for word in assignments.split(","))):
            key, _, value = assignment.partition("=")
            if key not in known[name]:
                have = ", ".join(known[name]) or "none"
                raise TrainError(f"hyperparameter rule: {name} has no parameter {key!r}: it has {have}")
            default, least = known[name][key], int(key in AT_LEAST_1)
            kind = type(default)
            expected = {str: "TRAIN or EVAL", int: f"an integer of at least {least}, such as {default}"}
            try:
                values[key] = value.upper() if kind is str else read_number(value, kind)
                if values[key] not in MODES if kind is str else kind is int and values[key] < least:
                    raise ValueError
            except ValueError:
                raise TrainError(
                    f"hyperparameter rule: {name}:{key} has value {value!r}: expected"
                    f" {expected.get(kind, f'a number, such as {default}')}"
                ) from None
    return result
