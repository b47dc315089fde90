"""The reasons for which a job ends early."""

LOST_PEER = 75  # exit code of a process whose peer is lost: EX_TEMPFAIL of sysexits.h
STOPPED = 143  # 128 + SIGTERM, as a shell would say it


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
