#!/usr/bin/env python3
"""Send images to an endpoint, or to a server on this machine, and print the answers.

scripts/predict.py byoc-dogs dog.jpg
scripts/predict.py byoc-dogs images/ cat.png   --top-k 5        folders are taken with all images in them
scripts/predict.py byoc-dogs images/ --json > answers.json
scripts/predict.py byoc-many dog.jpg --model dogs               one of several models at the endpoint
scripts/predict.py byoc-queue s3://BUCKET/PREFIX images/ --async       an asynchronous endpoint: waits for the answers
scripts/predict.py --local http://localhost:8080 dog.jpg        a server of scripts/deploy.py --local or local_test

An image over a limit (6,291,456 bytes, or 50 megapixels) is scaled down before it is sent, with a notice. The exit
code is 1 where any prediction failed; the others are answered all the same. An image that may have been computed
is not sent again; latencies are those of single tries.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import use

use("boto3", "PIL", "numpy", "tqdm")

import argparse
import json
import re
import secrets
from collections.abc import Sequence

from local_test.text import table
from scripts.aws import settings
from scripts.aws.errors import CloudError
from scripts.aws.names import checked
from scripts.aws.parallel import gather
from scripts.console import command
from scripts.console.command import integer, progress, refuse
from scripts.endpoints.invocations import EndpointTarget, InvocationError, LocalTarget, Result, Target, model_name
from scripts.endpoints.modes import SERVERLESS_REQUEST_BYTES

PROGRAM = "predict.py"
THREADS = 4
MAX_TOP_K = 1000  # the server's own limit, container_serve.codec's


def main(arguments: Sequence[str]) -> int:
    flags = _parser().parse_args(arguments)
    names = list(flags.arguments)
    if flags.model:
        model_name(flags.model, "--model")
    refuse(
        (flags.asynchronous and (flags.local or flags.model), "--async: cannot be combined with --local or --model"),
        (
            not flags.asynchronous and any(name.startswith("s3://") for name in names),
            "images in S3 go with --async, to an endpoint that was deployed with --async",
        ),
    )
    results = _results(flags, names)
    for result in results:
        if result.notice:
            progress(f"{result.image} {result.notice}")
    latency = _latency([result.milliseconds for result in results if result.milliseconds is not None])
    if flags.json:
        print(json.dumps({"results": [result.to_dict() for result in results], "latency_ms": latency}, indent=2))
    else:
        print(_table(results))
        if len(results) > 1 and latency:
            progress(f"latency: p50 {latency['p50']:.0f} ms, p90 {latency['p90']:.0f} ms")
    failed = sum(result.answer is None for result in results)
    if failed:
        progress(f"{PROGRAM}: {failed} of {len(results)} predictions failed")
    return 1 if failed else 0


def _results(flags: argparse.Namespace, names: list[str]) -> list[Result]:
    """In the order of `names`, of which the first is the endpoint unless --local is given."""
    target: Target
    if flags.local:
        target = LocalTarget(flags.local, flags.model)
    else:
        name, *names = names
        if not names:
            raise CloudError(f"no images: scripts/predict.py {name} IMAGE..., or --local URL IMAGE...", 2)
        if Path(name).is_file() or Path(name).is_dir():
            raise CloudError(f"{name} is an image or folder here: name the endpoint first, or --local URL", 2)
        checked(name, "ENDPOINT")
        chosen = settings.load(flags)
        aws = chosen.aws()
        if flags.asynchronous:
            from scripts.endpoints import async_invocations

            items = async_invocations.items(aws, names)
            return async_invocations.AsyncCall(aws, name, flags.top_k, chosen, flags.threads).run(items)
        target = EndpointTarget(aws, name, flags.model)
    from scripts.endpoints import images  # takes a second, for which a wrong call need not wait

    return _ask(target, images.find(names), flags.top_k, flags.threads)


def _ask(target: Target, found: Sequence[Path], top_k: int, threads: int) -> list[Result]:
    """In the order of `found`."""
    from tqdm import tqdm

    from container_serve.settings import MAX_REQUEST_BYTES
    from scripts.endpoints import images

    sizes = [path.stat().st_size for path in found if path.is_file()]
    # Only a large one makes it worth a call to find out the limit.
    large = max(sizes, default=0) > SERVERLESS_REQUEST_BYTES
    limit = (target.limit() if large else None) or MAX_REQUEST_BYTES

    call = secrets.token_hex(4)

    def one(numbered: tuple[int, Path]) -> Result:
        number, path = numbered
        try:
            body = images.prepare(path, limit)
        except images.PictureError as error:
            return Result(str(path), None, str(error), None, None)
        # The id stands in the server's log and in what is captured; a file's name may hold anything.
        identifier = f"{call}-{number + 1}-{re.sub(r'[^A-Za-z0-9._-]', '_', path.name)}"[:64]
        try:
            document, milliseconds = target.invoke(body, identifier, top_k)
        except InvocationError as error:
            return Result(str(path), None, str(error), body.notice, None)
        return Result(str(path), document, None, body.notice, milliseconds)

    shown = tqdm(found, unit="image", disable=not sys.stderr.isatty() or len(found) < 20, leave=False)
    return gather(one, enumerate(shown), threads)


def _latency(milliseconds: Sequence[float]) -> dict[str, float] | None:
    """Nearest-rank percentiles."""
    if not milliseconds:
        return None
    ordered = sorted(milliseconds)
    return {f"p{p}": ordered[max(0, -(-len(ordered) * p // 100) - 1)] for p in (50, 90)}


def _table(results: Sequence[Result]) -> str:
    rows: list[tuple[str, ...]] = []
    for result in results:
        if result.answer is None:
            rows.append((result.image, "", "", f"error: {result.error}"))
            continue
        for index, row in enumerate(result.answer["predictions"]):
            took = "" if result.milliseconds is None else f"{result.milliseconds:.0f}"
            first = (result.image, took) if index == 0 else ("", "")
            rows.append((*first, f"{row['probability']:.3f}", str(row["label"])))
    return table(("image", "ms", "probability", "label"), rows)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser(PROGRAM, __doc__ or "")
    parser.usage = f"{PROGRAM} [flags] ENDPOINT IMAGE...\n       {PROGRAM} [flags] --local URL IMAGE..."
    parser.add_argument("arguments", metavar="ENDPOINT IMAGE", nargs="+", help="images, or folders of them")
    parser.add_argument("--local", metavar="URL", help="a server on this machine in place of ENDPOINT")
    parser.add_argument("--top-k", metavar="N", type=integer(1, MAX_TOP_K), default=3, help="classes for an image (3)")
    parser.add_argument("--threads", metavar="N", type=integer(1, 64), default=THREADS, help=f"at once ({THREADS})")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--model", metavar="NAME", help="of an endpoint that has several models")
    parser.add_argument("--async", dest="asynchronous", action="store_true", help="send by S3, wait for the answers")
    settings.add_flags(parser, "bucket", "project", "output_kms_key")
    return parser


if __name__ == "__main__":
    sys.exit(command.run(PROGRAM, main))
