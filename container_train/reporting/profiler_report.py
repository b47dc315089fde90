"""profiler-report.html: how a job does, what is wrong with it, what to do first, and where its time goes.

Written again and again while the job runs, so that a job that is killed leaves the one before; torch is not needed.
"""

import time
from pathlib import Path

from container_train.monitoring.findings import counted
from container_train.paths import replace_file
from container_train.reporting import page, summary
from container_train.reporting.learning_charts import learning
from container_train.reporting.record import Record, number, read, settings, table
from container_train.reporting.time_charts import of_steps, over_time
from container_train.reporting.words import clock_time, count, figure, size

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
    changed, same = settings(record.hyperparameters)
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
        facts=_facts(record),
        changed=changed,
        defaults=same,
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


def _facts(record: Record) -> list[tuple[str, str]]:
    """(what, value) of the job and its machine; what is not known is left out."""
    job = record.job
    images, versions = (table(job.get(key)) for key in ("images", "versions"))
    gpus, hosts = (value if isinstance(value := job.get(key), list) else [] for key in ("gpus", "hosts"))
    debug = table(job.get("debug"))
    values = (job.get("ended"), job.get("profile_interval_ms"), debug.get("interval"))
    ended, interval, every = map(number, values)
    rows = {
        "Started": clock_time(record.clock.start) if record.clock.start else "",
        "Ended": clock_time(ended) if ended > 0 else "",
        "Image": job.get("image"),
        "Host": f"{job.get('host', '')} of {len(hosts)}" if len(hosts) > 1 else job.get("host"),
        "Device": job.get("device"),
        "GPUs": ", ".join(map(str, gpus)),
        "CPUs that it may use": figure(number(job.get("cpus"))),
        "Memory that it may use": size(number(job.get("memory_bytes"))),
        "Classes": job.get("classes"),
        "Images": ", ".join(f"{split} {value}" for split, value in images.items()),
        "Versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
        "Steps per epoch": f"{record.steps_per_epoch:.0f}" if record.steps_per_epoch >= 1 else "",
        "Tensors saved": f"every {every:.0f} steps of {debug.get('trained', '')}" if every > 0 else "",
        "Machine measured": f"every {interval:.0f} ms" if interval > 0 else "",
    }
    return [(key, str(value)) for key, value in rows.items() if value not in (None, "", "unknown")]
