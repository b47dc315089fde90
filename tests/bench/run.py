"""All benchmarks one after the other, and the table of their goals: `make bench`, or run.py [NAME ...].

A benchmark that takes --out leaves its figures there, as a JSON list; the others print theirs. results.json holds what
the runs so far left, so that a single benchmark can be run again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
LIMIT_SECONDS = 1500  # of one benchmark


def run(file: Path) -> list[dict[str, Any]]:
    """The figures of one benchmark; none where it prints them only. Raises SystemExit where it fails."""
    print(f"== {file.name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        given = ["--out", str(out)] if '"--out"' in file.read_text() else []
        done = subprocess.run([sys.executable, str(file), *given], timeout=LIMIT_SECONDS, check=False)
        if done.returncode:
            sys.exit(f"bench: {file.name} ended with {done.returncode}")
        found: list[dict[str, Any]] = json.loads(out.read_text()) if out.exists() else []
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each figure that has a goal."""
    lines = [f"{'what':60} {'goal':>9} {'measured':>10}  spread"]
    for row in rows:
        if row["goal"]:
            low, high = row["spread"]
            lines.append(
                f"{row['name']:60} {row['goal']:>9} {row['measured']:>10.2f}  {low:.2f} to {high:.2f} {row['unit']},"
                f" {row['repetitions']} times"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    there = sorted(file.stem.removeprefix("bench_") for file in HERE.glob("bench_*.py"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(there)} (default: all)")
    names = parser.parse_args().names or there
    if unknown := [name for name in names if name not in there]:
        parser.error(f"no benchmark {unknown[0]}: there are {', '.join(there)}")
    rows: list[dict[str, Any]] = []
    try:
        rows = json.loads(RESULTS.read_text())
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        parser.error(f"{RESULTS} cannot be read ({error}): remove it")
    for name in names:
        found = run(HERE / f"bench_{name}.py")
        rows = [row for row in rows if row["benchmark"] != name] + [{"benchmark": name, **row} for row in found]
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
