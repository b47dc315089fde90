"""One format for all lines of the log, those of the Java server included (log4j2.properties)."""

import logging
import sys
import time

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"
DATE_FORMAT = "%Y-%m-%dT%H:%M:%S"


class OneLine(logging.Formatter):
    """A record is one line, with its traceback: log services make a record of every line."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        return " | ".join(super().format(record).splitlines())


def configure(level: int) -> None:
    """Send everything to standard output; standard error is for the one line that says why the program ended."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(OneLine(FORMAT, DATE_FORMAT))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def log4j_options(level: int) -> list[str]:
    """The system properties that log4j2.properties reads: levels, and tracebacks at the level DEBUG only."""
    names = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warn", logging.ERROR: "error"}
    own = next((name for limit, name in names.items() if level <= limit), "fatal")
    server = "warn" if own == "info" else own
    error = "%xEx{separator( | )}" if own == "debug" else "%throwable{short.message}"
    return [f"-Dbyoc.log.own={own}", f"-Dbyoc.log.server={server}", f"-Dbyoc.log.error={error}"]
