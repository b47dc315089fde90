"""profiler-report.html: how a job does, what is wrong with it, what to do first, and where its time goes.

Written again and again while the job runs, so that a job that is killed leaves the one before; torch is not needed.
"""

import time
from pathlib import Path

from container_train.monitoring.findings import counted
from container_train.paths import replace_file
from container_train.reporting import page, summary
from container_train.reporting.facts import facts, settings
from container_train.reporting.learning_charts import learning
from container_train.reporting.record import Record, number, read, table
from container_train.reporting.step_charts import of_steps
from container_train.reporting.time_charts import over_time
from container_train.reporting.words import clock_time, count

NAME = "profiler-report.html"


def write(out: Path) -> Path:
    """Write the report of the job whose output folder is `out` into it, and return its path."""
    out.mkdir(parents=True, exist_ok=True)
    target = out / NAME
    replace_file(target, render(read(out)).encode())
    return target


def render(record: Record) -> str:
    """The page, as of now."""
    now = time.time()
    findings = summary.findings(record)
    found = [row for row in findings if row["status"] == "fired"]
    drawn = learning(record, summary.marks(record)) | of_steps(record.steps) | over_time(record)
    return page.render(
        "profiler-report.html.jinja",
        {name: chart.plot for name, chart in drawn.items()},
        charts=drawn,
        zero=clock_time(record.clock.start),
        name=record.name,
        about=_about(record),
        state=summary.state(record, now),
        made=clock_time(now),
        notes=summary.notes(record),
        cards=summary.cards(record),
        findings=findings,
        found=found,
        counted=counted(row["severity"] for row in found if row["grave"]),
        counts={state: number for state in summary.STATES if (number := sum(r["state"] == state for r in findings))},
        words=summary.STATES,
        shares=summary.shares(record),
        facts=facts(record),
        changed=settings(record.hyperparameters)[0],
        defaults=settings(record.hyperparameters)[1],
        cuda="cuda" in str(record.job.get("device", "")),
        traces=sorted(path.name for path in (record.out / "profiler").glob("*trace*.json*")),
    )


def _about(record: Record) -> str:
    """Return what was trained on what, and when, in a line; what is not known is left out."""
    images, started = table(record.job.get("images")), record.clock.start
    parts = (
        record.hyperparameters.get("arch", ""),
        count(number(record.job.get("classes")), "class"),
        count(sum(map(number, images.values())), "image") if images else "",
        f"started {clock_time(started)}" if started else "",
    )
    return ", ".join(part for part in parts if part and part != "unknown")
