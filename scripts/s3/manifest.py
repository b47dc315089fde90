"""PREFIX/manifest.json: what an upload has put below a prefix, and what it was about to put there.

It is written before the first file is sent, and at the end, also of an upload that breaks off. So after any break
it is known which objects are this program's.
"""

import json
import secrets
from dataclasses import asdict, dataclass, field

from botocore.exceptions import ClientError

from scripts.aws.account import Aws
from scripts.aws.errors import CloudError, code_of
from scripts.aws.names import S3Uri
from scripts.aws.settings import Settings
from scripts.s3.objects import encryption, s3_location

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

    def dump(self, upload: str) -> bytes:
        """`upload` is a word for the call that writes it: no two calls' manifests are the same bytes."""
        content = {
            "format": FORMAT,
            "made_by": MADE_BY,
            "upload": upload,
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
            files = dict.fromkeys(content.get("pending", ()), Entry())  # of earlier versions
            files |= {key: Entry(**entry) for key, entry in content["files"].items()}
            return cls(files, content["kms_key"], content["complete"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CloudError(
                f"{where} is no manifest that this program can read ({type(error).__name__}: {error}): give another"
                " prefix, or empty this one"
            ) from None


class Stored:
    """The manifest's object. It is written only over the version that was read or written here last.

    So of two uploads to one prefix one ends with an error, and never do both believe that they wrote it all.
    """

    def __init__(self, aws: Aws, prefix: S3Uri, settings: Settings) -> None:
        self.s3, self.where = aws.client("s3"), prefix / NAME
        self.settings = settings
        self.upload = secrets.token_hex(8)
        self.etag: str | None = None

    def read(self) -> Manifest | None:
        body, self.etag = self._get()
        return None if body is None else Manifest.load(body, self.where)

    def write(self, manifest: Manifest) -> None:
        """Raises CloudError where another upload has written it since."""
        body = manifest.dump(self.upload)
        condition = {"IfNoneMatch": "*"} if self.etag is None else {"IfMatch": self.etag}
        try:
            answer = self.s3.put_object(
                **s3_location(self.where),
                Body=body,
                ContentType="application/json",
                **condition,
                **encryption(self.settings),
            )
            self.etag = answer["ETag"]
        except ClientError as error:
            # NoSuchKey: it was removed since.
            if code_of(error) not in {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"}:
                raise
            # When an answer gets lost on its way, boto3 sends again, and finds what it wrote the first time.
            there, etag = self._get()
            if there != body:
                raise CloudError(
                    f"another upload has written {self.where} meanwhile: wait until it has ended, then call this again"
                ) from None
            self.etag = etag

    def _get(self) -> tuple[bytes | None, str | None]:
        try:
            answer = self.s3.get_object(**s3_location(self.where))
        except ClientError as error:
            if code_of(error) == "NoSuchKey":
                return None, None
            raise
        return answer["Body"].read(), answer["ETag"]
