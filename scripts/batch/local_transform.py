"""`transform.py --local`: what a transform job does, with a server in Docker here and folders for prefixes."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import requests

from local_test.errors import reason
from scripts.aws import names
from scripts.aws.errors import CloudError
from scripts.aws.parallel import each
from scripts.aws.settings import Settings
from scripts.batch import transform_input, transform_table
from scripts.batch.transform_input import MAX_MIB, MIB
from scripts.batch.transform_job import DEFAULT_MIB, IMAGES, PROGRAM, SECONDS, TABLE
from scripts.batch.transform_table import SUFFIX, Table
from scripts.console.command import progress
from scripts.endpoints import local_endpoint
from scripts.endpoints.invocations import JSON, complaint
from scripts.environment import ROOT

OUT = ROOT / "local_test" / "out.transform"  # git takes local_test/out.* for results


def run(flags: argparse.Namespace, chosen: Settings, environment: Mapping[str, str]) -> int:
    """Raises CloudError where something is missing."""
    if flags.data.startswith("s3://") or (flags.out or "").startswith("s3://"):
        raise CloudError("--local reads --data from a folder here and writes --out to one, not to S3", 2)
    root, files = Path(flags.data), transform_input.files(flags.data)
    out = Path(flags.out) if flags.out else OUT / (flags.name or names.unique(chosen.project, "transform"))
    if out.exists() and any(out.iterdir()):
        raise CloudError(f"--out {out} is not empty: give another folder", 2)
    largest = max(path.stat().st_size for path in files)
    mib = min(MAX_MIB, max(DEFAULT_MIB, -(-largest // MIB)))
    # As the service tells its containers.
    batch = {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(mib),
    }
    with local_endpoint.endpoint(flags.image, flags.model_data, None, chosen, {**batch, **environment}) as (url, _):
        progress(f"{len(files)} images of {root}")
        table = transform(url, root, files, out, flags.top_k)
    place = out / TABLE
    place.write_bytes(table.csv())
    if flags.json:
        print(json.dumps({"out": str(out), "predictions": str(place), "images": len(files), "failed": table.failed}))
    else:
        print(table.text())
    return transform_table.report(table, len(files), place, PROGRAM)


def transform(url: str, root: Path, files: list[Path], out: Path, top_k: int) -> Table:
    """Send the images to the server at `url`, as many at once as it says; answers go below out/answers."""
    answers: dict[str, bytes] = {}
    failed: dict[str, str] = {}
    with requests.Session() as session:
        session.trust_env = False  # a proxy knows nothing of this machine
        said = session.get(f"{url}/execution-parameters", timeout=SECONDS).json()

        def send(path: Path) -> requests.Response | str:
            try:
                headers = {"Content-Type": IMAGES, "Accept": JSON}
                return session.post(f"{url}/invocations", path.read_bytes(), headers=headers, timeout=SECONDS)
            except (OSError, requests.RequestException) as error:
                return reason(error)

        def keep(path: Path, answer: requests.Response | str) -> None:
            name = str(path.relative_to(root))
            if isinstance(answer, str):
                failed[name] = answer
            elif not answer.ok:
                failed[name] = complaint(answer.status_code, answer.text)
            else:
                place = out / "answers" / f"{name}{SUFFIX}"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(answer.content)
                answers[name] = answer.content

        out.mkdir(parents=True, exist_ok=True)
        each(send, files, keep, int(said["MaxConcurrentTransforms"]))
    return transform_table.merge([str(path.relative_to(root)) for path in files], answers, failed, top_k)
