"""The reasons for which a job ends early."""

from collections.abc import Iterable
from difflib import get_close_matches

LOST_PEER = 75  # exit code of a process whose peer is lost: EX_TEMPFAIL of sysexits.h
STOPPED = 143  # 128 + SIGTERM, as a shell would say it


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return `did you mean NAME?` for the closest of `known`; `otherwise` if none is close."""
    close = get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}?" if close else otherwise


class TrainError(Exception):
    """An error with a one-line message (what is wrong, where, what to do), which becomes the job's FailureReason."""


class DataError(TrainError):
    """A folder of images that cannot be used: the reason, the place and the remedy in one line."""


class CollectiveError(Exception):
    """Another process of the job is gone or hangs; the reason is known to that process, or to its host."""


class Stopped(BaseException):
    """The platform asked the job to stop (SIGTERM); the message says what was saved.

    Like KeyboardInterrupt no Exception: libraries, such as NNCF, catch those. See StopFlag.at_once.
    """
