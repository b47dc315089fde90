"""How a job of several processes ends, from how each of them ended."""

import time
from dataclasses import dataclass, field

PEER_LOST = 75  # a process's exit code where another's end ended it; 75: EX_TEMPFAIL of sysexits.h
STOPPED = 143  # 128 + SIGTERM, as a shell would say it
REASON_SECONDS = 10.0  # that the process whose end ended others has to say why
SAVING_SECONDS = 100.0  # of the 120 between SIGTERM and SIGKILL


@dataclass(frozen=True)
class Verdict:
    """The exit code of all hosts, and the line for their failure files; 0 and nothing where all is well."""

    code: int
    line: str = ""


@dataclass
class Jury:
    """Hears how each of `size` processes ended, and decides."""

    size: int
    stopping: float | None = None  # when the platform asked for the end
    ends: dict[int, Verdict] = field(default_factory=dict)
    first_loss: float | None = None

    def hear(self, rank: int, code: int, line: str) -> None:
        """A process has ended so. The first word of each counts."""
        self.ends.setdefault(rank, Verdict(code, line))
        if code == PEER_LOST and self.first_loss is None:
            self.first_loss = time.monotonic()

    def stop(self) -> bool:
        """The platform has asked for the end; False where it had done so before."""
        if self.stopping is not None:
            return False
        self.stopping = time.monotonic()
        return True

    def decide(self) -> Verdict | None:
        """None while the job goes on."""
        failed = [end for _, end in sorted(self.ends.items()) if end.code not in (0, PEER_LOST, STOPPED)]
        if failed:
            return failed[0]
        now, ended = time.monotonic(), len(self.ends) == self.size
        stopped = [end for _, end in sorted(self.ends.items()) if end.code == STOPPED]
        if stopped or self.stopping is not None:
            # The first process writes the checkpoint: its word is the one to wait for.
            since = self.stopping or now
            if 0 in self.ends and self.ends[0].code == STOPPED:
                return self.ends[0]
            if ended and all(end.code == 0 for end in self.ends.values()):
                return Verdict(0)
            if ended or now - since > SAVING_SECONDS:
                return (
                    stopped[0] if stopped else Verdict(STOPPED, "stopped; nothing was saved since the last checkpoint")
                )
            if stopped and self.stopping is None:
                self.stopping = now
            return None
        lost = [end for end in self.ends.values() if end.code == PEER_LOST]
        if lost and (ended or now - (self.first_loss or now) > REASON_SECONDS):
            return Verdict(1, lost[0].line)
        return Verdict(0) if ended else None
