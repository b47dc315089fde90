"""The results of a training job, from any place: a folder, an archive, S3, or a job's name."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from local_test import pack
from local_test.errors import reason
from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.aws.parallel import each
from scripts.jobs import training_jobs
from scripts.s3 import bucket, objects

ARCHIVE = "output.tar.gz"
# Where these lie, what a report is made of lies: our own files, then those of the service's profiler.
FILES = ("profiler/job.json", "profiler/timeline.jsonl", "rules.json", "metrics.json")
FOLDERS = ("profiler", "profiler-output", "system")
BELOW = ("", "output/data", "ml/output/data", "data", "output", "profiler-output")
LARGEST = 4 * 10**9  # bytes that an archive may unpack to
QUIET = 120.0  # seconds without a change, after which a folder's job counts as over
_JOB = re.compile(r"[a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62}\Z")


def fetch(source: str, folder: Path, account: Callable[[], Aws]) -> Path:
    """The folder with what `source` left: itself where that is one, else below `folder`. Raises CloudError.

    `account` is called only where S3 or a job's name is asked for.
    """
    path = Path(source)
    if source.startswith("s3://"):
        uri = S3Uri.parse(source, "JOB")
        if not uri.key:
            raise CloudError(f"{source} is a whole bucket: expected s3://BUCKET/.../{ARCHIVE}, or the job's prefix", 2)
        found, nothing = _from_s3(account(), uri, folder), f"{source} holds no {ARCHIVE} and no profiler-output/"
    elif path.exists():
        found = find(path) if path.is_dir() else None
        archives = (path, path / ARCHIVE, path / "output" / ARCHIVE)
        if found is None and (archive := next(filter(Path.is_file, archives), None)):
            pack.unpack(archive, folder, LARGEST)
            found = find(folder)
        nothing = f"{path} holds nothing that a job or the service's profiler writes (profiler/, rules.json, ...)"
    elif _JOB.match(source):
        found, nothing = _of_job(account(), source, folder)
    else:
        raise CloudError(f"{source} is no folder, no archive, no s3:// address, and no name of a training job", 2)
    if found is None:
        raise CloudError(nothing)
    return found


def is_over(folder: Path) -> bool:
    """Tell whether nothing in the folder changes any more."""
    times = [path.stat().st_mtime for path in folder.rglob("*") if path.is_file()]
    return time.time() - max(times, default=0.0) > QUIET


def find(path: Path) -> Path | None:
    """The folder at or below `path` that holds a job's files."""
    if path.name == "profiler" and any((path.parent / name).exists() for name in FILES):
        return path.parent
    folders = [path / below for below in BELOW]
    # A run of this machine has a copy of rules.json above the folder that has everything.
    best = max(folders, key=lambda folder: sum((folder / name).exists() for name in FILES))
    if any((best / name).exists() for name in FILES):
        return best
    of_the_service = ("profiler/system", "profiler-output/system", *FOLDERS[2:])
    return next((folder for folder in folders if any((folder / name).is_dir() for name in of_the_service)), None)


def damage(folder: Path) -> list[str]:
    """Return, in words, which of our own files in a job's folder cannot be read; the service's profiler has others."""
    own = folder / "profiler"
    expected = ("job.json", "timeline.jsonl") if (own / "job.json").exists() or (folder / "rules.json").exists() else ()
    found = [f"{own / name} is missing" for name in expected if not (own / name).is_file()]
    for path in (own / "job.json", own / "tensors.json", folder / "rules.json", folder / "metrics.json"):
        if path.is_file():
            try:
                content = json.loads(path.read_text())
            except (OSError, ValueError) as error:
                found.append(f"{path} cannot be read ({reason(error)})")
            else:
                if not isinstance(content, dict | list):
                    found.append(f"{path} holds something else than it should")
    return found


def _of_job(aws: Aws, name: str, folder: Path) -> tuple[Path | None, str]:
    """The folder, and what is to be said where there is none."""
    try:
        job = training_jobs.described(aws, name)
    except CloudError as error:
        raise CloudError(f"{name}: no such file or folder here, and {error}") from None
    status = job["TrainingJobStatus"]
    missing = f"training job {name} is {status} and has left no {ARCHIVE}" + (
        ": it comes to S3 when the job ends" if status in ("InProgress", "Stopping") else ""
    )
    # The service's profiler may write to another prefix than the job.
    places = [job["OutputDataConfig"]["S3OutputPath"], job.get("ProfilerConfig", {}).get("S3OutputPath")]
    uris = dict.fromkeys(S3Uri.parse(place, "OutputDataConfig") / name for place in places if place)
    return next(filter(None, (_from_s3(aws, uri, folder) for uri in uris)), None), missing


def _from_s3(aws: Aws, uri: S3Uri, folder: Path) -> Path | None:
    """Archive and profiler's files at or below `uri`; None where there are none."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = uri.key.endswith((".tar.gz", ".tgz", ".tar"))
    for key in [uri] if whole else [uri / ARCHIVE, uri / "output" / ARCHIVE]:
        if objects.download(aws, key, folder / ARCHIVE):
            pack.unpack(folder / ARCHIVE, folder, LARGEST)
            (folder / ARCHIVE).unlink()
            break
    if not whole:
        wanted = [(uri / name, folder / name) for name in (*FOLDERS, "output/data")]
        wanted += [(uri / "output" / "profiler", folder / "profiler")]
        wanted += [(uri, folder)] if uri.key.rpartition("/")[2] in FOLDERS[1:] else []
        for prefix, target in wanted:
            _download_all(aws, prefix, target)
    return find(folder)


def _download_all(aws: Aws, prefix: S3Uri, folder: Path) -> None:
    def get(name: str) -> None:
        parts = PurePosixPath(name)
        if name and not name.endswith("/") and not parts.is_absolute() and ".." not in parts.parts:
            (folder / parts).parent.mkdir(parents=True, exist_ok=True)
            objects.download(aws, prefix / name, folder / parts)

    each(get, (name for name, _ in bucket.below(aws, prefix)), lambda *_: None, 8)
