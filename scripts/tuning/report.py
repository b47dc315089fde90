"""tuning-report.html: the findings of a search, in one file that needs nothing from anywhere."""

from pathlib import Path

from container_train.paths import replace_file
from container_train.reporting import page
from container_train.reporting.drawing import Chart
from scripts.tuning import drawing
from scripts.tuning.space import Range
from scripts.tuning.trials import Search, heads, is_number, row, words

TEMPLATE = Path(__file__).with_name("tuning-report.html.jinja")
ROWS = 200  # of the table: the newest trials


def write(search: Search, file: Path) -> None:
    """Make the page anew."""
    charts = _charts(search)
    default = search.space.default()
    # A study's first trial is the program's own setting.
    first = next((t for t in search.trials if default and t.parameters == default and t.status == "completed"), None)
    text = page.render(
        TEMPLATE,
        {name: chart.plot for name, chart in charts.items()},
        search=search,
        best=search.best,
        values={name: words(value) for name, value in search.best_values().items()},
        first=first,
        charts=charts,
        heads=heads(search.space)[:-1],
        rows=[(trial.status, row(trial, search.space, search.best)) for trial in search.trials[-ROWS:]],
        hidden=max(0, len(search.trials) - ROWS),
        words=words,
    )
    replace_file(file, text.encode())


def _charts(search: Search) -> dict[str, Chart]:
    charts: dict[str, Chart] = {}
    if any(is_number(trial.value) for trial in search.trials):
        from scripts.tuning.study import importance  # Optuna takes a second to import

        charts["history"] = drawing.history(search)
        charts["parallel"] = drawing.parallel(search)
        if shares := importance(search):
            charts["importance"] = drawing.importance(shares)
        for number, (name, part) in enumerate(search.space.searched.items()):
            if isinstance(part, Range):
                charts[f"against-{number}"] = drawing.against(search, name, part)
    for metric in dict.fromkeys((search.space.objective, "valid_loss")):
        if chart := drawing.curves(search, metric):
            charts[f"curves-{metric}"] = chart
    return charts
