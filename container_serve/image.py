"""From the bytes of an image file, of any sender, to an upright image in RGB."""

import ctypes
import io
import logging
import re
import resource
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import AvifImagePlugin, Image, ImageOps, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError
from PIL import WebPImagePlugin as _WebPImagePlugin  # noqa: F401  # else Image.open imports every plugin there is

from container_serve.errors import RequestError
from container_serve.resources import MAX_PIXEL_BYTES
from container_serve.settings import MAX_PIXELS

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF")
# Each scan is a pass over the whole image (0.1 s at 50 megapixels), and a few bytes suffice for one; encoders write
# about ten.
MAX_JPEG_SCANS = 100
# Bytes that decoding takes for a pixel, by mode and with its turned copy; measured at 16 to 49 megapixels, the most
# are AVIF (17), WebP (16) and floats (13). A JPEG takes those of what it is scaled to, and if progressive all its
# coefficients.
PIXEL_BYTES = {"1": 6, "L": 6, "RGB": 8}
TIFF_TILE_WIDTH, TIFF_TILE_LENGTH = 322, 323
TIFF_BITS_PER_SAMPLE, TIFF_PHOTOMETRIC, MIN_IS_WHITE = 258, 262, 0
PNG_DEPTH = 24  # the place of its bits for each value
END_OF_JPEG = b"\xff\xd9"
# Put before an end marker that was missing: for a decoder that still waits for data, or for a restart marker, these are
# pixels, and different ones.
FILLINGS = tuple(
    data * 64 + b"".join(bytes([0xFF, 0xD0 + i]) + data * 64 for i in range(8)) for data in (b"\0", b"\x55", b"\xaa")
)
BASE64 = (b"/9j/", b"iVBORw0KGgo", b"data:image/")  # of a JPEG, a PNG, any; as API gateways hand bodies on
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
AVIF_BRANDS = {b"avif", b"avis"}
HEIC = f"HEIC images are not taken: convert it to one of {', '.join(FORMATS)}"

AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each worker has its share of the cores
Image.preinit()

# Whoever sends a hostile file could otherwise fill the log. Set once and for the process: catch_warnings
# around each image would not be safe with threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def _silence_libtiff() -> None:
    """Take away the handler through which libtiff writes to stderr, past Pillow and Python (Linux only)."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
        for path in {path for line in lines if "libtiff" in (path := line.split(maxsplit=5)[-1])}:
            set_handler = ctypes.CDLL(path).TIFFSetErrorHandler
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)
    except (OSError, AttributeError):
        pass  # elsewhere: a noisier log, nothing worse


_silence_libtiff()


def decode(
    body: bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int | None = None, least: int | None = None
) -> Image.Image:
    """An upright RGB image from the bytes of a JPEG, PNG, WebP, AVIF, BMP, GIF or TIFF file of any mode
    declared as.

    EXIF orientation is applied, transparency is put on white, of an animation the first frame is taken;
    colour profiles are not applied (nor does torchvision). Greyscale of more than 8 bits is scaled down, see
    `_greyscale`. With `least` a JPEG may come out smaller than it is, by 2, 4 or 8, as long as its shorter side keeps
    that many pixels: the decoder then computes only these.

    Raises RequestError 400: "InvalidImage" for anything that cannot be decoded, "PixelLimit" for an image of
    more than `max_pixels` pixels, or one that takes more than `max_bytes` of memory to decode, both found in the
    header, before anything is decoded; 415 for HEIC.
    """
    if not body:
        raise _invalid("the image is empty (0 bytes)")
    if is_heic(body):
        raise RequestError(415, "UnsupportedMediaType", HEIC)
    # Pillow refuses from twice its own limit on, which is there for the whole process: only ever raise it.
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels
    name = "image"
    try:
        image: Image.Image = Image.open(io.BytesIO(body), formats=FORMATS)
        name = f"{image.format} image"
        _check_header(image, body, max_pixels)
        factor = _factor(image, least)
        if max_bytes is not None and (needed := _decoding_bytes(image, factor)) > max_bytes:
            raise _too_large(
                f"this {image.format} image of {image.width} x {image.height} pixels takes some {needed // 10**6} MB to"
                f" decode, and this server has {max_bytes // 10**6} MB for it: send a smaller one, or a baseline JPEG"
            )
        image = _loaded(image, body, factor, max_bytes)
        if image.format == "PNG":
            _scale_transparency(image, body[PNG_DEPTH])
        # A frame of a GIF may be larger than its header says.
        _check_size(image.size, max_pixels)
        with suppress(Exception):  # damaged EXIF data: a browser shows such an image as it lies
            ImageOps.exif_transpose(image, in_place=True)
        return _rgb(image)
    except RequestError:
        raise
    except UnidentifiedImageError:
        base64 = "; it is base64: send its bytes, or JSON with instances" if body.startswith(BASE64) else ""
        raise _invalid(f"the body is not an image that can be read (taken are {', '.join(FORMATS)}){base64}") from None
    except Image.DecompressionBombError:
        raise _too_large(f"the image has more than the {max_pixels} pixels allowed: send a smaller image") from None
    # A decoder fed hostile bytes raises nearly anything (struct.error, KeyError, ZeroDivisionError,
    # MemoryError ...).
    except Exception as error:
        raise _invalid(f"the {name} is broken or truncated{_reason(error)}") from None


def is_heic(body: bytes) -> bool:
    """Tell whether the file's own list of brands says HEIC, and not AVIF, which has the same container."""
    if body[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(body[:4], "big"), 256)
    brands = {body[8:12], *(body[at : at + 4] for at in range(16, end, 4))}
    return bool(brands & HEIC_BRANDS) and not brands & AVIF_BRANDS


def _invalid(message: str) -> RequestError:
    return RequestError(400, "InvalidImage", message)


def _too_large(message: str) -> RequestError:
    return RequestError(400, "PixelLimit", message)


def _loaded(image: Image.Image, body: bytes, factor: int, max_bytes: int | None) -> Image.Image:
    """`image` with its pixels. A JPEG may lack its end marker, as those of some webcams, but no pixel."""
    if image.format == "AVIF":
        with _memory(max_bytes):
            image.load()
        return image
    try:
        return _drafted(image, factor)
    except OSError as error:
        if not isinstance(image, JpegImagePlugin.JpegImageFile) or "truncated" not in str(error):
            raise
        data = body.rstrip(b"\xff")
        ended = [Image.open(io.BytesIO(data + filling + END_OF_JPEG), formats=("JPEG",)) for filling in FILLINGS]
        first, *others = (_drafted(each, factor) for each in ended)
        pixels = first.tobytes()
        if any(other.tobytes() != pixels for other in others):  # what follows the data became pixels
            raise
        return first


def _drafted(image: Image.Image, factor: int) -> Image.Image:
    if factor > 1:
        # It takes the largest power of 2, up to 8, that leaves at least this size.
        image.draft(image.mode, (image.width // factor, image.height // factor))
    image.load()
    return image


@contextmanager
def _memory(more: int | None) -> Iterator[None]:
    """Let this process take no more than so many further bytes. What an AVIF file says of its size may be a lie."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if more is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (min([limit, *(each for each in limits if each >= 0)]), limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _factor(image: Image.Image, least: int | None) -> int:
    """By how much the sides of a JPEG that is not decoded yet may shrink; 1 for any other image."""
    return max(1, min(image.size) // least) if least and isinstance(image, JpegImagePlugin.JpegImageFile) else 1


def _decoding_bytes(image: Image.Image, factor: int) -> int:
    """About what decoding takes, for a JPEG when its sides shrink by `factor` (down to the power of 2 below it)."""
    pixels: int = image.width * image.height
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        scale = 1 << min(3, factor.bit_length() - 1)
        coefficients = 2 * len(image.getbands()) * pixels if "progressive" in image.info else 0
        return coefficients + 8 * pixels // scale**2
    if image.format in ("AVIF", "WEBP"):
        return MAX_PIXEL_BYTES * pixels
    return PIXEL_BYTES.get(image.mode, MAX_PIXEL_BYTES) * pixels


def _reason(error: Exception) -> str:
    """Pillow's own words where they are fit for a caller: a line of plain text, no objects or addresses."""
    text = str(error).strip()
    if isinstance(error, OSError | ValueError | SyntaxError) and re.fullmatch(r"[\w ,.()'=:;/-]{3,100}", text):
        return "" if re.search(r"0x|object|Error|\.py", text) else f": {text}"
    return ""


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise _invalid(f"the image has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise _too_large(
            f"the image has {width} x {height} = {width * height} pixels, at most {max_pixels} are allowed:"
            " send a smaller image"
        )


def _check_header(image: Image.Image, body: bytes, max_pixels: int) -> None:
    _check_size(image.size, max_pixels)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile may be larger than the image, and is decompressed as a whole.
        width, height = (image.tag_v2.get(tag, 1) for tag in (TIFF_TILE_WIDTH, TIFF_TILE_LENGTH))
        if all(isinstance(side, int) and side > 0 for side in (width, height)):
            _check_size((width, height), max_pixels)
    # Within compressed data an FF byte is followed by 00 or a restart marker, so this counts scans (and thumbnails').
    # numpy would be faster, and would need three times the memory of the body, which nobody has counted.
    elif isinstance(image, JpegImagePlugin.JpegImageFile) and body.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise _invalid(f"the JPEG image has more than the {MAX_JPEG_SCANS} scans allowed")


def _scale_transparency(image: Image.Image, bits: int) -> None:
    """Give a PNG's transparent colour the 8 bits that its pixels have; `bits` are the file's own. See `_greyscale`."""
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    elif isinstance(clear, int) and image.mode == "L":
        image.info["transparency"] = clear * 255 // (2**bits - 1)


def _rgb(image: Image.Image) -> Image.Image:
    """`image` in RGB, transparency on white."""
    if image.mode.startswith("I") or image.mode == "F":
        return _greyscale(image).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")  # the only way that leads out of premultiplied greyscale
    if image.mode != "RGBA":
        image = image.convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(image, (0, 0), image)
    return page


def _greyscale(image: Image.Image) -> Image.Image:
    """Greyscale of more than 8 bits (16-bit PNG, TIFF of integers and floating point numbers) in mode L, on white.

    Unsigned integers of up to 16 bits are scaled from their full range. Nothing says what the range of 32-bit
    integers and floating point numbers is: 0..255 (or 0..1, floating point only) is assumed where all values are in
    it, then 0..65535, else the range found. Not-a-number counts as black.
    """
    values = np.array(image, dtype=np.float32)
    np.nan_to_num(values, copy=False, nan=0.0)
    clear = values == image.info.get("transparency", np.nan)  # a PNG's, of whole numbers
    low, high = 0.0, 65535.0
    if image.mode.startswith("I;16"):
        tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
        bits = tags.get(TIFF_BITS_PER_SAMPLE)
        if isinstance(bits, tuple) and bits[0] in range(9, 16):
            high = float(2 ** bits[0] - 1)
        if tags.get(TIFF_PHOTOMETRIC) == MIN_IS_WHITE:
            low, high = high, low
    else:
        least, most = float(values.min()), float(values.max())
        if least < 0 or most > 65535:
            low, high = least, most
        elif most <= 255:
            high = 1.0 if image.mode == "F" and most <= 1 else 255.0
    scale = 255 / ((high - low) or 1.0)
    values *= scale
    values -= low * scale
    values[clear] = 255
    return Image.fromarray(np.rint(np.clip(values, 0, 255, out=values), out=values).astype(np.uint8))
