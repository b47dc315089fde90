"""prepare_data.py against a real HTTP server that cuts connections, and against zips made to do harm."""

import hashlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from container_serve.image import HEIC
from container_train.data import splits
from container_train.data.labels import SPLITS
from container_train.errors import DataError
from scripts import prepare_data
from scripts.dataset import check, preparation
from scripts.dataset import download as downloading
from scripts.dataset.download import download
from scripts.dataset.unzip import unzip
from tests import web
from tests.calls import Call
from tests.cloud.pictures import jpeg

ROOT = Path(__file__).resolve().parents[2]


def make_folder(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number:03d}.jpg").write_bytes(jpeg(number))
    return root


def make_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return path


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Files(web.Handler):
    """Serves one body with Range support; `cuts` says after how many bytes each of the next answers breaks off."""

    body, tag, ranges = b"", '"one"', True
    cuts: list[int]
    statuses: list[int]
    asked: list[str]
    url = ""

    def do_GET(self) -> None:
        files, wanted, start = type(self), self.headers.get("Range", ""), 0
        files.asked.append(wanted)
        if files.statuses:
            self.send_error(files.statuses.pop(0))
            return
        if wanted and files.ranges and self.headers.get("If-Range") == files.tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(files.body) - 1}/{len(files.body)}")
        else:
            self.send_response(200)
        body = files.body[start:]
        self.send_header("ETag", files.tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: files.cuts.pop(0)] if files.cuts else body)
        self.close_connection = True


@pytest.fixture
def files() -> Iterator[type[Files]]:
    class Own(Files):
        pass

    Own.cuts, Own.statuses, Own.asked = [], [], []
    with web.serving(Own) as url:
        Own.url = f"{url}/images.zip"
        yield Own


def test_a_cut_download_resumes_where_it_stopped_and_no_other_call_mixes_in(files: type[Files], tmp_path: Path) -> None:
    files.body, files.cuts = os.urandom(300_000), [100_000, 50_000]
    target = tmp_path / "a.zip"

    def meanwhile(_: float) -> None:
        with pytest.raises(DataError, match=f"another call is downloading {target}: wait for it"):
            download(files.url, target)

    download(files.url, target, pause=meanwhile)
    assert target.read_bytes() == files.body
    assert files.asked == ["", "bytes=100000-", "bytes=150000-"]
    assert visible(tmp_path) == ["a.zip"]


def test_the_next_call_resumes_too(files: type[Files], tmp_path: Path) -> None:
    files.body, files.cuts = os.urandom(10_000), [4000]

    def give_up(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(files.url, tmp_path / "a.zip", pause=give_up)
    assert not (tmp_path / "a.zip").exists()
    download(files.url, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == files.body
    assert files.asked[-1] == "bytes=4000-"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_changed_file_and_one_without_ranges_are_fetched_from_the_beginning(
    files: type[Files], tmp_path: Path, ranges: bool
) -> None:
    files.body, files.cuts, files.ranges = b"a" * 10_000, [4000], ranges

    def change(_: float) -> None:
        files.body, files.tag = b"b" * 9000, '"two"'

    download(files.url, tmp_path / "a.zip", pause=change)
    assert (tmp_path / "a.zip").read_bytes() == b"b" * 9000


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(files: type[Files], tmp_path: Path) -> None:
    files.body, files.statuses = b"x" * 100, [503, 429]
    waited: list[float] = []
    download(files.url, tmp_path / "a.zip", pause=waited.append)
    assert (len(files.asked), len(waited)) == (3, 2)
    files.statuses = [404]
    with pytest.raises(DataError, match="404"):
        download(files.url, tmp_path / "b.zip", pause=waited.append)
    assert len(files.asked) == 4
    assert visible(tmp_path) == ["a.zip"]


def test_no_server_ends_in_one_line_that_says_what_is_kept(tmp_path: Path) -> None:
    waited: list[float] = []
    with pytest.raises(DataError, match=r"could not be downloaded .*connect to.*call again") as caught:
        download("http://127.0.0.1:9/a.zip", tmp_path / "a.zip", pause=waited.append)
    assert "\n" not in str(caught.value)
    assert len(waited) == downloading.ATTEMPTS - 1


def test_a_zip_from_a_server_becomes_class_folders(files: type[Files], tmp_path: Path, call: Call) -> None:
    members = {f"pets/{name}/{n}.jpg": jpeg(n) for name in ("001.cat", "002.dog") for n in range(10)}
    members |= {"__MACOSX/pets/001.cat/._0.jpg": b"fork", "pets/.DS_Store": b"x", "pets/readme.txt": b"hello"}
    members["pets/001.cat/noext"] = jpeg(77)
    files.body = make_zip(tmp_path / "made.zip", members).read_bytes()
    out = tmp_path / "pets"
    call(prepare_data, files.url, "--out", out).says(
        f"images.zip: {len(files.body):,} bytes, SHA-256 {hashlib.sha256(files.body).hexdigest()}",
        "not used: 1 file (readme.txt), beside the class folders",
    )
    assert {split: len(list((out / split).glob("*/*"))) for split in SPLITS} == {"train": 17, "valid": 2, "test": 2}
    assert visible(out / "train") == ["001.cat", "002.dog"]
    assert visible(tmp_path) == ["made.zip", "pets"]
    asked = len(files.asked)
    assert call(prepare_data, files.url, "--out", out).code == 0
    assert len(files.asked) == asked


def test_other_contents_are_not_overwritten(tmp_path: Path, call: Call) -> None:
    source = make_folder(tmp_path / "in", {"a": 5, "b": 5})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("mine")
    call(prepare_data, source, "--out", tmp_path / "out").ends(1, "was not made by this call")
    assert (tmp_path / "out" / "precious").read_text() == "mine"


def test_two_calls_at_once_make_the_folder_once(tmp_path: Path, call: Call) -> None:
    source, out = make_folder(tmp_path / "in", {"a": 4, "b": 4}), tmp_path / "out"
    with preparation.workplace(out) as work:
        (work / "half").mkdir()
        call(prepare_data, source, "--out", out).ends(1, f"another call is making {out}: wait for it")
        assert (work / "half").exists()
    assert visible(tmp_path) == ["in"]
    # What a killed call has left is no hindrance.
    (tmp_path / ".out.tmp" / "made").mkdir(parents=True)
    (tmp_path / ".out.tmp" / "archive").write_bytes(b"half")
    assert call(prepare_data, source, "--out", out).code == 0
    assert visible(tmp_path) == ["in", "out"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("..", "leads to {source}, whose images are used already"),
        ("../a", "leads to {source}/a, whose images are used already"),
        ("/dev/zero", "is no ordinary file, but a pipe, a device or the like: remove it"),
        ("pipe", "pipe.jpg is no ordinary file"),
    ],
)
def test_what_would_be_read_twice_or_for_ever_is_refused(tmp_path: Path, target: str, said: str, call: Call) -> None:
    source = make_folder(tmp_path / "in", {"a": 5, "b": 5})
    if target == "pipe":
        os.mkfifo(source / "a" / "pipe.jpg")
    else:
        (source / "a" / "link.jpg").symlink_to(target)
    call(prepare_data, source, "--out", tmp_path / "out").ends(1, said.format(source=source))


def test_what_a_file_is_does_not_hang_on_its_suffix_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Pillow reads far more than the training and the server do."""
    source = make_folder(tmp_path / "in", {"cat": 40, "dog": 40})
    for name in ("a.jfif", "noext", "wrong.txt"):
        (source / "cat" / name).write_bytes(jpeg(7))
    (source / "cat" / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400))
    (source / "cat" / "notes.md").write_text("# no image")
    Image.new("RGB", (8, 8)).save(source / "cat" / "zicon.png", "ICO")
    (source / "loose.png").write_bytes(jpeg(0))
    for litter in ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.jfif"):
        (source / "cat" / litter).write_bytes(b"\xd0\xcf\x11\xe0")
    said: list[str] = []
    found = check.readable(splits.plan(source), said.append)
    sent = {path.name for classes in found.values() for path in classes["cat"]}
    assert {"a.jfif", "noext", "wrong.txt"} < sent
    assert len(sent) == 43
    assert said[:2] == [
        "not used: 1 file (loose.png), beside the class folders; move images into the folder of their class",
        "not used: 1 file (cat/notes.md), no images of a kind that is read",
    ]
    assert f"not readable: {source / 'cat' / 'phone.HEIC'}: {HEIC}" in said
    assert any("zicon.png: no image of a kind that is read (JPEG, PNG," in line for line in said)
    assert said[-1] == "2 images cannot be read; they are not sent"


def test_too_many_unreadable_images_are_refused(tmp_path: Path, call: Call) -> None:
    source = make_folder(tmp_path / "in", {"a": 5, "b": 5})
    (source / "a" / "broken.jpg").write_bytes(b"no image")
    refused = "1 of 11 images cannot be read, more than the 5% that training skips"
    call(prepare_data, source, "--out", tmp_path / "out").ends(1, refused)
    assert not (tmp_path / "out").exists()
    make_folder(source / "a", {"more": 20})
    ended = call(prepare_data, source, "--out", tmp_path / "out", "--json")
    ended.says("1 image cannot be read; they are left out")
    assert list((tmp_path / "out").glob("*/a/broken.jpg")) == []
    assert sum(ended.json["images"].values()) == 30


def test_nothing_of_a_zip_gets_outside(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a/link.jpg")
    link.external_attr = 0o120777 << 16
    names = ("../../evil.jpg", "/etc/evil.jpg", "a\\..\\..\\evil.jpg", "a\\b.jpg")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        for name in names:
            archive.writestr(name, jpeg(0))
    (tmp_path / "deep" / "er").mkdir(parents=True)
    unzip(tmp_path / "evil.zip", tmp_path / "deep" / "er" / "target")
    files = [path for path in (tmp_path / "deep").rglob("*") if path.is_file()]
    target = tmp_path / "deep" / "er" / "target"
    assert sorted(str(path.relative_to(target)) for path in files) == ["a/b.jpg", "a/link.jpg", "etc/evil.jpg"]
    assert not (target / "a" / "link.jpg").is_symlink()


def test_bombs_and_encrypted_files_are_refused(tmp_path: Path) -> None:
    locked = bytearray(make_zip(tmp_path / "encrypted.zip", {"a/1.jpg": jpeg(0)}).read_bytes())
    for at in (locked.index(b"PK\x01\x02") + 8, 6):
        locked[at] |= 1
    (tmp_path / "encrypted.zip").write_bytes(locked)
    with pytest.raises(DataError, match=r"encrypted\.zip is damaged, encrypted or no zip file: .* is encrypted"):
        unzip(tmp_path / "encrypted.zip", tmp_path / "target")
    make_zip(tmp_path / "bomb.zip", {"a/1.bmp": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="refused as a decompression bomb"):
        unzip(tmp_path / "bomb.zip", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_leaves_nothing(tmp_path: Path, kind: int, call: Call) -> None:
    members = {f"{name}/{n}.jpg": os.urandom(3000) for name in "ab" for n in range(3)}
    body = bytearray(make_zip(tmp_path / "good.zip", members, kind).read_bytes())
    body[40:2000] = bytes(1960)
    (tmp_path / "bad.zip").write_bytes(body)
    ended = call(prepare_data, tmp_path / "bad.zip", "--out", tmp_path / "out")
    ended.ends(1, f"prepare_data.py: {tmp_path / 'bad.zip'} is damaged")
    assert ended.err.splitlines()[:-1] == [f"unpacking {tmp_path / 'bad.zip'}"]
    assert visible(tmp_path) == ["bad.zip", "good.zip"]


@pytest.mark.parametrize("split", ["0.8,0.2", "1,0,0", "a,b,c", "0.8,0.1,0.2", "nan,0.5,0.5", "0.5,0.5,nan"])
def test_shares_that_make_no_sense_are_refused(tmp_path: Path, split: str, call: Call) -> None:
    make_folder(tmp_path / "in", {"a": 5, "b": 5})
    call(prepare_data, tmp_path / "in", "--out", tmp_path / "out", "--split", split).ends(2, split)
