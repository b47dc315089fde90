"""Made-up system metrics, in the service's format, for the rules: ill ones and healthy ones."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

START = 1_700_000_000.0

Values = Sequence[float]
Row = tuple[str, str, str]  # type, name, dimension


def write(
    out: Path, rows: Mapping[Row, Values], *, node: str = "algo-1", interval: float = 0.5, start: float = START
) -> None:
    """One value of each row every `interval` seconds, below out/profiler."""
    folder = out / "profiler" / "system" / "incremental" / "2023111422"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(
            {"Type": kind, "Name": name, "Dimension": dimension, "Value": float(value), "NodeId": node,
             "Timestamp": start + index * interval}
        )
        for (kind, name, dimension), values in rows.items()
        for index, value in enumerate(values)
    ]  # fmt: skip
    (folder / f"{int(start)}.{node}.json").write_text("\n".join(lines) + "\n")


def gpu(name: str, utilization: Values, memory: Values | None = None) -> dict[Row, Values]:
    rows: dict[Row, Values] = {("gpu", name, "GPUUtilization"): utilization}
    if memory is not None:
        rows["gpu", name, "GPUMemoryUtilization"] = memory
    return rows


def cpu(utilization: Values, waiting: Values | None = None, name: str = "cpu0") -> dict[Row, Values]:
    rows: dict[Row, Values] = {("cpu", name, "CPUUtilization"): utilization}
    if waiting is not None:
        rows["cpu", name, "I/OWaitPercentage"] = waiting
    return rows
