"""report.py --captured: captured requests as a table for the terminal and a page of one file."""

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bokeh.models import NumeralTickFormatter

from container_serve import scratch
from container_train.paths import replace_file
from container_train.reporting import page
from container_train.reporting.drawing import TRAIN, VALID, Chart, Key, blank, line, span
from container_train.reporting.words import count, share, size
from container_train.training.metrics import interval_words
from local_test import text
from local_test.errors import reason
from scripts.aws import settings
from scripts.aws.errors import CloudError
from scripts.console.command import progress
from scripts.jobs import outputs
from scripts.monitoring import captured, drift
from scripts.monitoring.captured import Captured

NAME = "captured.html"
TEMPLATE = Path(__file__).with_name("captured.html.jinja")
ROWS = 20  # of the tables of labels and of differences; the terminal shows half of them
BINS = 20  # of the confidences
HOUR_MS = 3_600_000
ANSWER = "FROM answers JOIN requests ON requests.id = request WHERE variant = ?"


def run(flags: argparse.Namespace, target: Path) -> int:
    """Write the page to `target`, and print the table. Raises CloudError."""
    if len(flags.jobs) > 1:
        raise CloudError("--captured is compared with the test images of one JOB", 2)
    chosen = settings.load(flags)
    with scratch.folder() as made:
        tested = _metrics(flags.jobs[0], made / "job", chosen.aws) if flags.jobs else {}
        found = captured.read(flags.captured, made, chosen.aws)
        facts = summary(found, tested)
        charts = _charts(found, facts)
    drawn = {name: chart.plot for name, chart in charts.items()}
    replace_file(target, page.render(TEMPLATE, drawn, charts=charts, source=flags.captured, **facts).encode())
    progress(words(facts))
    print(target)
    return 0


def _metrics(job: str, folder: Path, aws: Any) -> dict[str, Any]:
    """Return metrics.json of a job, wherever that lies."""
    file = outputs.fetch(job, folder, aws) / "metrics.json"
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CloudError(
            f"{job}: its metrics.json cannot be read ({reason(error)}), and so not compared with"
        ) from None
    if not found.get("per_class"):
        raise CloudError(f"{job}: its metrics.json has no test images to compare with")
    return found


def summary(found: Captured, tested: dict[str, Any]) -> dict[str, Any]:
    """Return what the table and the page say. `tested`: metrics.json of the model's job, may be empty."""
    live = found.variant
    ((requests, first, last),) = found.ask(
        "SELECT count(*), min(hour), max(hour) FROM requests WHERE variant = ?", live
    )
    ((images, failed),) = found.ask(f"SELECT count(*), count(*) - count(label) {ANSWER}", live)
    labels = dict(found.ask(f"SELECT label, count(*) {ANSWER} AND label IS NOT NULL GROUP BY 1 ORDER BY 2 DESC", live))
    usual = drift.tested_labels(tested.get("per_class", ()))
    drifted = drift.compare(labels, usual) if usual else None
    answered, total = sum(labels.values()), sum(usual.values())
    rows = [
        (label, labels.get(label, 0) / max(1, answered), usual[label] / total if label in usual else None)
        for label in dict.fromkeys([*labels, *usual])
    ]
    if usual:
        rows.sort(key=lambda row: -abs(row[1] - (row[2] or 0.0)))
    ((confidence, unsure),) = found.ask(f"SELECT avg(probability), avg(probability < 0.5) {ANSWER}", live)
    return {
        "endpoint": next(iter(found.endpoints), "endpoint"),
        "requests": requests,
        "first": first,
        "last": last,
        "images": images,
        "failed": failed,
        "unreadable": found.unreadable,
        "kinds": _kinds(found, live),
        "confidence": confidence,
        "unsure": unsure,
        "usual_confidence": (tested.get("calibration") or {}).get("confidence"),
        "drift": drifted,
        "labels": rows[:ROWS],
        "more_labels": max(0, len(rows) - ROWS),
        "shadow": _comparison(found) if found.has_shadow else None,
    }


def _kinds(found: Captured, live: str) -> list[tuple[str, int, str, str]]:
    """Content type, requests, sizes: the median and the largest."""
    rows = found.ask(
        "SELECT kind, count(*), max(bytes) FROM requests WHERE variant = ? GROUP BY 1 ORDER BY 2 DESC", live
    )
    middle = "SELECT bytes FROM requests WHERE variant = ? AND kind = ? ORDER BY 1 LIMIT 1 OFFSET ?"
    return [(kind, n, size(found.ask(middle, live, kind, n // 2)[0][0]), size(most)) for kind, n, most in rows]


def _comparison(found: Captured) -> dict[str, Any]:
    """Both variants' answers to the same images."""
    found.pair()
    ((pairs, same, p, q),) = found.ask("SELECT count(*), sum(live IS shadow), avg(p), avg(q) FROM pairs")
    query = "SELECT live, shadow, count(*) FROM pairs WHERE live IS NOT shadow GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"
    differ = [(live or "an error", shadow or "an error", count) for live, shadow, count in found.ask(query)]
    agreement = (
        f"{share(same / pairs)} of {pairs} ({interval_words(same / pairs, pairs)})" if pairs else "nothing to match"
    )
    return {
        "pairs": pairs,
        "agreement": agreement,
        "confidences": (p, q),
        "differ": differ[:ROWS],
        "more": max(0, len(differ) - ROWS),
    }


def words(facts: dict[str, Any]) -> str:
    """Return the table for the terminal."""
    rows = [
        ("requests", f"{facts['requests']}, from {facts['first']} h to {facts['last']} h (UTC)"),
        ("images", f"{facts['images']}, {facts['failed']} without an answer"),
        *(
            (kind, f"{count(n, 'request')}, median {middle}, largest {most}")
            for kind, n, middle, most in facts["kinds"]
        ),
    ]
    if facts["confidence"] is not None:
        usual = facts["usual_confidence"]
        on_test = f", on the test images {share(usual)}" if usual is not None else ""
        rows.append(("confidence", f"{share(facts['confidence'])}{on_test}; {share(facts['unsure'])} are below 50 %"))
    if facts["drift"]:
        rows.append(("labels", facts["drift"].words))
    for label, now, usual in facts["labels"][: ROWS // 2]:
        rows.append((f"  {label}", share(now) + (f", on the test images {share(usual)}" if usual is not None else "")))
    if shadow := facts["shadow"]:
        rows.append(("shadow agrees in", shadow["agreement"]))
        rows += [(f"  {live} / {other}", count(n, "image")) for live, other, n in shadow["differ"][: ROWS // 2]]
    if facts["unreadable"]:
        rows.append(("unreadable lines", str(facts["unreadable"])))
    return text.table(("captured", facts["endpoint"]), rows)


def _charts(found: Captured, facts: dict[str, Any]) -> dict[str, Chart]:
    live = found.variant
    hours = found.ask("SELECT hour, count(*) FROM requests WHERE variant = ? GROUP BY 1 ORDER BY 1", live)
    plot = blank(230, x_axis_type="datetime")
    middles = [_milliseconds(hour) + HOUR_MS / 2 for hour, _ in hours]
    plot.vbar(x=middles, top=[requests for _, requests in hours], width=0.9 * HOUR_MS, color=TRAIN)
    plot.y_range.start = 0
    charts = {"hours": Chart("Requests per hour", "UTC", plot)}
    if facts["confidence"] is not None:
        bins = f"min(CAST(probability * {BINS} AS INT), {BINS - 1})"
        counts = dict(found.ask(f"SELECT {bins}, count(*) {ANSWER} AND label IS NOT NULL GROUP BY 1", live))
        charts["confidence"] = _confidences([counts.get(index, 0) for index in range(BINS)], facts)
    return charts


def _confidences(counts: Sequence[int], facts: dict[str, Any]) -> Chart:
    """The shares of the answers by their probability, with the mean on the test images."""
    edges = [index / BINS for index in range(BINS + 1)]
    shares = [count / sum(counts) for count in counts]
    plot = blank(230, "probability of the answer")
    keys = [Key("captured", TRAIN)]
    x = [edge for edge in edges for _ in (0, 1)][1:-1]
    line(plot, x, [value for value in shares for _ in (0, 1)], keys[0], 2)
    plot.yaxis.formatter = plot.xaxis.formatter = NumeralTickFormatter(format="0 %")
    if facts["usual_confidence"] is not None:
        plot.add_layout(span(facts["usual_confidence"], VALID))
        keys.append(Key("mean on the test images", VALID, "2 3"))
    return Chart("Confidence", "share of the answers", plot, keys)


def _milliseconds(hour: str) -> float:
    """Of an hour such as 2026-11-27 19, since 1970; 0 for another text."""
    try:
        return datetime.fromisoformat(f"{hour}:00").replace(tzinfo=UTC).timestamp() * 1000
    except ValueError:
        return 0.0
