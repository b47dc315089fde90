"""Requests to an asynchronous endpoint: images go there by their S3 addresses, answers are waited for in S3."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import ClientError

from scripts.aws import names
from scripts.aws.account import Aws
from scripts.aws.errors import one_line
from scripts.aws.names import S3Uri
from scripts.aws.parallel import each
from scripts.aws.polling import poll
from scripts.aws.settings import Settings
from scripts.console.command import Interrupted, progress
from scripts.endpoints import images, modes, stored_images
from scripts.endpoints.invocations import JSON, EndpointTarget, InvocationError, Result, parsed
from scripts.s3 import objects

POLL_SECONDS = 2.0
# The longest that a request may wait in the queue (the service's default), and that computing it may take.
LONGEST_SECONDS = 6 * 3600 + modes.ASYNC_SECONDS


@dataclass(frozen=True)
class _Pending:
    """A request that was accepted, and the addresses of its answer and of the reason why there is none."""

    image: str
    answer: S3Uri
    failure: S3Uri | None
    notice: str | None


def items(aws: Aws, texts: Sequence[str]) -> list[Path | S3Uri]:
    """Return the images that these words name; prefixes in S3 and folders stand for all images below them."""
    found: list[Path | S3Uri] = []
    for text in texts:
        if not text.startswith("s3://"):
            found += images.find([text])
        elif stored_images.is_image(text):
            found.append(S3Uri.parse(text, "IMAGE"))
        else:
            prefix = S3Uri.parse(text, "IMAGE")
            found += [prefix / key for key in stored_images.below(aws, prefix)]
    return found


class AsyncCall:
    """All images of one call; `uploads` is the prefix where those of this machine are put, and removed at the end."""

    def __init__(self, aws: Aws, endpoint: str, top_k: int, settings: Settings, threads: int) -> None:
        self.aws, self.endpoint, self.top_k, self.settings, self.threads = aws, endpoint, top_k, settings, threads
        bucket = settings.bucket or names.default_bucket(aws.region, aws.identity.account)
        self.uploads = S3Uri(bucket, settings.project) / "async" / names.unique("call")
        self.uploaded: list[str] = []

    def run(self, items: Sequence[Path | S3Uri]) -> list[Result]:
        """Return the results in the order of `items`. Raises botocore's errors for trouble with all of them."""
        results: dict[int, Result] = {}
        pending: dict[int, _Pending] = {}

        def keep(numbered: tuple[int, Path | S3Uri], sent: _Pending | Result) -> None:
            if isinstance(sent, Result):
                results[numbered[0]] = sent
            else:
                pending[numbered[0]] = sent

        try:
            each(self._send, enumerate(items), keep, self.threads)
            progress(f"{len(pending)} requests are in the queue of {self.endpoint}; waiting for their answers")
            self._wait(pending, results)
        except KeyboardInterrupt:
            places = sorted({str(one.answer).rpartition("/")[0] for one in pending.values()})
            raise Interrupted(
                f"interrupted: {len(results)} of {len(items)} answers have come, the others will be in"
                f" {', '.join(places) or 'no place'}; images sent from here stay in {self.uploads}"
            ) from None
        except Exception:
            if not pending:  # otherwise the queue may yet read them
                objects.delete(self.aws, self.uploads.bucket, self.uploaded)
            raise
        objects.delete(self.aws, self.uploads.bucket, self.uploaded)
        return [results[number] for number in range(len(items))]

    def _send(self, numbered: tuple[int, Path | S3Uri]) -> "_Pending | Result":
        number, item = numbered
        content_type, notice, place = "application/x-image", None, item
        if isinstance(item, Path):
            try:
                body = images.prepare(item)
            except images.PictureError as error:
                return Result(str(item), None, str(error), None, None)
            place = self.uploads / f"{number + 1}{item.suffix}"
            content_type, notice = body.content_type, body.notice
            objects.write(self.aws, place, body.content, self.settings, content_type)
            self.uploaded.append(place.key)
        target = EndpointTarget(self.aws, self.endpoint)
        try:
            answer = target.client.invoke_endpoint_async(
                EndpointName=self.endpoint,
                InputLocation=str(place),
                ContentType=content_type,
                Accept=JSON,
                CustomAttributes=f"top_k={self.top_k}",
                InvocationTimeoutSeconds=modes.ASYNC_SECONDS,
            )
        except ClientError as error:
            judged = target.judged(error)
            if isinstance(judged, InvocationError):  # of this request alone
                return Result(str(item), None, str(judged), notice, None)
            raise judged from None
        failure = answer.get("FailureLocation")
        return _Pending(
            str(item),
            S3Uri.parse(answer["OutputLocation"], "OutputLocation"),
            S3Uri.parse(failure, "FailureLocation") if failure else None,
            notice,
        )

    def _wait(self, pending: dict[int, _Pending], results: dict[int, Result]) -> None:
        """Move all that is pending to the results."""
        begun = time.monotonic()

        def look() -> int:
            late = time.monotonic() - begun > LONGEST_SECONDS

            def keep(item: tuple[int, _Pending], result: Result | None) -> None:
                number, one = item
                if result or late:
                    results[number] = result or Result(one.image, None, "no answer for 7 hours", one.notice, None)
                    del pending[number]

            each(self._look, list(pending.items()), keep, self.threads)
            return len(pending)

        poll(look, lambda left: not left, pause=POLL_SECONDS, say=progress, untouched="the queue", answered=True)

    def _look(self, item: tuple[int, _Pending]) -> Result | None:
        """Return the result if there is one by now."""
        one = item[1]
        if (content := objects.read(self.aws, one.answer)) is not None:
            try:
                return Result(one.image, parsed(content), None, one.notice, None)
            except InvocationError as error:
                return Result(one.image, None, str(error), one.notice, None)
        if one.failure and (content := objects.read(self.aws, one.failure)) is not None:
            return Result(one.image, None, one_line(content.decode(errors="replace"))[:500], one.notice, None)
        return None
