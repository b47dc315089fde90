#!/usr/bin/env python3
"""Make the profiler's report again from what a job has left, compare two jobs, or list all runs of this machine.

A job is a folder (local_test/out, an /opt/ml tree, its output/data), an output.tar.gz, an address in S3, or the name of
a training job. The files of the service's own profiler (profiler-output/) work, too.

scripts/report.py local_test/out                              writes profiler-report.html there
scripts/report.py output.tar.gz --out report.html
scripts/report.py s3://BUCKET/byoc/JOB/output/output.tar.gz
scripts/report.py byoc-dogs-20261122-172000-a1b2 --region eu-central-1
scripts/report.py local_test/out.first local_test/out --out compare.html         two jobs side by side
scripts/report.py s3://BUCKET/JOB/profiler-output             what the service's profiler wrote
scripts/report.py --captured s3://BUCKET/byoc/captured/byoc-dogs JOB     what an endpoint was asked, and answered
scripts/report.py --all                                       a table of all runs; writes local_test/runs.html
scripts/report.py --all DIR                                   and of those below DIR, such as downloaded jobs
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import use

use("boto3", "bokeh")

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from container_serve import scratch
from container_train.paths import replace_file
from container_train.reporting.words import count
from scripts.aws import settings
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.console import command
from scripts.jobs import outputs

if TYPE_CHECKING:
    from container_train.reporting.record import Record

PROGRAM = "report.py"


def main(arguments: Sequence[str]) -> int:
    parser = command.parser(PROGRAM, __doc__ or "")
    add = parser.add_argument
    add("jobs", nargs="*", metavar="JOB", help="one job, or two to compare")
    add("--captured", metavar="S3|DIR", help="what an endpoint captured; JOB: compare with its test images")
    add("--all", nargs="?", const="", metavar="DIR", help="a table of all runs of this machine, and below DIR")
    add("--out", type=Path, metavar="FILE", help="the page (beside the job or folder; here for jobs in AWS)")
    settings.add_flags(parser)
    flags = parser.parse_args(arguments)
    if flags.all is not None and (flags.jobs or flags.captured):
        raise CloudError(f"--all and {flags.captured or flags.jobs[0]} cannot be combined: --all takes one folder", 2)
    if len(flags.jobs) > 2 or not (flags.jobs or flags.captured or flags.all is not None):
        given = count(len(flags.jobs), "job")
        raise CloudError(f"{given} given: expected one, two to compare, --all, or --captured", 2)
    target = flags.out or _beside(flags)
    if not target.absolute().parent.is_dir():
        raise CloudError(f"--out {target}: there is no folder {target.parent}; make it, or give another", 2)
    if target.exists() and not target.is_file():
        raise CloudError(f"--out {target} is a folder, or no ordinary file: give another", 2)
    if target.exists() and target.suffix != ".html":
        raise CloudError(f"--out {target} exists and is no page: give a name that ends in .html", 2)
    if flags.captured:
        from scripts.monitoring import captured_report

        return captured_report.run(flags, target)
    from container_train.reporting import compare, profiler_report  # half a second

    with scratch.folder() as made:
        if flags.all is not None:
            return _table(flags.all, target, made)
        first, *others = [_record(job, made / str(index), flags) for index, job in enumerate(flags.jobs)]
        text = compare.render(first, others[0], _names(flags.jobs)) if others else profiler_report.render(first)
    replace_file(target, text.encode())
    print(target)
    return 0


def _beside(flags: argparse.Namespace) -> Path:
    """The page's place where --out names none: with what it reports on, or here for what is in AWS."""
    if flags.all is not None:
        from scripts.jobs import runs

        name, source = "runs.html", Path(flags.all) if flags.all else runs.HOME
    elif flags.captured:
        name, source = "captured.html", Path(flags.captured)
    else:
        name, source = "profiler-report.html", Path(flags.jobs[-1])
    if len(flags.jobs) == 2:
        return (source.parent if source.exists() else Path()) / "compare.html"
    return (source if source.is_dir() else source.parent if source.exists() else Path()) / name


def _table(folder: str, target: Path, made: Path) -> int:
    """All runs below local_test and `folder`, as a table and as a page."""
    from scripts.jobs import runs

    if folder and not Path(folder).is_dir():
        raise CloudError(f"--all {folder}: no such folder", 2)
    found = runs.find([runs.HOME, *([Path(folder)] if folder else [])], made, target.with_suffix(".files"))
    if not found:
        where = f"{runs.HOME}{f' and {folder}' if folder else ''}"
        raise CloudError(f"there is no run that can be read below {where}: train first, or give --all another folder")
    runs.write(found, target)
    print(runs.render(found))
    command.progress(f"{count(len(found), 'run')}: open {target}")
    return 0


def _record(job: str, made: Path, flags: argparse.Namespace) -> "Record":
    from container_train.reporting.record import read

    chosen = settings.load(flags)

    def account() -> Aws:
        if chosen.region is None and not job.startswith("s3://"):
            raise CloudError(f"{job} is no folder or file here; for a training job of that name, give --region", 2)
        return chosen.aws()

    command.progress(f"reading {job}")
    folder = outputs.fetch(job, made, account)
    for words in outputs.damage(folder):
        command.progress(f"warning: {words}: the page lacks what it held, and may be wrong about the rest")
    # What came out of an archive or S3 has ended; a folder here may be that of a job that runs.
    record = read(folder.resolve(), over=folder.is_relative_to(made) or outputs.is_over(folder))
    if not record:
        raise CloudError(f"{job}: its files say nothing that a report could show")
    return record


def _names(jobs: Sequence[str]) -> tuple[str, str]:
    """The two as the user wrote them, without what they have in common at the front."""
    first, second = (job.rstrip("/") for job in jobs)
    while (head := first.partition("/")[0]) == second.partition("/")[0] and "/" in first and "/" in second:
        first, second = first[len(head) + 1 :], second[len(head) + 1 :]
    return first, second


if __name__ == "__main__":
    sys.exit(command.run(PROGRAM, main))
