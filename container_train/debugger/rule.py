"""The base class of the debugger's rules.

Their definitions are those of https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html; a rule's
docstring says what was chosen where that leaves something open.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from container_train.debugger import KNOWN
from container_train.debugger.saved_steps import Step
from container_train.monitoring.findings import Evidence, Finding


class Rule:
    """Sees every saved step once, in order, and keeps what it needs of it."""

    name: ClassVar[str]
    advice: ClassVar[str]
    missing: str
    """Why nothing was judged; what stands in braces are the rule's own attributes."""
    healthy: str
    """What was looked at, where nothing was found."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = {**KNOWN[self.name], **parameters}
        self.checked = self.fired = 0
        self.first: Evidence | None = None
        self.last: Evidence | None = None
        self.reason = self.nothing = self.failed = ""

    def learn(self, job: Mapping[str, Any]) -> None:
        """Take job.json as it is now; some of it is not known at the start."""

    def see(self, step: Step) -> None:
        """Look at a saved step."""
        raise NotImplementedError

    def conclude(self) -> None:
        """The training is over: judge what is still open."""

    def fire(
        self, reason: str, value: float, threshold: float, step: int | None, mode: str, tensor: str = "loss"
    ) -> None:
        """Note that the rule fired; `reason` of the first time stays."""
        self.fired += 1
        self.reason = self.reason or reason
        self.last = Evidence(value, threshold, step, mode, tensor)
        self.first = self.first or self.last

    def finding(self, final: bool) -> Finding:
        result = Finding(
            self.name, "debugger", "ok", "", "", self.parameters, self.checked, self.fired, self.first, self.last
        )
        if self.failed:
            result.status, result.reason = "error", self.failed
        elif self.fired:
            result.status, result.reason, result.advice = "fired", self.reason, self.advice
        elif self.nothing:
            result.status, result.reason = "not_applicable", self.nothing
        elif self.checked:
            result.reason = self.healthy.format(**vars(self))
        else:
            result.status, result.reason = "not_applicable" if final else "waiting", self.missing.format(**vars(self))
        return result


def number(value: float) -> str:
    """As people read it: 0.0012, 3.4e-09, 1.2e+05."""
    return f"{value:.3g}"
