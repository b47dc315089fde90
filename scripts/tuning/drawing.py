"""The charts of a search: its history, its hyperparameters against the objective, their importance, its curves."""

import math
from collections.abc import Mapping, Sequence

from bokeh.models import ColumnDataSource, FixedTicker, GlyphRenderer, NumeralTickFormatter
from bokeh.plotting import figure

from container_train.reporting.drawing import COLOURS, INK, Chart, Key, blank, hover, line
from scripts.tuning.space import Choice, Range, Value
from scripts.tuning.trials import Search, Trial, is_number, words

MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex")
HEIGHT = 300
BEST = "#c2341d"  # readable on the light and on the dark page
CURVES = 60  # trials whose curves are drawn: the best and the newest


def history(search: Search) -> Chart:
    """The objective of each trial in their order, and the best so far."""
    rated = [trial for trial in search.trials if is_number(trial.value)]
    key, found = Key("a trial", COLOURS[0]), Key("best so far", BEST)
    plot = blank(HEIGHT, "trial")
    best, steps = math.nan, []
    for trial in rated:
        value = trial.value or 0.0
        best = value if math.isnan(best) or search.space.better(value, best) else best
        steps.append(best)
    plot.step([t.number for t in rated], steps, mode="after", line_color=BEST, line_width=2)
    hover(plot, [_dots(plot, search, rated, [t.number for t in rated], key.colour)], _tips(search))
    ended = [
        trial for trial in search.trials if trial.status in ("failed", "pruned", "stopped") and trial.value is None
    ]
    keys = [key, found]
    if ended and rated:
        low = min(trial.value or 0.0 for trial in rated)
        plot.scatter([t.number for t in ended], [low] * len(ended), marker="triangle", size=9, color=INK, line_width=2)
        keys.append(Key("failed or ended early", INK, mark="triangle"))
    _percent(plot, search)
    return Chart("History", search.space.objective, plot, keys)


def against(search: Search, name: str, part: Range) -> Chart:
    """The objective over a hyperparameter; trials that differ in the first other one of few values have its colour."""
    rated = [trial for trial in search.trials if is_number(trial.value)]
    plot = blank(HEIGHT, name, x_axis_type="log" if part.logarithmic else "auto")
    other = next(
        (key for key, choice in search.space.searched.items() if isinstance(choice, Choice) and key != name), None
    )
    groups: dict[str, list[Trial]] = {}
    for trial in rated:
        groups.setdefault(f"{other} {trial.parameters.get(other)}" if other else "a trial", []).append(trial)
    keys = []
    for index, (label, trials) in enumerate(sorted(groups.items())):
        colour = COLOURS[index % len(COLOURS)]
        keys.append(Key(label, colour))
        drawn = _dots(plot, search, trials, [t.parameters[name] for t in trials], colour, MARKERS[index % len(MARKERS)])
        hover(plot, [drawn], _tips(search))
    _percent(plot, search)
    return Chart(f"{name} and {search.space.objective}", "each dot a trial", plot, keys)


def parallel(search: Search) -> Chart:
    """A line a trial through an axis for each hyperparameter and one for the objective; the stronger the better."""
    rated = [trial for trial in search.trials if is_number(trial.value)]
    names = [*search.space.searched, search.space.objective]
    values = [trial.value or 0.0 for trial in rated]
    low, high = min(values), max(values)

    def height(trial: Trial) -> float:
        return 0.5 if high == low else ((trial.value or 0.0) - low) / (high - low)

    plot = blank(HEIGHT + 40, x_range=(-0.35, len(names) - 0.65), y_range=(-0.12, 1.12))
    order = sorted(rated, key=lambda trial: (trial.value or 0.0) * (1 if search.space.maximises else -1))
    data = ColumnDataSource(
        {
            "xs": [list(range(len(names))) for _ in order],
            "ys": [
                [*(_place(part, trial.parameters[name]) for name, part in search.space.searched.items()), height(trial)]
                for trial in order
            ],
            "colour": [COLOURS[0]] * (len(order) - 1) + [BEST],
            "alpha": [0.15 + 0.75 * rank / max(1, len(order) - 1) for rank in range(len(order))],
            "width": [1.2] * (len(order) - 1) + [3.0],
            **_columns(search, order),
        }
    )
    drawn = plot.multi_line("xs", "ys", source=data, line_color="colour", line_width="width", line_alpha="alpha")
    hover(plot, [drawn], _tips(search))
    for at, name in enumerate(names):
        plot.line([at, at], [0, 1], line_color=INK, line_width=1)
        part = search.space.searched.get(name)
        for place, text in _marks(part) if part else [(0.0, words(low)), (1.0, words(high))]:
            plot.text([at], [place], [text], text_color=INK, text_font_size="11px", x_offset=6, text_baseline="middle")
    plot.xaxis.ticker = FixedTicker(ticks=list(range(len(names))))
    plot.xaxis.major_label_overrides = dict(enumerate(names))
    plot.yaxis.visible = False
    plot.grid.grid_line_color = None
    return Chart("All trials at once", "a line a trial, the stronger the better; red the best", plot)


def importance(shares: Mapping[str, float]) -> Chart:
    """How much of the objective's variation comes from each hyperparameter."""
    names = sorted(shares, key=lambda name: shares[name])
    plot = blank(70 + 34 * len(names), y_range=names, x_range=(0, 1))
    data = ColumnDataSource({"name": names, "share": [shares[name] for name in names]})
    drawn = plot.hbar("name", right="share", height=0.6, source=data, color=COLOURS[0])
    hover(plot, [drawn], [("", "@name"), ("share", "@share{0 %}")])
    plot.xaxis.formatter = NumeralTickFormatter(format="0 %")
    return Chart("Importance", "share of the objective's variation (fANOVA)", plot)


def curves(search: Search, metric: str) -> Chart | None:
    """`metric` over the epochs, a line a trial. None where no log has it."""
    best = search.best
    drawn = [trial for trial in search.trials if trial.epochs]
    if len(drawn) > CURVES:
        drawn = [trial for trial in drawn[-CURVES:] if trial is not best] + ([best] if best else [])
    rows = {trial.number: [e for e in trial.epochs if is_number(e.get(metric)) and "epoch" in e] for trial in drawn}
    if not any(rows.values()):
        return None
    plot = blank(HEIGHT, "epoch")
    renderers = []
    for trial in sorted(drawn, key=lambda trial: best is not None and trial.number == best.number):
        found = rows[trial.number]
        if not found:
            continue
        is_best = best is not None and trial.number == best.number
        key = Key(str(trial.number), BEST if is_best else COLOURS[0])
        label = [f"trial {trial.number}"] * len(found)
        renderer = line(
            plot, [e["epoch"] for e in found], [e[metric] for e in found], key, 2.6 if is_best else 1.1, name=label
        )
        plot.scatter([e["epoch"] for e in found], [e[metric] for e in found], size=4, color=key.colour)
        renderers.append(renderer)
    hover(plot, renderers, [("", "@name"), ("epoch", "@x"), (metric, "@y{0.0000}")])
    most = max(int(e["epoch"]) for found in rows.values() for e in found)
    plot.xaxis.ticker = FixedTicker(ticks=list(range(1, most + 1, max(1, most // 10))))
    if "accuracy" in metric:
        plot.yaxis.formatter = NumeralTickFormatter(format="0 %")
    return Chart(metric, "over the epochs", plot, [Key("the best trial", BEST), Key("the others", COLOURS[0])])


def _dots(
    plot: figure, search: Search, trials: Sequence[Trial], x: Sequence[Value], colour: str, marker: str = "circle"
) -> GlyphRenderer:
    data = ColumnDataSource({"x": list(x), "y": [trial.value for trial in trials], **_columns(search, trials)})
    return plot.scatter("x", "y", source=data, color=colour, size=8, alpha=0.85, marker=marker)


def _columns(search: Search, trials: Sequence[Trial]) -> dict[str, list[str]]:
    """What a trial's tip says, as text."""
    columns = {"trial": [str(t.number) for t in trials], "value": [words(t.value) for t in trials]}
    for index, name in enumerate(search.space.searched):
        columns[f"p{index}"] = [words(trial.parameters.get(name)) for trial in trials]
    return columns


def _tips(search: Search) -> list[tuple[str, str]]:
    own = [(name, f"@p{index}") for index, name in enumerate(search.space.searched)]
    return [("trial", "@trial"), (search.space.objective, "@value"), *own]


def _percent(plot: figure, search: Search) -> None:
    if "accuracy" in search.space.objective:
        plot.yaxis.formatter = NumeralTickFormatter(format="0.[0] %")


def _place(part: Range | Choice, value: Value) -> float:
    """0 to 1 on the axis of a hyperparameter."""
    if isinstance(part, Choice):
        return part.values.index(value) / max(1, len(part.values) - 1) if value in part.values else 0.0
    low, high, at = part.low, part.high, float(value)
    if part.logarithmic:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return (at - low) / (high - low)


def _marks(part: Range | Choice) -> list[tuple[float, str]]:
    """Places and labels of an axis."""
    if isinstance(part, Range):
        return [(0.0, words(part.low)), (1.0, words(part.high))]
    last = max(1, len(part.values) - 1)
    return [(index / last, words(value)) for index, value in enumerate(part.values)]
