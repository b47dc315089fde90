"""Images on their way to an endpoint: found, recognised by their bytes, scaled down where they are too large."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from container_serve.errors import RequestError
from container_serve.image import FORMATS, decode, is_heic
from container_serve.settings import MAX_PIXELS, MAX_REQUEST_BYTES
from container_train.data import listing
from container_train.data.labels import natural
from scripts.aws.errors import CloudError, one_line
from scripts.console.command import progress

# A scaled picture begins with this many pixels: several times what a classifier looks at, and some 4 MB as JPEG.
SCALED_PIXELS = 12_000_000
QUALITY = 95
# What can be scaled down here at all; a picture of so many pixels takes 3 GB of memory.
MAX_LOCAL_PIXELS = 1_000_000_000
MAX_FILE_BYTES = 2_000_000_000
_TYPES = {"MPO": "image/jpeg"}  # several JPEGs in one file, as some phones write them


class PictureError(Exception):
    """Return the reason why a file cannot be sent, in one line without its name."""


@dataclass(frozen=True)
class Body:
    """The image as it is sent; `notice` says in a few words what was done to it."""

    content: bytes
    content_type: str
    notice: str | None


def find(arguments: Sequence[str]) -> list[Path]:
    """The files, and the images in folders at any depth. Raises CloudError for a folder without any."""
    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            pictures, others = listing.divide(listing.files(path))
            if others:
                progress(listing.of_others([str(other) for other in others]))
            if not pictures:
                raise CloudError(f"{path}: no images in this folder ({', '.join(FORMATS)})", 2)
            found += sorted(pictures, key=lambda picture: natural(str(picture)))
        else:
            found.append(path)
    return found


def prepare(path: Path, max_bytes: int = MAX_REQUEST_BYTES, max_pixels: int = MAX_PIXELS) -> Body:
    """The file as it is where it may be sent so, otherwise a smaller JPEG of it. Raises PictureError."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise PictureError(f"has {size / 1e9:.1f} GB, which is not an image to send")
        content = path.read_bytes()
    except OSError as error:
        raise PictureError(os.strerror(error.errno or 0) if error.errno else str(error)) from None
    if not content:
        raise PictureError("is empty")
    # The limit on what is decoded is MAX_LOCAL_PIXELS; only the header is read here.
    Image.MAX_IMAGE_PIXELS = max(MAX_LOCAL_PIXELS, Image.MAX_IMAGE_PIXELS or 0)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            kind, (width, height) = image.format or "", image.size
    except UnidentifiedImageError:
        raise PictureError(_unknown(content)) from None
    except Image.DecompressionBombError:
        raise PictureError(f"has more than {MAX_LOCAL_PIXELS:,} pixels") from None
    except OSError as error:
        raise PictureError(f"is a broken image: {one_line(str(error)).lower()}") from None
    except Exception:  # a decoder that is fed broken bytes raises nearly anything
        raise PictureError("is a broken image") from None
    pixels = width * height
    if len(content) <= max_bytes and pixels <= max_pixels:
        return Body(content, _TYPES.get(kind, f"image/{kind.lower()}"), None)
    limit = f"{pixels:,} pixels, over {max_pixels:,}"
    if len(content) > max_bytes:
        limit = f"{len(content):,} bytes, over {max_bytes:,}"
    scaled, side = _scaled(content, max_bytes, max_pixels)
    return Body(scaled, "image/jpeg", f"has {limit}: sent as JPEG of {side[0]} x {side[1]}, {len(scaled):,} bytes")


def _scaled(content: bytes, max_bytes: int, max_pixels: int) -> tuple[bytes, tuple[int, int]]:
    """A JPEG within both limits, made upright and RGB as the server would, and its width and height."""
    try:
        image = decode(content, max_pixels=MAX_LOCAL_PIXELS)
    except RequestError as error:
        raise PictureError(str(error)) from None
    pixels = float(min(SCALED_PIXELS, max_pixels))
    while True:
        factor = min(1.0, (pixels / (image.width * image.height)) ** 0.5)
        size = (max(1, int(image.width * factor)), max(1, int(image.height * factor)))
        buffer = io.BytesIO()
        image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0).save(buffer, "JPEG", quality=QUALITY)
        if buffer.tell() <= max_bytes:
            return buffer.getvalue(), size
        pixels = min(pixels, size[0] * size[1]) * 0.7


def _unknown(content: bytes) -> str:
    taken = ", ".join(FORMATS)
    if is_heic(content):
        return f"is a HEIC image, which the server does not take: convert it to one of {taken}"
    return f"is not an image that the server takes ({taken})"
