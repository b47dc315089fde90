"""Pictures are compared with what a browser shows."""

import base64
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from container_serve.errors import RequestError
from container_serve.image import FORMATS, MAX_JPEG_SCANS, decode
from tests.browser import Browser
from tests.container_serve.images import (
    bmp_header,
    encode,
    gif,
    grey16,
    mutations,
    noise,
    png_chunk,
    png_header,
    png_with_transparent,
    tiff,
)

# pytest replaces the filters that the module under test sets; one test below runs without pytest.
pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")

ROOT = Path(__file__).parents[2]
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def pixel(body: bytes, x: int = 0, y: int = 0) -> Any:
    image = decode(body)
    assert image.mode == "RGB"
    return image.getpixel((x, y))


def refusal(body: bytes, **options: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode(body, **options)
    error = caught.value
    assert error.status == 400
    assert "\n" not in str(error)
    assert "0x" not in str(error)
    assert "Traceback" not in str(error)
    return error


# --- colours ---


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_taken(kind: str) -> None:
    r, g, b = pixel(encode(Image.new("RGB", (8, 8), RED), kind))
    assert r > 250
    assert g < 5
    assert b < 5


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "BMP"])
def test_modes_without_transparency(mode: str, kind: str) -> None:
    image = Image.new("L", (4, 4), 255).convert(mode)
    assert pixel(encode(image, kind)) == WHITE
    assert pixel(encode(Image.new("L", (4, 4), 0).convert(mode), kind)) == BLACK


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_transparency_lies_on_white(kind: str, options: dict[str, Any]) -> None:
    image = Image.new("RGBA", (2, 1))
    image.putpixel((0, 0), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 127))
    body = encode(image, kind, **options)
    assert pixel(body, 0) == WHITE
    assert pixel(body, 1) == (255, 128, 128)


def test_grey_with_alpha_lies_on_white() -> None:
    assert pixel(encode(Image.new("LA", (2, 2), (0, 0)), "PNG")) == WHITE
    assert pixel(encode(Image.new("LA", (2, 2), (0, 127)), "PNG")) == (128, 128, 128)
    assert pixel(encode(Image.new("LA", (2, 2), (0, 0)), "TIFF")) == WHITE


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    body = encode(image, kind, transparency=1)
    assert pixel(body, 0) == RED
    assert pixel(body, 1) == WHITE


def test_a_palette_with_an_alpha_per_entry() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLACK])
    image.putpixel((1, 0), 1)
    body = encode(image, "PNG", transparency=bytes([255, 127]))
    assert pixel(body, 0) == RED
    assert pixel(body, 1) == (128, 128, 128)


@pytest.mark.parametrize(("mode", "colour"), [("RGB", BLUE), ("L", 7), ("1", 0)])
def test_a_transparent_colour_is_white(mode: str, colour: Any) -> None:
    assert pixel(encode(Image.new(mode, (2, 2), colour), "PNG", transparency=colour)) == WHITE


@pytest.mark.parametrize(
    ("bits", "kind", "pixels", "colour", "other"),
    [
        (2, 0, b"\x60", b"\0\1", (170, 170, 170)),
        (4, 0, b"\x3c", b"\0\3", (204, 204, 204)),
        (16, 0, b"\x03\xe8\x75\x30", b"\x03\xe8", (117, 117, 117)),
        (16, 2, b"\x03\xe8\0\0\0\0\xff\xff\0\0\0\0", b"\x03\xe8\0\0\0\0", RED),
    ],
)
def test_a_transparent_colour_of_other_than_8_bits_is_white(
    bits: int, kind: int, pixels: bytes, colour: bytes, other: Any
) -> None:
    body = png_with_transparent(bits, kind, pixels, colour)
    assert (pixel(body, 0), pixel(body, 1)) == (WHITE, other)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = [0, 255, 256, 257, 32768, 40000, 65535]
    image = decode(encode(grey16(values), kind))
    assert [image.getpixel((x, 0)) for x in range(7)] == [(v,) * 3 for v in (0, 1, 1, 1, 128, 156, 255)]


def test_16_bit_grey_is_scaled_exactly() -> None:
    values = np.arange(65536).astype(np.uint16).reshape(-1, 2)
    image = decode(encode(Image.fromarray(values), "PNG", compress_level=1))
    np.testing.assert_array_equal(np.asarray(image)[:, :, 0], np.rint(values / 257))


def test_big_endian_16_bit_tiff() -> None:
    body = tiff([(258, 16), (262, 1)], struct.pack(">3H", 0, 32768, 65535), width=3, order=">")
    assert [pixel(body, x)[0] for x in range(3)] == [0, 128, 255]


def test_16_bit_tiff_where_the_least_value_is_white() -> None:
    body = tiff([(258, 16), (262, 0)], struct.pack("<3H", 0, 32768, 65535), width=3)
    assert [pixel(body, x)[0] for x in range(3)] == [255, 127, 0]


def test_12_bit_tiff_uses_its_own_range() -> None:
    body = tiff([(258, 12), (262, 1)], bytes([0x00, 0x0F, 0xFF]), width=2)  # 0 and 4095, packed
    assert [pixel(body, x)[0] for x in range(2)] == [0, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 127.6, 255.0], [0, 128, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-10.0, 0.0, 10.0], [0, 128, 255]),
        ([0.0, float("nan"), 1.0], [0, 0, 255]),
        ([float("-inf"), 0.0, float("inf")], [0, 128, 255]),
        ([-5.0, -5.0, -5.0], [0, 0, 0]),
    ],
)
def test_floating_point_tiff(values: list[float], expected: list[int]) -> None:
    image = decode(encode(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF"))
    assert [image.getpixel((x, 0)) for x in range(3)] == [(v,) * 3 for v in expected]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 200, 255], [0, 200, 255]), ([0, 32768, 65535], [0, 128, 255]), ([0, 2**30, 2**31 - 1], [0, 128, 255])],
)
def test_32_bit_tiff(values: list[int], expected: list[int]) -> None:
    image = decode(encode(Image.fromarray(np.array([values], dtype=np.int32)), "TIFF"))
    assert [image.getpixel((x, 0)) for x in range(3)] == [(v,) * 3 for v in expected]


def test_adobe_cmyk_jpeg_is_not_inverted() -> None:
    body = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    assert b"Adobe" in body  # stored inverted, as Photoshop does
    r, g, b = pixel(body)
    assert (r > 245, g < 10, b < 10) == (True, True, True)


def cmyk_files() -> dict[str, bytes]:
    """CMYK as Adobe stores it, the same without the segment that says so, and YCCK."""
    adobe = encode(Image.new("CMYK", (16, 16), (0, 255, 200, 30)), "JPEG", quality=100)
    at = adobe.index(b"\xff\xee")
    bare = adobe[:at] + adobe[at + 2 + int.from_bytes(adobe[at + 2 : at + 4], "big") :]
    assert b"Adobe" not in bare
    transform = adobe.index(b"Adobe") + 11
    return {"adobe": adobe, "bare": bare, "ycck": adobe[:transform] + b"\x02" + adobe[transform + 1 :]}


def test_cmyk_without_adobe_s_marker_is_inverted_too() -> None:
    files = cmyk_files()
    assert pixel(files["bare"]) == pixel(files["adobe"]) == (225, 0, 49)


def test_cmyk_looks_as_in_a_browser(tmp_path: Path) -> None:
    script = """new Promise((done, failed) => { const image = new Image(); image.onerror = failed;
        image.onload = () => {
        const context = document.createElement('canvas').getContext('2d'); context.drawImage(image, 0, 0);
        done([...context.getImageData(8, 8, 1, 1).data].slice(0, 3)) }; image.src = 'data:image/jpeg;base64,%s' })"""
    (tmp_path / "page.html").write_text("<title>page</title>")
    with Browser(tmp_path / "profile") as browser:
        browser.open(tmp_path / "page.html", 400)
        for name, body in cmyk_files().items():
            shown = browser.ask(script % base64.b64encode(body).decode())
            assert np.abs(np.subtract(shown, pixel(body))).max() <= 2, name


def test_ycck_jpeg() -> None:
    # Red, as Adobe stores it: inverted CMYK (255, 0, 0, 255), of which YCCK is, by BT.601, (179, 171, 1, 255). Pillow
    # inverts what it saves. The last byte of the Adobe segment then says how to read it: 2 is YCCK.
    body = encode(Image.new("CMYK", (8, 8), (255 - 179, 255 - 171, 255 - 1, 0)), "JPEG", quality=100)
    at = body.index(b"Adobe") + 11
    assert body[at] == 0
    for got, expected in zip(pixel(body[:at] + b"\x02" + body[at + 1 :]), RED, strict=True):
        assert abs(got - expected) <= 4


def test_cmyk_and_ycbcr_tiff() -> None:
    assert pixel(encode(Image.new("CMYK", (4, 4), (255, 255, 0, 0)), "TIFF")) == BLUE
    for got, expected in zip(pixel(encode(Image.new("RGB", (4, 4), RED).convert("YCbCr"), "TIFF")), RED, strict=True):
        assert abs(got - expected) <= 2


def test_lab_is_converted() -> None:
    lab = ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    image = ImageCms.applyTransform(Image.new("RGB", (4, 4), RED), transform)
    assert image is not None
    for got, expected in zip(pixel(encode(image, "TIFF"), 0), RED, strict=True):
        assert abs(got - expected) <= 5


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_of_several_frames_the_first_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    r, g, b = pixel(encode(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert (r > 240, g < 15, b < 15) == (True, True, True)


# --- orientation ---


CORNERS = np.array([[RED, GREEN], [BLUE, WHITE]], dtype=np.uint8)
UPRIGHT = {  # EXIF orientation -> the corners upper left, upper right, lower left, lower right (EXIF 2.3, 4.6.4 A)
    1: (RED, GREEN, BLUE, WHITE),
    2: (GREEN, RED, WHITE, BLUE),
    3: (WHITE, BLUE, GREEN, RED),
    4: (BLUE, WHITE, RED, GREEN),
    5: (RED, BLUE, GREEN, WHITE),
    6: (BLUE, RED, WHITE, GREEN),
    7: (WHITE, GREEN, BLUE, RED),
    8: (GREEN, WHITE, RED, BLUE),
}


@pytest.mark.parametrize(
    ("orientation", "kind"), [*((n, "JPEG") for n in UPRIGHT), (6, "PNG"), (6, "TIFF"), (6, "WEBP")]
)
def test_exif_orientation(orientation: int, kind: str) -> None:
    image = Image.fromarray(CORNERS.repeat(32, axis=0).repeat(16, axis=1))  # 32 wide, 64 high
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    upright = decode(encode(image, kind, exif=exif, **options))
    width, height = upright.size
    assert (width, height) == ((32, 64) if orientation < 5 else (64, 32))
    found = [upright.getpixel((x, y)) for y in (1, height - 2) for x in (1, width - 2)]
    for got, expected in zip(found, UPRIGHT[orientation], strict=True):
        np.testing.assert_allclose(np.array(got), expected, atol=8 if kind == "JPEG" else 0)


@pytest.mark.parametrize("damage", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_exif_leaves_the_picture_as_it_lies(damage: bytes) -> None:
    body = encode(noise(30, 20), "JPEG", exif=damage)
    assert decode(body).size == (30, 20)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_unknown_orientation_is_ignored(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert decode(encode(noise(30, 20), "JPEG", exif=exif)).size == (30, 20)


# --- what is refused ---


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"<html>not found</html>",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"%PDF-1.7\n",
        b"GIF89a",
        b"BM",
        b"\xff\xd8\xff",
        b"RIFF\0\0\0\0WEBP",
        b"II*\0",
        b"\x80\x04\x95pickle",
        b"\x93NUMPY\x01\0",
    ],
)
def test_what_is_no_image_is_refused(body: bytes) -> None:
    assert refusal(body).kind == "InvalidImage"


@pytest.mark.parametrize("kind", ["PPM", "ICO", "TGA", "PCX", "EPS", "PDF", "JPEG2000", "SGI", "DDS"])
def test_other_formats_of_pillow_are_refused(kind: str) -> None:
    assert "taken are JPEG, PNG" in str(refusal(encode(noise(20, 20), kind)))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_file_is_refused(kind: str) -> None:
    body = encode(noise(200, 100), kind)
    for share in (0.5, 0.9):
        assert refusal(body[: int(len(body) * share)]).kind == "InvalidImage"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}])
@pytest.mark.parametrize("least", [None, 64])
def test_a_jpeg_without_its_end_marker_is_whole(options: dict[str, Any], least: int | None) -> None:
    body = encode(noise(203, 171), "JPEG", **options)
    whole = decode(body, least=least).tobytes()
    for cut in (body[:-1], body[:-2], body[:-2] + bytes(100), body[:-2] + b"\xff" * 3):
        assert decode(cut, least=least).tobytes() == whole


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"subsampling": 0}])
@pytest.mark.parametrize("colours", ["noise", "one"])
def test_a_jpeg_without_its_last_pixels_is_refused(options: dict[str, Any], colours: str) -> None:
    image = noise(203, 171) if colours == "noise" else Image.new("RGB", (203, 171), (90, 120, 30))
    body = encode(image, "JPEG", **options)
    start = body.rindex(b"\xff\xda") + 14  # of the data
    last = len(body) - 2 - 12  # of noise some cuts within the last block cannot be seen
    cuts = {*range(last - 40, last), *range(start, last, max(1, (last - start) // 60))}
    if "restart_marker_rows" in options:  # at the end of each interval, before and after its marker
        places = [at for at in range(start, len(body)) if body[at] == 0xFF and body[at + 1] in range(0xD0, 0xD8)]
        cuts |= {*places, *(at + 2 for at in places)}
    for cut in sorted(cuts):
        assert refusal(body[:cut]).kind == "InvalidImage", cut


def test_heic_is_named() -> None:
    for brands in (b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heic", b"msf1\0\0\0\0hevcmsf1", b"heix\0\0\0\0"):
        body = struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(100)
        with pytest.raises(RequestError, match="HEIC images are not taken: convert it to one of JPEG, PNG") as caught:
            decode(body)
        assert (caught.value.status, caught.value.kind) == (415, "UnsupportedMediaType")
    assert refusal(b"\0\0\0\x14ftypmp42\0\0\0\0mp42" + bytes(100)).kind == "InvalidImage"


def test_avif_with_the_brand_of_its_container_first() -> None:
    body = encode(Image.new("RGB", (8, 8), RED), "AVIF")
    assert body[8:12] == b"avif"
    r, g, b = pixel(body[:8] + b"mif1" + body[12:])
    assert (r > 250, g < 5, b < 5) == (True, True, True)


def test_an_avif_that_lies_about_its_size_gets_no_more_memory(tmp_path: Path) -> None:
    body = encode(Image.new("RGB", (5000, 5000), RED), "AVIF", speed=10)
    at = body.index(b"ispe") + 8
    (tmp_path / "small.avif").write_bytes(body[:at] + struct.pack(">II", 8, 8) + body[at + 8 :])
    program = f"""if True:
        import resource
        from pathlib import Path
        from container_serve.errors import RequestError
        from container_serve.image import decode
        body = Path({str(tmp_path / "small.avif")!r}).read_bytes()
        before = resource.getrlimit(resource.RLIMIT_AS)
        for most in (20_000_000, None):  # its data takes 100 MB
            try:
                print(decode(body, max_bytes=most).size)
            except RequestError as error:
                print(error.kind)
        assert resource.getrlimit(resource.RLIMIT_AS) == before
    """
    # A process of its own: what was freed before could be taken again.
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (run.stdout, run.stderr) == ("InvalidImage\n(8, 8)\n", "")
    assert decode(body, max_bytes=500_000_000).size == (5000, 5000)
    assert refusal(body, max_bytes=400_000_000).kind == "PixelLimit"


def test_the_message_says_what_is_wrong() -> None:
    body = encode(noise(200, 100), "JPEG")
    assert str(refusal(body[: len(body) // 2])).startswith(
        "the JPEG image is broken or truncated: image file is truncated"
    )


def test_the_pixel_limit_counts_before_decoding() -> None:
    body = encode(Image.new("1", (100, 50)), "PNG")
    assert decode(body, max_pixels=5000).size == (100, 50)
    error = refusal(body, max_pixels=4999)
    assert error.kind == "PixelLimit"
    assert "100 x 50 = 5000 pixels, at most 4999" in str(error)
    # Nothing of this one could be decoded, only its header is right.
    assert refusal(png_header(8000, 7000)).kind == "PixelLimit"


@pytest.mark.parametrize(
    ("mode", "format", "options", "megabytes"),
    [
        ("RGB", "PNG", {}, 8),
        ("L", "PNG", {}, 6),
        ("RGBA", "PNG", {}, 17),
        ("RGB", "WEBP", {"lossless": True}, 17),
        ("RGB", "AVIF", {"speed": 10}, 17),
        ("P", "GIF", {}, 17),
        ("RGB", "JPEG", {}, 2),  # of half the width and height
        ("RGB", "JPEG", {"progressive": True}, 8),  # six bytes of coefficients a pixel
    ],
)
def test_the_memory_limit_counts_before_decoding(
    mode: str, format: str, options: dict[str, bool], megabytes: int
) -> None:
    body = encode(Image.new(mode, (1000, 1000)), format, **options)
    assert decode(body, max_bytes=megabytes * 10**6, least=464).mode == "RGB"
    with pytest.raises(RequestError, match=rf"1000 x 1000 pixels takes some {megabytes} MB to decode") as caught:
        decode(body, max_bytes=megabytes * 10**6 - 1, least=464)
    assert (caught.value.status, caught.value.kind) == (400, "PixelLimit")


def test_a_limit_above_pillows_own_is_kept() -> None:
    body = encode(Image.new("1", (20_000, 10_000)), "PNG")  # 200 megapixels; Pillow refuses from 179 on
    assert refusal(body).kind == "PixelLimit"
    assert decode(body, max_pixels=200_000_000).size == (20_000, 10_000)


@pytest.mark.parametrize(("width", "height"), [(2**31 - 1, 2**31 - 1), (100_000, 100_000), (0, 0), (0, 10), (10, 0)])
def test_absurd_dimensions(width: int, height: int) -> None:
    bodies = [png_header(width, height), bmp_header(width, height), bmp_header(width, -height)]
    bodies.append(tiff([(258, 8), (262, 1)], b"\0" * 16, width=width, height=height))
    for body in bodies:
        expected = {"InvalidImage"} if 0 in (width, height) else {"PixelLimit", "InvalidImage"}
        assert refusal(body).kind in expected


def test_a_gif_frame_larger_than_its_screen_counts() -> None:
    body = gif(10, 10, 20_000, 20_000)
    assert refusal(body).kind == "PixelLimit"
    assert refusal(gif(20_000, 20_000, 10, 10)).kind == "PixelLimit"


def test_a_huge_webp_canvas_is_refused() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN)]
    body = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    at = body.index(b"VP8X") + 12
    body[at : at + 6] = (16_382).to_bytes(3, "little") * 2
    assert refusal(bytes(body)).kind == "PixelLimit"


def test_a_tiff_tile_larger_than_its_picture_counts() -> None:
    tile = [(322, 40_000), (323, 40_000), (324, 8), (325, 100)]
    body = tiff([(258, 8), (259, 8), (262, 1), *tile], zlib.compress(bytes(10_000)), width=64, height=64)
    assert refusal(body).kind == "PixelLimit"


def test_a_jpeg_of_countless_scans_is_refused() -> None:
    body = encode(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    at = body.rindex(b"\xff\xda")
    scan = body[at:-2]
    assert decode(body[:-2] + scan * 10 + body[-2:]).size == (64, 64)
    assert "scans" in str(refusal(body[:-2] + scan * MAX_JPEG_SCANS + body[-2:]))


def test_a_compressed_text_bomb_is_refused() -> None:
    bomb = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000)))
    body = encode(noise(4, 4), "PNG")
    assert refusal(body[:33] + bomb + body[33:]).kind == "InvalidImage"


# --- hostile files ---


def test_mutated_pictures_are_decoded_or_refused() -> None:
    decoded = refused = 0
    for body in mutations(600, seed=7):
        try:
            image = decode(body)
        except RequestError:
            refusal(body)
            refused += 1
        else:
            assert image.mode == "RGB"
            assert np.asarray(image).shape == (image.height, image.width, 3)
            decoded += 1
    assert decoded > 50
    assert refused > 200


def test_hostile_pictures_leave_nothing_in_the_log() -> None:
    """In a process of its own, with Python's default filters, libtiff's own messages on file descriptor 2 included."""
    program = (
        "import logging, warnings; logging.basicConfig(level=logging.INFO); warnings.simplefilter('default')\n"
        "from tests.container_serve.images import mutations, png_header\n"
        "from container_serve.image import RequestError, decode\n"
        "for body in [png_header(12000, 12000), *mutations(600, seed=8)]:\n"
        "    try: decode(body, max_pixels=10**8)\n"
        "    except RequestError: pass\n"
        "print('done')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert (run.stdout, run.stderr) == ("done\n", "")


def test_a_truncated_file_is_refused_when_it_is_scaled_too() -> None:
    assert refusal(encode(noise(1300, 1100), "JPEG")[:-5000], least=256).kind == "InvalidImage"
