"""Two charts of a training as SVG, which Jupyter and code hosts draw without scripts."""

from collections.abc import Mapping, Sequence
from html import escape

BLUE, ORANGE, GREY = "#2f6fb3", "#d9772b", "#7a828c"
STYLE = "font-family='sans-serif' font-size='12'"


def curves(epochs: Sequence[Mapping[str, float]], what: str = "accuracy") -> str:
    """`what` of training and validation over the epochs, as metrics.json has them under `epochs`."""
    width, height, left, right, bottom = 480, 240, 44, 104, 40
    most = max(1.0, *(epoch[f"{split}_{what}"] for epoch in epochs for split in ("train", "valid")))
    step = (width - left - right) / max(1, len(epochs) - 1)

    def y(value: float) -> float:
        return height - bottom - value / most * (height - bottom - 14)

    parts = [f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' {STYLE}>"]
    for tick in (0, most / 2, most):
        parts.append(f"<path d='M{left} {y(tick):.0f}H{width - right}' stroke='{GREY}' opacity='.3'/>")
        parts.append(f"<text x='{left - 6}' y='{y(tick) + 4:.0f}' text-anchor='end' fill='{GREY}'>{tick:.2g}</text>")
    for number in range(1, len(epochs) + 1):
        at = left + step * (number - 1)
        parts.append(f"<text x='{at:.0f}' y='{height - 22}' text-anchor='middle' fill='{GREY}'>{number}</text>")
    parts.append(f"<text x='{left}' y='{height - 4}' fill='{GREY}'>epoch</text>")
    for split, colour in (("train", BLUE), ("valid", ORANGE)):
        values = [epoch[f"{split}_{what}"] for epoch in epochs]
        points = " ".join(f"{left + step * at:.0f},{y(value):.0f}" for at, value in enumerate(values))
        parts.append(f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='2'/>")
        parts.append(f"<text x='{width - right + 6}' y='{y(values[-1]) + 4:.0f}' fill='{colour}'>{split} {what}</text>")
    return "".join([*parts, "</svg>"])


def matrix(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """The confusion matrix: a row per true class, a column per predicted one, in images."""
    cell, left, top = 56, 90, 44
    side = cell * len(classes)
    parts = [f"<svg xmlns='http://www.w3.org/2000/svg' width='{left + side}' height='{top + side}' {STYLE}>"]
    parts.append(f"<text x='0' y='14' fill='{GREY}'>rows: true, columns: predicted</text>")
    for row, (label, line) in enumerate(zip(classes, counts, strict=True)):
        middle = top + cell * (row + 0.5) + 4
        parts.append(f"<text x='{left - 8}' y='{middle}' text-anchor='end' fill='{GREY}'>{escape(label)}</text>")
        across = left + cell * (row + 0.5)
        parts.append(f"<text x='{across}' y='{top - 8}' text-anchor='middle' fill='{GREY}'>{escape(label)}</text>")
        for column, count in enumerate(line):
            share, x = count / max(1, sum(line)), left + cell * column
            place = f"x='{x}' y='{top + cell * row}' width='{cell - 2}' height='{cell - 2}'"
            parts.append(f"<rect {place} fill='{BLUE}' opacity='{0.06 + 0.94 * share:.2f}'/>")
            ink = "#ffffff" if share > 0.4 else GREY
            parts.append(f"<text x='{x + cell / 2}' y='{middle}' text-anchor='middle' fill='{ink}'>{count}</text>")
    return "".join([*parts, "</svg>"])
