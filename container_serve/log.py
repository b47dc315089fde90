"""One format for all lines of the log, those of the Java server included."""

import logging
import sys
import time

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"
DATE_FORMAT = "%Y-%m-%dT%H:%M:%S"


def log4j_pattern(level: int) -> str:
    """The same for log4j: one line per record, with the traceback only for those who want details."""
    error = "%xEx{separator( | )}" if level <= logging.DEBUG else "%throwable{short.message}"
    return (
        "%d{yyyy-MM-dd'T'HH:mm:ss.SSS}{UTC}Z %level{WARN=WARNING, FATAL=CRITICAL} %c{1}:"
        f" %replace{{%enc{{%m}}{{CRLF}} {error}}}{{\\s+$}}{{}}%n"
    )


class OneLine(logging.Formatter):
    """A record is one line, with its traceback: log services make a record of every line."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        return " | ".join(super().format(record).splitlines())


def _is_news(record: logging.LogRecord) -> bool:
    """Not so a worker whose connection the front end has closed, to end it: multi-model-server calls that a death."""
    error = record.exc_info[1] if record.exc_info else None
    closed = isinstance(error, ConnectionError) or str(error) == "Frontend disconnected"
    return not (record.name == "root" and closed) and record.getMessage() != "Frontend disconnected."


def configure(level: int) -> None:
    """Send everything to standard output; standard error is for the one line that says why the program ended."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(OneLine(FORMAT, DATE_FORMAT))
    handler.addFilter(_is_news)
    logging.basicConfig(level=level, handlers=[handler], force=True)
