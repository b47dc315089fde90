"""tuning-report.html: the findings of a search, in one file that needs nothing from anywhere."""

from pathlib import Path

from container_train.paths import replace_file
from container_train.reporting import page
from container_train.reporting.drawing import Chart
from container_train.reporting.words import count
from container_train.training import metrics
from scripts.tuning import drawing
from scripts.tuning.space import Range
from scripts.tuning.trials import Search, Trial, heads, is_number, row, words

TEMPLATE = Path(__file__).with_name("tuning-report.html.jinja")
ROWS = 200  # of the table: the newest trials


def write(search: Search, file: Path) -> None:
    """Make the page again."""
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
        settings=" ".join(f"--{name} {value}" for name, value in search.hyperparameters().items()),
        uncertain=_uncertainty(search),
        first=first,
        charts=charts,
        heads=heads(search.space)[:-1],
        rows=[(trial.status, _row(trial, search)) for trial in search.trials[-ROWS:]],
        hidden=max(0, len(search.trials) - ROWS),
        words=words,
    )
    replace_file(file, text.encode())


def _row(trial: Trial, search: Search) -> list[str]:
    cells = row(trial, search.space, search.best)
    if trial.value is not None and "accuracy" in search.space.objective:
        cells[2 + len(search.space.searched)] = f"{100 * trial.value:.2f} %"
    return cells


def _uncertainty(search: Search) -> str:
    """Return how sure the best value is; empty if the number of images is not known, or it is no accuracy."""
    best, images = search.best, search.images
    if best is None or best.value is None or not images or not search.space.objective.endswith("accuracy"):
        return ""
    low, _ = metrics.interval(best.value, images)
    done = [trial.value for trial in search.trials if trial.status == "completed" and trial is not best]
    near = sum(value is not None and value >= low for value in done)
    words = f"The 95 % interval on {count(images, 'validation image')} is {metrics.interval_words(best.value, images)}"
    return f"{words}; {count(near, 'other trial')} within it may be as good." if near else f"{words}."


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
