"""The bodies of answers."""

import csv
import io
import json
from collections.abc import Mapping, Sequence

from container_serve.codec.media import CSV, JSON_LINES
from container_serve.errors import RequestError
from container_serve.predictor import Prediction

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
Row = Sequence[Prediction] | RequestError  # the most probable classes of an image, or why there are none


def render(rows: Sequence[Row], kind: str, *, model: Mapping[str, object], batched: bool) -> bytes:
    """The body of the answer, of type `kind`: one row per image, or the error that it met.

    Unbatched JSON is `{"predictions": [...], "model": {...}}`, batched JSON has a list of such lists, with
    `{"error": {code, type, message}}` in place of one. CSV has the rows instance,index,label,probability without a
    header; an error stands in the label's place. JSON lines have a line per image. CSV and JSON lines end without a
    line feed, which who assembles answers by lines puts between them. Probabilities have 6 significant digits.
    """
    if kind == CSV:
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        for instance, row in enumerate(rows):
            if isinstance(row, RequestError):
                writer.writerow((instance, "", f"{row.kind}: {row}", ""))
            else:
                writer.writerows((instance, p.index, p.label, _rounded(p.probability)) for p in row)
        return table.getvalue().removesuffix("\n").encode()
    answers = [_answer(row) for row in rows]
    if kind == JSON_LINES:
        lines = (a if isinstance(a, dict) else {"predictions": a} for a in answers)
        return "\n".join(_JSON.encode({**line, "model": model}) for line in lines).encode()
    return _JSON.encode({"predictions": answers if batched else answers[0], "model": model}).encode()


def _answer(row: Row) -> list[dict[str, object]] | dict[str, object]:
    if isinstance(row, RequestError):
        return {"error": row.document()}
    return [{"index": p.index, "label": p.label, "probability": _rounded(p.probability)} for p in row]


def _rounded(probability: float) -> float:
    return float(f"{probability:.6g}")
