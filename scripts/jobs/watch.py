"""Following a training job: its statuses, its log, and the metrics in the log as they come."""

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from botocore.exceptions import BotoCoreError, ClientError

from container_train.training.metrics import DEFINITIONS
from scripts.aws import polling
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, code_of, explain, is_passing, one_line
from scripts.aws.polling import poll
from scripts.console.command import Interrupted, progress
from scripts.jobs import training_jobs
from scripts.jobs.training_jobs import Job

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
LAST_LINES = 20  # of a log that was long already when it was first looked at
LATE_LOOKS = 3  # at the log, after the job's end: lines arrive some seconds later

# What belongs to one epoch; the rest stands for the whole job.
EPOCH = (
    "epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "valid_macro_f1", "images_per_second",
)  # fmt: skip
_PATTERNS = [(definition["Name"], re.compile(definition["Regex"])) for definition in DEFINITIONS]


@dataclass
class Metrics:
    """Reads the metrics out of log lines, by the definitions that the service has too."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    final: dict[str, float] = field(default_factory=dict)  # those that stand for the whole job
    _open: dict[str, float] = field(default_factory=dict)

    def feed(self, line: str) -> list[str]:
        """Return the text to show for this line: itself, or a line for all metrics of an epoch once they are there."""
        found = {name: float(match[1]) for name, pattern in _PATTERNS if (match := pattern.search(line))}
        shown: list[str] = []
        of_epoch = {name: value for name, value in found.items() if name in EPOCH}
        if of_epoch:
            if "epoch" in of_epoch and "epoch" in self._open:
                shown += self.flush()
            self._open |= of_epoch
            if set(EPOCH) <= set(self._open):
                shown += self.flush()
        else:
            shown += self.flush()
        self.final |= {name: value for name, value in found.items() if name not in EPOCH}
        if not of_epoch and line.strip():
            shown.append(line.rstrip())
        return shown

    def flush(self) -> list[str]:
        if not self._open:
            return []
        record, self._open = self._open, {}
        self.epochs.append(record)
        number = f"epoch {record['epoch']:.0f}" if "epoch" in record else "epoch"
        values = (f"{name} {value:.4g}" for name, value in record.items() if name != "epoch")
        return [f"{number}: {', '.join(values)}"]

    def kept(self) -> dict[str, float]:
        """The epoch whose weights are the job's result: by validation accuracy the best. Empty without any."""
        rated = [epoch for epoch in self.epochs if not math.isnan(epoch.get("valid_accuracy", math.nan))]
        best = max(rated, key=lambda epoch: (epoch["valid_accuracy"], -epoch.get("valid_loss", 0.0)), default={})
        # The program's own word, where it is in the log.
        return next((epoch for epoch in self.epochs if epoch.get("epoch") == self.final.get("best_epoch")), best)

    def summary(self) -> dict[str, float]:
        """The kept epoch, and what stands for the whole job."""
        own = self.kept()
        names = ("epoch", "train_accuracy", "valid_accuracy", "valid_loss")
        return {
            **{("best_epoch" if name == "epoch" else name): own[name] for name in names if name in own},
            **self.final,
        }


class ToolkitLogFilter:
    """Leaves out what the training toolkit says of itself before the program begins: a page, most of it twice."""

    LONGEST = 300  # lines; whatever comes after is shown in any case

    def __init__(self) -> None:
        self._left = 0

    def keeps(self, line: str) -> bool:
        text = line.strip()
        if self._left:
            is_error = text.startswith("Traceback") or "ERROR" in text
            self._left = 0 if is_error else self._left - 1
            if text == "Invoking script with the following command:":
                self._left = 2  # an empty line, and the command
            return is_error
        if text == "Training Env:":
            self._left = self.LONGEST
            return False
        return "sagemaker-training-toolkit INFO" not in text and text != "Returning the value itself"


class Log:
    """A job's log in CloudWatch. It is not there while the instances are prepared: that is no error."""

    def __init__(self, aws: Aws, name: str) -> None:
        self.client = aws.client("logs")
        self.prefix = f"{name}/"
        self.tokens: dict[str, str] = {}

    def new(self) -> Iterator[str]:
        """The lines that came since the last call, stream by stream (a stream is a host, or a restart)."""
        for stream in self._streams():
            while True:
                token = self.tokens.get(stream)
                page = self.client.get_log_events(
                    logGroupName=LOG_GROUP,
                    logStreamName=stream,
                    startFromHead=True,
                    **({"nextToken": token} if token else {}),
                )
                for event in page["events"]:
                    yield from str(event["message"]).splitlines()
                self.tokens[stream] = page["nextForwardToken"]
                # The end is where the token stays the same; a page may be empty before.
                if page["nextForwardToken"] == token:
                    break

    def _streams(self) -> list[str]:
        try:
            pages = self.client.get_paginator("describe_log_streams").paginate(
                logGroupName=LOG_GROUP, logStreamNamePrefix=self.prefix
            )
            return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]
        except ClientError as error:
            if code_of(error) == "ResourceNotFoundException":
                return []
            raise


class _Follower:
    def __init__(self, aws: Aws, name: str, say: Callable[[str], None]) -> None:
        self.aws, self.name, self.say = aws, name, say
        self.metrics = Metrics()
        self.filter = ToolkitLogFilter()
        self.log: Log | None = Log(aws, name)
        self.known: list[tuple[str, str]] = []
        self.first = True

    def look(self) -> Job:
        job = training_jobs.describe(self.aws, self.name)
        for index, step in enumerate(job.transitions):
            now = (step["Status"], one_line(step.get("StatusMessage", "")))
            if self.known[index : index + 1] != [now]:
                self.known[index : index + 1] = [now]
                at = step["StartTime"].astimezone().strftime("%H:%M:%S") if "StartTime" in step else "--:--:--"
                self.say(f"{at} {now[0]}{f': {now[1]}' if now[1] else ''}")
        self.read_log()
        return job

    def read_log(self) -> bool:
        """Show what is new in it, and return whether anything was. The job can be followed without it."""
        shown: list[str] = []
        some = False
        try:
            for line in self.log.new() if self.log else ():
                some = True
                if self.filter.keeps(line):
                    shown += self.metrics.feed(line)
        except (ClientError, BotoCoreError) as error:
            if not is_passing(error):
                self.log = None
                self.say(f"the log cannot be read: {explain(error)}")
        if self.first and len(shown) > LAST_LINES:
            self.say(f"({len(shown) - LAST_LINES} lines before these are in CloudWatch, {LOG_GROUP})")
            shown = shown[-LAST_LINES:]
        self.first = self.first and not shown
        for line in shown:
            self.say(f"  {line}")
        return some


def follow(aws: Aws, name: str, say: Callable[[str], None] = progress) -> tuple[Job, Metrics]:
    """Until the job has ended. Ctrl-C raises Interrupted, and leaves the job running.

    So does an error that stays, as CloudError, and any error of the very first look: the way there is wrong.
    """
    follower = _Follower(aws, name, say)
    with leaving_it_running(name, aws.region, "job"):
        job = poll(follower.look, lambda job: not job.in_progress, say=say, untouched="the job")
        for _ in range(LATE_LOOKS):
            time.sleep(polling.POLL_SECONDS)
            if not follower.read_log():
                break
    for line in follower.metrics.flush():
        say(f"  {line}")
    return job, follower.metrics


@contextmanager
def leaving_it_running(name: str, region: str, what: str, program: str = "train.py") -> Iterator[None]:
    """Say of a job or search that is followed no more how to re-attach to it."""
    try:
        yield
    except KeyboardInterrupt:
        ways = f"re-attach with: {attach(name, region, program)}; stop it with: {stop(name, region, program)}"
        raise Interrupted(f"interrupted; the {what} is still running and billed; {ways}") from None
    except (ClientError, BotoCoreError) as error:
        again = attach(name, region, program)
        raise CloudError(f"{explain(error)}; after that: {again} (no {what} is stopped by this)") from None


def attach(name: str, region: str, program: str = "train.py") -> str:
    return f"scripts/{program} --attach {name} --region {region}"


def stop(name: str, region: str, program: str = "train.py") -> str:
    return f"scripts/{program} --stop {name} --region {region}"
