#!/usr/bin/env python3
"""Try everything once on a real account: push, upload, train on spot, deploy in each mode, transform, clean up.

scripts/acceptance.py --dry-run                        the steps and what each costs at most; asks AWS nothing
scripts/acceptance.py --max-usd 3                      with the built-in sample; builds and pushes the Docker images
scripts/acceptance.py --data DIR --train-image URI --serve-image URI     with images and Docker images of yours

It calls the other scripts under a project of its own (--project), with an execution role that it makes, unless --role
names one. It stops before a step that could pass --max-usd, and removes at the end all that it made, also after Ctrl-C.
If it was killed, the next call removes what is left. What it has seen is in --out: result.txt and result.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import use

use("boto3", "PIL", "numpy", "psutil", "requests", "tqdm", "docker")

import argparse
import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from container_serve import scratch
from container_train import command_line
from container_train.data.channels import WEIGHTS
from container_train.data.labels import SAMPLE, labels, natural
from container_train.paths import locked
from scripts.aws import instances, names, settings
from scripts.aws.errors import CloudError, explain
from scripts.aws.settings import Settings
from scripts.console import command
from scripts.console.command import progress
from scripts.environment import ROOT
from scripts.story import performance, record, removal
from scripts.story.performance import ERRORS, STOPPED
from scripts.story.programs import call
from scripts.story.record import FAILED, PASSED, RUNNING, Record
from scripts.story.steps import Story

PROGRAM = "acceptance.py"
PROJECT = "byoc-acceptance"
ROLE_SECONDS = 15.0  # until IAM has told a new role to all of AWS


def main(arguments: Sequence[str]) -> int:
    flags = _parser().parse_args(arguments)
    flags.project = flags.project or PROJECT
    if not 0 < flags.max_usd < 1000:  # nan is not
        raise CloudError(f"--max-usd has value {flags.max_usd}: expected USD, more than 0 and less than 1000", 2)
    if flags.data != SAMPLE and not Path(flags.data, "test").is_dir():
        raise CloudError(f"--data {flags.data}: expected sample, or a folder with train/, valid/ and test/", 2)
    chosen = settings.load(flags)
    region = chosen.need_region()
    _check(flags, region)
    kinds = {"train": flags.train_type, "serve": flags.serve_type}
    plan = performance.plan(kinds, region, flags.max_usd)
    if flags.dry_run:
        print(plan)
        return 0
    flags.out.mkdir(parents=True, exist_ok=True)
    busy = f"another call is at work in {flags.out}: wait for it, or give another --out"
    with locked(flags.out / ".lock", lambda: CloudError(busy)):
        before = record.load(flags.out)
        if before and not before.removed:
            return _finish(before, flags.out)
        account = chosen.aws().identity.account
        bucket = flags.bucket or names.default_bucket(region, account)
        begun = datetime.now(UTC).isoformat(timespec="seconds")
        # A role in byoc.toml is another project's.
        made = Record(chosen.project, region, account, begun, flags.max_usd, bucket, flags.role)
        with _data(flags.data) as data:
            story = _story(flags, _settle(made), data, kinds)
            if there := removal.left():
                remedy = f"remove them with scripts/cleanup.py --project {made.project}, or give another"
                raise CloudError(f"{made.project} has {len(there)} things already, such as {there[0]}: {remedy}")
            made.save(flags.out)
            try:
                if made.role is None:
                    os.environ["BYOC_ROLE"] = call("make_role.py").strip()
                    story.settings = settings.load(argparse.Namespace())
                    time.sleep(ROLE_SECONDS)
                performance.run(made, story, flags.out)
            except STOPPED:
                made.status = "interrupted"
                raise
            except ERRORS as error:
                made.status = f"failed: {explain(error)}"
            finally:
                code = _end(made, flags.out)
    return code


def _check(flags: argparse.Namespace, region: str) -> None:
    """Raises CloudError or TrainError for what train.py and deploy.py would refuse after some steps."""
    instances.check(flags.train_type, "--train-type")
    for target, uri in (("train", flags.train_image), ("serve", flags.serve_image)):
        if uri:
            names.Image.of_target(uri, region, target, f"--{target}-image")
    given = command.key_values(flags.hyperparameters, "--hyperparameters")
    command_line.parse([word for key, value in given.items() if key != WEIGHTS for word in (f"--{key}", value)])


def _finish(before: Record, out: Path) -> int:
    """Remove what a killed call has left, and say what it came to."""
    progress(f"the call of {before.begun} was ended before it had removed everything: removing what is left")
    _settle(before)
    for outcome in before.outcomes:
        if outcome.status == RUNNING:
            outcome.status, before.status = FAILED, f"killed in {outcome.step}"
    if before.status == RUNNING:
        before.status = "killed"
    code = _end(before, out)
    progress(f"call {PROGRAM} again to begin from the start")
    return code or 1


def _end(made: Record, out: Path) -> int:
    """Remove everything, save and show the result; the exit code."""
    try:
        removal.remove(made.role is None)
        made.removed = True
    except ERRORS as error:
        progress(f"not everything was removed: {explain(error)}; call {PROGRAM} again")
    finally:
        made.save(out)
    print(made.text())
    progress(f"{out / record.TABLE}, {out / record.JSON}")
    return 0 if made.status == PASSED and made.removed else 1


def _settle(made: Record) -> Settings:
    """Give all programs that are called the same settings, over those of byoc.toml."""
    given = {"BYOC_PROJECT": made.project, "AWS_REGION": made.region, "BYOC_BUCKET": made.bucket}
    os.environ.update({key: value for key, value in given.items() if value})
    os.environ["BYOC_ROLE"] = made.role or f"arn:aws:iam::{made.account}:role/{made.project}-sagemaker"
    return settings.load(argparse.Namespace())


@contextlib.contextmanager
def _data(text: str) -> Iterator[Path]:
    """A folder with train/, valid/ and test/."""
    with scratch.folder() as folder:
        if text == SAMPLE:
            from container_train.data import sample

            sample.write(folder / SAMPLE)
        yield folder / SAMPLE if text == SAMPLE else Path(text)


def _story(flags: argparse.Namespace, chosen: Settings, data: Path, kinds: dict[str, str]) -> Story:
    from container_train.data import listing  # imports much, for which --help need not wait

    folders = sorted((path for path in (data / "test").iterdir() if path.is_dir()), key=lambda path: natural(path.name))
    found = {
        listing.divide(listing.files(folder))[0][0]: label
        for folder, label in zip(folders, labels([folder.name for folder in folders]), strict=True)
    }
    given = {"train": flags.train_image, "serve": flags.serve_image}
    return Story(
        chosen.aws(), chosen, data, found, kinds, _hyperparameters(flags),
        {key: uri for key, uri in given.items() if uri},
    )  # fmt: skip


def _hyperparameters(flags: argparse.Namespace) -> list[str]:
    given = command.key_values(flags.hyperparameters, "--hyperparameters")
    if flags.data == SAMPLE and not given:
        from local_test.run import SAMPLE_HYPERPARAMETERS as given
    return [word for key, value in given.items() for word in (f"--{key}", value)]


def _parser() -> argparse.ArgumentParser:
    parser = command.parser(PROGRAM, __doc__ or "")
    add = parser.add_argument
    add("--max-usd", metavar="USD", type=command.number, default=3.0, help="the ceiling (3)")
    add("--data", metavar="sample|DIR", default=SAMPLE, help="images in train/, valid/ and test/ (sample)")
    add("--hyperparameters", metavar="KEY=VALUE", nargs="*", default=[], help="of the training: epochs=3 lr=0.01 ...")
    add("--train-image", metavar="URI", help="in ECR already: it is not pushed")
    add("--serve-image", metavar="URI", help="likewise")
    add("--train-type", metavar="T", default="ml.m5.xlarge", help="instance that trains (ml.m5.xlarge)")
    add("--serve-type", metavar="T", default="ml.m5.large", help="instance that serves (ml.m5.large)")
    add("--out", metavar="DIR", type=Path, default=ROOT / "dist" / "acceptance", help="result (dist/acceptance)")
    add("--dry-run", action="store_true", help="print the steps and what each costs at most, ask AWS nothing")
    settings.add_flags(parser, "role", "bucket", "project")
    return parser


if __name__ == "__main__":
    sys.exit(command.run(PROGRAM, main))
