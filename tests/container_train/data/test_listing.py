"""The kind of a file, by its name and its first bytes."""

import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from container_serve.image import FORMATS
from container_train.data import listing
from container_train.data.files import Files
from container_train.data.unused import Unused
from container_train.errors import DataError


@pytest.mark.parametrize("form", [*FORMATS, "MPO"])
def test_every_image_that_is_read_is_known_by_its_bytes(form: str) -> None:
    body = io.BytesIO()
    Image.new("RGB", (40, 30), (9, 80, 200)).save(body, form)
    assert listing.is_image("noext", body.getvalue()[: listing.HEAD_BYTES])


@pytest.mark.parametrize(
    "content",
    [b"", b"BM is a town", b"RIFF....WAVEfmt ", b"\0\0\0\x18ftypmp42\0\0\0\0", b"II am text", b"GIF", b"%PDF-1.7"],
)
def test_what_is_no_image_is_known_by_its_bytes(content: bytes) -> None:
    assert not listing.is_image("noext", content)
    assert listing.is_image("broken.JPG", content)


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"avif"])
def test_heic_and_avif_are_images(brand: bytes) -> None:
    assert listing.is_image("noext", b"\0\0\0\x18ftyp" + brand + bytes(20))


def test_the_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("a/1.jpg", "a/deep/2.jpg", "a/.hidden", "a/Thumbs.db", "a/._1.jpg", "elsewhere/3.jpg"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "gone").symlink_to(tmp_path / "nowhere")
    found = [str(path.relative_to(tmp_path / "a")) for path in listing.files(tmp_path / "a")]
    assert found == ["1.jpg", "deep/2.jpg", "gone", "more/3.jpg"]
    # A link to nothing is named as an image that cannot be read.
    images, others = listing.divide(listing.files(tmp_path / "a"))
    assert [path.name for path in images] == ["1.jpg", "2.jpg", "gone", "3.jpg"]
    assert others == []
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "a")
    with pytest.raises(DataError, match=r"back leads to .*, whose images are used already: remove that link"):
        listing.files(tmp_path / "a")
    (tmp_path / "elsewhere" / "back").unlink()
    os.mkfifo(tmp_path / "a" / "pipe")
    with pytest.raises(DataError, match="pipe is no ordinary file"):
        listing.files(tmp_path / "a")


def test_a_message_names_the_first_files_and_counts_the_endings_of_many() -> None:
    assert str(Unused(["a"])) == "1 file (a)"
    names = ["a.txt", "b.txt", "c.txt", "d.txt", "e", "f.cat", "g.cat"]
    named = "a.txt, b.txt, c.txt, d.txt, e"
    for order in (names, names[::-1]):
        assert str(Unused(order)) == f"7 files ({named} and 2 more: 4 .txt, 2 .cat, 1 without ending)"


def test_unused_files_are_counted_and_not_kept() -> None:
    """Their names, and endings that are numbers, as in image.000001, would be as many as the files."""
    found = Unused(f"image.{number:06}" for number in range(100_000))
    whole = Unused()
    for folder in ("train", "valid"):
        whole.merge(found, folder)
    assert len(whole) == 200_000
    assert len(found.endings) < 100
    assert len(whole.endings) < 100
    assert str(whole) == (
        "200000 files (train/image.000000, train/image.000001, train/image.000002, train/image.000003,"
        " train/image.000004 and 199995 more: 2 .000000, 2 .000001, 2 .000002, 2 .000003, 2 .000004, 199990 others)"
    )


@pytest.mark.parametrize("name", [b"caf\xe9/1.jpg", b"a/caf\xe9.jpg", b"a/deep/caf\xe9/1.jpg", b"caf\xe9.txt"])
def test_a_name_that_is_not_utf_8_is_named(tmp_path: Path, name: bytes) -> None:
    """As in zip files of old programs."""
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"the name b'caf\\xe9(.jpg|.txt)?' in .* is not UTF-8: rename it"):
        listing.read(tmp_path)


@pytest.mark.parametrize("name", ["a\nb/1.jpg", "a/x\x1b[31m.jpg", "a/\u2028.txt"])
def test_a_name_with_a_control_character_is_named(tmp_path: Path, name: str) -> None:
    """It would break the lines of logs, tables and CSV files; an emoji before it would not."""
    dogs = tmp_path / "\U0001f436"
    (dogs / name).parent.mkdir(parents=True)
    (dogs / name).touch()
    said = rf"the name '.*\\(n|x1b|u2028).*' in .*{dogs.name}.* has a control character: rename it$"
    with pytest.raises(DataError, match=said):
        listing.read(dogs)


def test_paths_are_made_when_asked_for() -> None:
    names = ["b/1.jpg", "b/\u00e9\u4e2d.png", "a/2.jpg"]
    whole = Files(Path("/data"), names)
    assert list(whole) == [Path("/data", name) for name in names]
    assert (whole[1], whole[-1], len(whole)) == (Path("/data/b/\u00e9\u4e2d.png"), Path("/data/a/2.jpg"), 3)
    assert list(whole[::2]) == [Path("/data/b/1.jpg"), Path("/data/a/2.jpg")]
    with pytest.raises(IndexError):
        whole[3]
    assert list(Files(Path("/data")).names()) == []


def test_a_listing_asks_nothing_of_a_file_and_keeps_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"")
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(3000):
            os.link(source, tmp_path / "set" / name / f"image_{number:06}.jpg")
    asked: list[str] = []
    look = os.stat

    def stat(path: Any, **how: Any) -> os.stat_result:
        asked.append(str(path))
        return look(path, **how)

    monkeypatch.setattr(os, "stat", stat)
    tracemalloc.start()
    found = listing.read(tmp_path / "set")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {name: len(images) for name, images in found.classes.items()} == {"a": 3000, "b": 3000}
    assert not [path for path in asked if path.endswith(".jpg")]
    assert held < 6000 * 60, "bytes"
