"""The result file: what each step came to, written before and after it, so that a killed call leaves what it knew."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from container_train.paths import replace_file
from local_test.errors import reason
from local_test.text import table
from scripts.aws.errors import CloudError

JSON, TABLE = "result.json", "result.txt"
RUNNING, PASSED, FAILED, NOT_RUN = "running", "passed", "failed", "not run"


@dataclass
class Outcome:
    """`usd`: what it cost at most, by its time and the instances' prices; `seen`: what only an account can show."""

    step: str
    status: str
    usd: float = 0.0
    seconds: float = 0.0
    seen: dict[str, Any] = field(default_factory=dict)


@dataclass
class Record:
    """`removed`: nothing that the call made is left, as far as the project's tag and prefix can tell."""

    project: str
    region: str
    account: str
    begun: str
    max_usd: float
    bucket: str | None = None
    role: str | None = None  # that was given; otherwise the call makes one
    status: str = RUNNING
    removed: bool = False
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def usd(self) -> float:
        return sum(one.usd for one in self.outcomes)

    def save(self, folder: Path) -> None:
        replace_file(folder / JSON, (json.dumps(asdict(self), indent=2) + "\n").encode())
        replace_file(folder / TABLE, (self.text() + "\n").encode())

    def text(self) -> str:
        rows = [
            (
                one.step,
                one.status,
                f"{one.seconds:.0f}",
                f"{one.usd:.2f}",
                "; ".join(f"{key} {value}" for key, value in one.seen.items() if value not in (None, "", [])),
            )
            for one in self.outcomes
        ]
        left = "everything that it made is removed" if self.removed else "NOT EVERYTHING IS REMOVED: call this again"
        return (
            f"{self.status}: account {self.account}, {self.region}, project {self.project}, begun {self.begun}\n\n"
            f"{table(('step', 'status', 's', 'USD at most', 'what was seen'), rows)}\n\n"
            f"{self.usd:.2f} USD at most, of {self.max_usd:.2f}; {left}"
        )


def load(folder: Path) -> Record | None:
    """The record of the last call, if there is one. Raises CloudError where it cannot be read."""
    path = folder / JSON
    try:
        document = json.loads(path.read_bytes())
        outcomes = [Outcome(**one) for one in document.pop("outcomes")]
        return Record(**document, outcomes=outcomes)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CloudError(
            f"{path} cannot be read ({reason(error)}): remove it, and what `scripts/cleanup.py` lists"
        ) from None
