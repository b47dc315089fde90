"""PREFIX/manifest.json: what an upload has put below a prefix, and what it was about to put there.

It is written before the first file is sent, and at the end, also of an upload that breaks off. So after any break
it is known which objects are this program's.
"""

import json
from dataclasses import asdict, dataclass, field

from scripts.aws.account import Aws
from scripts.aws.errors import CloudError
from scripts.aws.names import S3Uri
from scripts.aws.settings import Settings
from scripts.s3 import objects

NAME = "manifest.json"
FORMAT = 1
MADE_BY = "byoc-image-classifier"


@dataclass(frozen=True)
class Entry:
    """An object as it was sent; `etag` is S3's, without quotes, and empty for what may be there or not."""

    sha256: str = ""
    bytes: int = 0
    etag: str = ""


@dataclass
class Manifest:
    """Keys are relative to the prefix. `complete` says that the upload went to its end."""

    files: dict[str, Entry] = field(default_factory=dict)
    kms_key: str | None = None
    complete: bool = False

    def dump(self) -> bytes:
        content = {
            "format": FORMAT,
            "made_by": MADE_BY,
            "complete": self.complete,
            "kms_key": self.kms_key,
            "files": {key: asdict(self.files[key]) for key in sorted(self.files)},
        }
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def load(cls, body: bytes, where: S3Uri) -> "Manifest":
        """Raises CloudError where it is none of this program's."""
        try:
            content = json.loads(body)
            if content["made_by"] != MADE_BY:
                raise ValueError("made by another program")
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, this program knows {FORMAT}")
            files = {key: Entry(**entry) for key, entry in content["files"].items()}
            return cls(files, content["kms_key"], content["complete"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"({type(error).__name__}: {error}): give another prefix, or empty this one"
            raise CloudError(f"{where} is no manifest that this program can read {why}") from None


def read(aws: Aws, prefix: S3Uri) -> Manifest | None:
    """Return the manifest of a prefix, None where there is none. Raises CloudError for another program's."""
    body = objects.read(aws, prefix / NAME)
    return None if body is None else Manifest.load(body, prefix / NAME)


def write(aws: Aws, prefix: S3Uri, manifest: Manifest, settings: Settings) -> None:
    objects.write(aws, prefix / NAME, manifest.dump(), settings, "application/json")
