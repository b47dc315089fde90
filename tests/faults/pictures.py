"""Pictures that are meant to hurt: few bytes that stand for many pixels, sizes that lie, damage of every kind."""

import random
import struct
import zlib
from collections.abc import Callable

from PIL import Image

from tests.container_serve.images import bmp_header, encode, gif, noise, png_chunk, png_header, seeds, tiff

MEGA = 10**6
OTHER_FORMATS = {
    "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "zip": b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(40),
    "elf": b"\x7fELF\x02\x01\x01" + bytes(60),
    "html": b"<!doctype html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(60),
    "avif": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + bytes(60),
    "psd": b"8BPS\0\x01" + bytes(30),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "ico": b"\0\0\x01\0\x01\0\x10\x10" + bytes(40),
    "ppm": b"P6\n60000 60000\n255\n" + bytes(100),
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60),
    "xpm": b'/* XPM */\nstatic char *x[] = {"9 9 1 1"};',
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + bytes(20),
}


def flat_png(width: int, height: int, *extra: bytes) -> bytes:
    """One grey level, compressed by a thousand; `extra` are chunks before the pixels."""
    packer = zlib.compressobj(1)
    row = bytes(1 + width)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A comment that becomes 40 MB."""
    return flat_png(20, 20, png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(40 * MEGA), 9)))


def scans(count: int, side: int = 64) -> bytes:
    """A progressive JPEG that repeats its last scan over and over: each is a pass over all of the picture."""
    body = encode(noise(side, side), "JPEG", progressive=True)
    last = body.rindex(b"\xff\xda")
    return body[:last] + body[last:-2] * count + b"\xff\xd9"


def sized_jpeg(width: int, height: int) -> bytes:
    """A JPEG whose header speaks of other sides than its data."""
    body = bytearray(encode(noise(40, 30), "JPEG"))
    at = body.index(b"\xff\xc0") + 5
    body[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(body)


def sized_webp(width: int, height: int) -> bytes:
    """An extended WebP of one colour, whose canvas is as large as it says."""
    body = bytearray(
        encode(Image.new("RGBA", (9, 9), (1, 2, 3, 4)), "WEBP", lossless=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")
    )
    at = body.index(b"VP8X") + 12
    body[at : at + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(body)


def deflated_tiff(width: int, height: int) -> bytes:
    packed = zlib.compress(bytes(width * 100), 9)
    return tiff([(258, 8), (259, 8), (262, 1)], packed, width=width, height=height)


def endless_tiff() -> bytes:
    """Its list of pages leads back to itself."""
    body = bytearray(tiff([(258, 8), (262, 1)], bytes(16), width=16))
    start = struct.unpack_from("<I", body, 4)[0]
    struct.pack_into("<I", body, len(body) - 4, start)
    return bytes(body)


def sized_avif(side: int, width: int, height: int) -> bytes:
    """An AVIF of one colour whose container speaks of other sides than its data."""
    body = bytearray(encode(Image.new("RGB", (side, side), "red"), "AVIF", speed=10))
    at = body.index(b"ispe") + 8
    body[at : at + 8] = struct.pack(">II", width, height)
    return bytes(body)


BOMBS: dict[str, Callable[[], bytes]] = {
    "png 40 MP, flat": lambda: flat_png(8000, 5000),
    "png over the limit": lambda: flat_png(9000, 6000),
    "png 2^31 sides": lambda: png_header(2**31 - 1, 2**31 - 1),
    "png one long line": lambda: flat_png(20 * MEGA, 1),
    "png text of 40 MB": text_bomb,
    "png colour profile of 40 MB": lambda: flat_png(
        20, 20, png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(40 * MEGA), 9))
    ),
    "png many chunks": lambda: flat_png(20, 20, *[png_chunk(b"tEXt", b"k\0v")] * 50_000),
    "bmp 2^30 sides": lambda: bmp_header(2**30, 2**30),
    "bmp upside down": lambda: bmp_header(40, -(2**31)),
    "gif screen 65535": lambda: gif(65535, 65535, 1, 1),
    "gif frame 65535": lambda: gif(1, 1, 65535, 65535),
    "jpeg 65535 sides": lambda: sized_jpeg(65535, 65535),
    "jpeg 7000 sides": lambda: sized_jpeg(7000, 7000),
    "jpeg 7000 sides, no end": lambda: sized_jpeg(7000, 7000)[:-2],
    "jpeg 1000 scans": lambda: scans(1000),
    "jpeg 90 scans": lambda: scans(90, 512),
    "webp 2^24 sides": lambda: sized_webp(2**24, 2**24),
    "webp 16383 sides": lambda: sized_webp(16383, 16383),
    "avif 2^31 sides": lambda: sized_avif(40, 2**31 - 1, 2**31 - 1),
    "avif of 8 x 8 with 16 MP": lambda: sized_avif(4000, 8, 8),
    "avif 49 MP with 1600": lambda: sized_avif(40, 7000, 7000),
    "tiff 2^31 wide": lambda: tiff([(258, 8), (262, 1)], bytes(16), width=2**31 - 1),
    "tiff tile of 60000": lambda: tiff(
        [(258, 8), (262, 1), (322, 60000), (323, 60000), (324, 8), (325, 16)], bytes(16), width=16
    ),
    "tiff deflate": lambda: deflated_tiff(60_000, 800),
    "tiff without end": endless_tiff,
    "mpo of itself": lambda: encode(noise(40, 30), "MPO", save_all=True, append_images=[noise(40, 30)] * 200),
}
ZERO: dict[str, Callable[[], bytes]] = {
    "png 0 x 0": lambda: png_header(0, 0),
    "png 0 wide": lambda: png_header(0, 9),
    "bmp 0 x 0": lambda: bmp_header(0, 0),
    "gif 0 x 0": lambda: gif(0, 0, 0, 0),
    "jpeg 0 x 0": lambda: sized_jpeg(0, 0),
    "jpeg 0 high": lambda: sized_jpeg(40, 0),
    "webp 1 x 2^24": lambda: sized_webp(1, 2**24),
    "tiff 0 wide": lambda: tiff([(258, 8), (262, 1)], bytes(16), width=0),
}


def truncated(body: bytes, dice: random.Random) -> bytes:
    return body[: dice.randrange(len(body))]


def flipped(body: bytes, dice: random.Random) -> bytes:
    found = bytearray(body)
    for _ in range(dice.choice([1, 1, 3, 20])):
        found[dice.randrange(min(len(found), dice.choice([60, 400, 10**6])))] ^= 1 << dice.randrange(8)
    return bytes(found)


def overwritten(body: bytes, dice: random.Random) -> bytes:
    found = bytearray(body)
    at = dice.randrange(min(len(found), dice.choice([60, 400, 10**6])))
    found[at : at + 4] = dice.choice([b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\x80\0\0\0"])
    return bytes(found)


def cut(body: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(body))
    return body[:at] + body[at + dice.randrange(1, 60) :]


def stuffed(body: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(body))
    return body[:at] + dice.randbytes(dice.randrange(1, 60)) + body[at:]


def spliced(body: bytes, dice: random.Random) -> bytes:
    """The first half of one picture, the second of another."""
    other = dice.choice(seeds_once())
    return body[: len(body) // 2] + other[len(other) // 2 :]


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "truncated": truncated,
    "flipped": flipped,
    "overwritten": overwritten,
    "cut": cut,
    "stuffed": stuffed,
    "spliced": spliced,
}
_SEEDS: list[bytes] = []


def seeds_once() -> list[bytes]:
    if not _SEEDS:
        _SEEDS.extend(seeds())
    return _SEEDS
