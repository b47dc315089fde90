"""How a local run ends early."""


class LocalError(Exception):
    """What went wrong, where, and what to do, in one line; `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Stopped(BaseException):
    """A signal asked the run to stop. Not an Exception, so that nothing swallows it on its way out."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.code = 128 + signum
