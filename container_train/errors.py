"""The ways in which a job ends early."""


class TrainError(Exception):
    """What is wrong, where, and what to do, in one line: it becomes the job's FailureReason."""


class DataError(TrainError):
    """A folder of images that cannot be used: the reason, the place and the remedy in one line."""


class PeerLost(Exception):
    """Another process of the job is gone; what it went of, it says itself, or who started it."""


class Stopped(BaseException):
    """The platform asked the job to stop (SIGTERM); the message says what was saved.

    Like KeyboardInterrupt none of what code catches that does not know it, NNCF's for instance: see StopFlag.at_once.
    """
