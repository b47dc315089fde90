"""Pictures for the tests: ordinary ones, ones made by hand that no encoder would write, and damaged ones."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def grey16(values: list[int]) -> Image.Image:
    return Image.fromarray(np.array([values], dtype=np.uint16))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"x"))


def png_with_transparent(bits: int, kind: int, pixels: bytes, colour: bytes) -> bytes:
    """Two pixels in a PNG of that many bits and type of colour, in which one colour is transparent."""
    header = struct.pack(">IIBBBBB", 2, 1, bits, kind, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"tRNS", colour), (b"IDAT", zlib.compress(b"\0" + pixels)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def bmp_header(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 154, 0, 0, 54) + info + bytes(100)


def gif(width: int, height: int, frame_width: int, frame_height: int) -> bytes:
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, frame_width, frame_height, 0)
    return b"GIF89a" + screen + frame + b"\x02\x02D\x01\x00;"


def tiff(tags: list[tuple[int, int]], data: bytes, *, width: int, height: int = 1, order: str = "<") -> bytes:
    """A TIFF of one strip (or of the tiles that `tags` describe); the data begins at byte 8."""
    entries = {256: width, 257: height, 259: 1, 277: 1, **dict(tags)}
    if 322 not in entries:
        entries |= {273: 8, 278: height, 279: len(data)}
    data += bytes(len(data) % 2)
    directory = struct.pack(f"{order}H", len(entries))
    for tag, value in sorted(entries.items()):
        short = tag in (258, 259, 262, 277)
        packed = struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
        directory += struct.pack(f"{order}HHI", tag, 3 if short else 4, 1) + packed
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(f"{order}I", 8 + len(data)) + data + directory + bytes(4)


def seeds() -> list[bytes]:
    image, grey = noise(40, 30), noise(40, 30).convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6
    bodies = [
        encode(image, "JPEG"),
        encode(image, "JPEG", progressive=True, exif=exif),
        encode(image.convert("CMYK"), "JPEG"),
        encode(image, "MPO", save_all=True, append_images=[image]),
        encode(image, "WEBP"),
        encode(image, "WEBP", save_all=True, append_images=[image.rotate(90)]),
        encode(image.convert("RGBA"), "WEBP", lossless=True, exif=exif),
        encode(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
        encode(image.convert("P"), "PNG", transparency=3),
        encode(grey16([0, 1, 65535]), "PNG"),
        encode(Image.fromarray(np.asarray(grey, dtype=np.float32)), "TIFF"),
        encode(grey.convert("1"), "TIFF", compression="group4"),
        encode(image, "AVIF", speed=10),
        encode(image.convert("RGBA"), "AVIF", speed=10, exif=exif),
    ]
    bodies += [encode(picture, kind) for kind in ("PNG", "BMP", "TIFF") for picture in (image, grey.convert("1"))]
    bodies += [encode(image, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")]
    return bodies


def mutations(count: int, seed: int) -> Iterator[bytes]:
    """Flipped bits, deleted, inserted and overwritten bytes, mostly near the header; reproducible."""
    dice = random.Random(seed)
    bodies = seeds()
    for _ in range(count):
        body = bytearray(dice.choice(bodies))
        for _ in range(dice.choice([1, 1, 2, 5, 20])):
            at = dice.randrange(min(len(body), dice.choice([60, 300, 10**6])))
            match dice.randrange(5):
                case 0:
                    body[at] ^= 1 << dice.randrange(8)
                case 1:
                    body[at : at + 4] = dice.choice([b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff"])
                case 2:
                    del body[at + 1 : at + dice.randrange(2, 40)]
                case 3:
                    body[at:at] = dice.randbytes(dice.randrange(1, 20))
                case 4 if at:
                    del body[at:]
        yield bytes(body)
