"""Times at which the bounds of autoscaling change, checked before the service is asked."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from scripts.aws.errors import CloudError

# As Application Auto Scaling takes them; cron has six fields.
_RATE = r"rate\((?:1 (?:minute|hour|day)|(?!1 )[1-9]\d* (?:minute|hour|day)s)\)"
_SCHEDULE = re.compile(rf"(cron\(\S+(?: \S+){{5}}\)|{_RATE}|at\([^()]+\))=(\d+),(\d+)")
# Of each field of cron: its values, what else may stand there, and both in words.
_DAYS, _MONTHS = "SUN|MON|TUE|WED|THU|FRI|SAT", "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_FIELDS = {
    "MINUTE": (r"[0-5]?\d", "", "0 to 59"),
    "HOUR": (r"[01]?\d|2[0-3]", "", "0 to 23"),
    "DAY": (r"0?[1-9]|[12]\d|3[01]", r"|\?|L|LW|L-\d+|\d+W", "1 to 31, or L for the last one"),
    "MONTH": (rf"0?[1-9]|1[0-2]|{_MONTHS}", "", "1 to 12, or JAN to DEC"),
    "WEEKDAY": (rf"[1-7]|{_DAYS}", rf"|\?|(?:[1-7]|{_DAYS})?L|(?:[1-7]|{_DAYS})#[1-5]", "1 to 7, or SUN to SAT"),
    "YEAR": (r"19[7-9]\d|2[01]\d\d", "", "1970 to 2199"),
}


@dataclass(frozen=True)
class Schedule:
    """From `when` on, an expression in `timezone` (None: UTC), the bounds in instances are these."""

    when: str
    least: int
    most: int
    timezone: str | None

    def action(self, number: int) -> dict[str, Any]:
        """Return the fields of PutScheduledAction, all but the target's."""
        return {
            "ScheduledActionName": f"byoc-schedule-{number}",
            "Schedule": self.when,
            "ScalableTargetAction": {"MinCapacity": self.least, "MaxCapacity": self.most},
            **({"Timezone": self.timezone} if self.timezone else {}),
        }


def parse(texts: Sequence[str], timezone: str | None) -> tuple[Schedule, ...]:
    """Return the schedules of the flags. Raises CloudError for one that the service would refuse, or replace."""
    if timezone and timezone not in available_timezones():
        raise CloudError(f"--timezone {timezone}: there is no such time zone: give one such as Europe/Berlin", 2)
    schedules = tuple(_parsed(text, timezone) for text in texts)
    times = [one.when for one in schedules]
    if twice := [when for when in times if times.count(when) > 1]:
        raise CloudError(f"--schedule {twice[0]!r} is given twice: give its bounds once", 2)
    return schedules


def _wrong(when: str, timezone: str | None) -> str:
    """Return what is wrong with an expression, empty if nothing is: the service would only say that something is."""
    kind, _, content = when[:-1].partition("(")
    if kind == "at":
        try:
            time = datetime.strptime(content, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=ZoneInfo(timezone or "UTC"))
        except ValueError:
            return "expected at(YYYY-MM-DDThh:mm:ss)"
        return "that is in the past" if time < datetime.now(UTC) else ""
    if kind == "rate":
        return ""
    fields = content.split(" ")
    for (name, (value, special, words)), field in zip(_FIELDS.items(), fields, strict=True):
        item = rf"(?:(?:\*|(?:{value})(?:-(?:{value}))?)(?:/[1-9]\d*)?{special})"
        if not re.fullmatch(f"{item}(?:,{item})*", field, re.IGNORECASE):
            return f"{name} has value {field!r}: expected {words}"
        if any(int(low) > int(high) for low, high in re.findall(r"(\d+)-(\d+)", field)):
            return f"{name} has value {field!r}: a range goes from the lower to the higher number"
    one = [fields[2], fields[4]].count("?") == 1
    return "" if one else "one of DAY and WEEKDAY has to be ?, and the other one not"


def _parsed(text: str, timezone: str | None) -> Schedule:
    found = _SCHEDULE.fullmatch(text)
    if not found:
        form = "'cron(MINUTE HOUR DAY MONTH WEEKDAY YEAR)=MIN,MAX', rate(1 hour), rate(2 hours) or at(...) in its place"
        raise CloudError(f"--schedule has value {text!r}: expected {form}", 2)
    if wrong := _wrong(found[1], timezone):
        raise CloudError(f"--schedule {text!r}: {wrong}", 2)
    return Schedule(found[1], int(found[2]), int(found[3]), timezone)
