"""The ways in which a job ends early."""

LOST_PEER = 75  # exit code of a process whose peer is lost: EX_TEMPFAIL of sysexits.h
STOPPED = 143  # 128 + SIGTERM, as a shell would say it


class TrainError(Exception):
    """What is wrong, where, and what to do, in one line: it becomes the job's FailureReason."""


class DataError(TrainError):
    """A folder of images that cannot be used: the reason, the place and the remedy in one line."""


class CollectiveError(Exception):
    """Another process of the job is gone or hangs; the reason is known to that process, or to its host."""


class Stopped(BaseException):
    """The platform asked the job to stop (SIGTERM); the message says what was saved.

    Like KeyboardInterrupt none of what code catches that does not know it, NNCF's for instance: see StopFlag.at_once.
    """
