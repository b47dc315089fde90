"""The two ways in which a job ends early."""


class TrainError(Exception):
    """What is wrong, where, and what to do, in one line: it becomes the job's FailureReason."""


class Stopped(Exception):
    """The platform asked the job to stop (SIGTERM); the message says what was saved."""
