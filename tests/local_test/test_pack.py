"""model.tar.gz is the same bytes for the same model, and nothing leads outside when it is unpacked."""

import os
import tarfile
from pathlib import Path

import pytest

from local_test import pack
from local_test.errors import LocalError


def model(root: Path) -> Path:
    (root / "code").mkdir(parents=True)
    (root / "model.json").write_text("{}")
    (root / "model.bin").write_bytes(os.urandom(1000))
    (root / "code" / "inference.py").write_text("pass\n")
    return root


def test_there_and_back_and_times_and_modes_do_not_matter(tmp_path: Path) -> None:
    source = model(tmp_path / "model")
    pack.pack(source, tmp_path / "a" / "model.tar.gz")
    pack.unpack(tmp_path / "a" / "model.tar.gz", tmp_path / "back")
    for file in ("model.json", "model.bin", "code/inference.py"):
        assert (tmp_path / "back" / file).read_bytes() == (source / file).read_bytes()
    os.utime(source / "model.json", (1, 1))
    (source / "model.json").chmod(0o600)
    pack.pack(source, tmp_path / "two.tar.gz")
    assert (tmp_path / "a" / "model.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()


def test_an_empty_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(LocalError, match="no model"):
        pack.pack(tmp_path / "model", tmp_path / "model.tar.gz")
    assert not (tmp_path / "model.tar.gz").exists()


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.tar.gz")
    with pytest.raises(LocalError, match="is not a regular file"):
        pack.unpack(tmp_path / "model.tar.gz", tmp_path / "model")


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    source, target = model(tmp_path / "model"), tmp_path / "model.tar.gz"
    (tmp_path / ".model.tar.gz.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        pack.pack(source, target)
    assert caught.value.filename == str(target)
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing half-written"


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../evil", tarfile.REGTYPE, ""),
        ("a/../../evil", tarfile.REGTYPE, ""),
        ("evil", tarfile.SYMTYPE, "/etc/passwd"),
        ("evil", tarfile.SYMTYPE, "../outside"),
        ("evil", tarfile.LNKTYPE, "../outside"),
        ("evil", tarfile.FIFOTYPE, ""),
        (".", tarfile.REGTYPE, ""),
        ("n\0ul", tarfile.REGTYPE, ""),
    ],
)
def test_evil_members_are_refused(tmp_path: Path, name: str, kind: bytes, link: str) -> None:
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.pax_headers = {"path": name}
        member.type, member.linkname = kind, link
        tar.addfile(member)
    with pytest.raises(LocalError, match="refused"):
        pack.unpack(tmp_path / "evil.tar.gz", tmp_path / "target")
    assert not (tmp_path / "evil").exists()
    assert list((tmp_path / "target").iterdir()) == []


@pytest.mark.parametrize("damage", ["empty", "other", "cut", "flipped"])
def test_a_damaged_archive_is_named(tmp_path: Path, damage: str) -> None:
    archive = tmp_path / "model.tar.gz"
    pack.pack(model(tmp_path / "model"), archive)
    body = archive.read_bytes()
    flipped = body[:-6] + bytes([body[-6] ^ 1]) + body[-5:]  # in the checksum
    archive.write_bytes({"empty": b"", "other": b"no tar at all", "cut": body[:-20], "flipped": flipped}[damage])
    with pytest.raises(LocalError, match="damaged"):
        pack.unpack(archive, tmp_path / "target")
