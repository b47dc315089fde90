"""The answers of a batch, merged into one table: file, label, probability."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local_test import text
from scripts.console.command import progress
from scripts.endpoints.invocations import InvocationError, parsed

HEAD = ("file", "label", "probability", "error")
SHOWN = 20  # files of which the table is printed; the rest is in the file
NAMED = 10  # failures
SUFFIX = ".out"  # of an answer, after the image's own name


@dataclass(frozen=True)
class Table:
    """`rows` as in HEAD; `failed`: why there is no answer, by file."""

    rows: list[tuple[str, str, str, str]]
    failed: dict[str, str]

    def csv(self) -> bytes:
        file = io.StringIO(newline="")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEAD)
        writer.writerows(self.rows)
        return file.getvalue().encode()

    def text(self) -> str:
        shown = set(list(dict.fromkeys(row[0] for row in self.rows))[:SHOWN])
        columns = 4 if self.failed else 3
        return text.table(HEAD[:columns], [row[:columns] for row in self.rows if row[0] in shown])


def report(table: Table, count: int, place: object, program: str) -> int:
    """Name what failed of `count` files, and the place of the table; the exit code."""
    for file, why in list(table.failed.items())[:NAMED]:
        progress(f"no prediction for {file}: {why}")
    progress(f"{count - len(table.failed)} of {count} images; all rows: {place}")
    if table.failed:
        progress(f"{program}: {len(table.failed)} of {count} predictions failed")
    return 1 if table.failed else 0


def merge(files: Sequence[str], answers: Mapping[str, bytes], failed: Mapping[str, str], top_k: int) -> Table:
    """Return the table over all files, in their order; `answers` and `failed` by file, `failed` where it is known."""
    table = Table([], {})
    for file in files:
        if file in answers:
            try:
                table.rows.extend(_row(file, row) for row in parsed(answers[file])["predictions"][:top_k])
                continue
            except InvocationError as error:
                table.failed[file] = str(error)
        table.failed.setdefault(file, failed.get(file, "no answer"))
        table.rows.append((file, "", "", table.failed[file]))
    return table


def matched(prefix: str, files: Sequence[str], outputs: Sequence[str]) -> dict[str, str]:
    """Return the outputs by file. Files are relative to `prefix`, a key; outputs to the place of the answers.

    The service's guide does not say how much of a key's path an output keeps. So an output is a file's if it is the
    end of the file's whole key, and of no other's; one with the very path of a file is that file's.
    """
    left = {output.removesuffix(SUFFIX) for output in outputs if output.endswith(SUFFIX)}
    found = {file: file for file in files if file in left}
    left -= set(found)
    claims: dict[str, list[str]] = {}
    for file in files:
        if file not in found:
            parts = f"{prefix}/{file}".split("/")
            ends = ("/".join(parts[start:]) for start in range(len(parts)))
            if end := next((end for end in ends if end in left), None):
                claims.setdefault(end, []).append(file)
    found |= {claimants[0]: output for output, claimants in claims.items() if len(claimants) == 1}
    return {file: f"{output}{SUFFIX}" for file, output in found.items()}


def _row(file: str, row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return file, str(row["label"]), f"{float(row['probability']):.6g}", ""
