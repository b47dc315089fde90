import hashlib
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from container_serve import artifact as module
from container_serve.artifact import FORMAT_VERSION, GRAPH, GRAPH_WEIGHTS, MODEL_JSON, WEIGHTS, Artifact, read, write
from container_serve.errors import ArtifactError
from container_serve.preprocess import Preprocessing

SPEC = Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear")
FILES = {GRAPH: b"<net/>", GRAPH_WEIGHTS: bytes(3_000_000), WEIGHTS: b"weights"}
CLASSES = ("Beagle", "Löwchen", "Dandie Dinmont, senior")


def make(directory: Path, **details: Any) -> Artifact:
    directory.mkdir(exist_ok=True)
    for name, content in FILES.items():
        (directory / name).write_bytes(content)
    return write(
        directory, classes=CLASSES, architecture="resnet50", preprocessing=SPEC, precision="fp32", details=details
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make(tmp_path / "model").directory


def edit(directory: Path, **keys: object) -> None:
    path = directory / MODEL_JSON
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def refusal(directory: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        read(directory)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    written = make(tmp_path / "model", accuracy={"test": 0.5}, hyperparameters={"epochs": "2"})
    artifact = read(tmp_path / "model")
    assert artifact == written
    assert artifact.classes == CLASSES
    assert (artifact.architecture, artifact.precision) == ("resnet50", "fp32")
    assert artifact.preprocessing == SPEC
    assert artifact.document["accuracy"] == {"test": 0.5}
    assert artifact.document["format_version"] == FORMAT_VERSION


def test_the_document_lists_every_other_file_with_hash_and_size(model: Path) -> None:
    document = json.loads((model / MODEL_JSON).read_text(encoding="utf-8"))
    assert document["files"] == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)} for name, content in FILES.items()
    }
    assert sorted(path.name for path in model.iterdir()) == sorted([*FILES, MODEL_JSON])


def test_the_litter_of_an_operating_system_belongs_to_no_artifact(model: Path) -> None:
    """macOS' tar packs ._ files, and Windows' Explorer leaves its own."""
    (model / "__MACOSX").mkdir()
    for name in (".DS_Store", "._model.json", "Thumbs.db", "desktop.ini", "__MACOSX/._model.pth"):
        (model / name).write_bytes(b"\0\5\26\7")
    assert read(model).notices == ()
    make(model)
    assert set(read(model).document["files"]) == set(FILES)


def test_writing_again_replaces_the_description(model: Path) -> None:
    (model / WEIGHTS).write_bytes(b"other weights")
    (model / f".{MODEL_JSON}.partial").write_text("left by a job that was killed")
    make(model)
    (model / WEIGHTS).write_bytes(b"other weights")
    write(model, classes=["a"], architecture="resnet18", preprocessing=SPEC, precision="int8")
    assert read(model).classes == ("a",)
    assert set(read(model).document["files"]) == set(FILES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": []}, "classes: expected a list of labels, got an empty list"),
        ({"classes": ["a", "b", "a"]}, r"classes\[2\]: 'a' occurs twice"),
        ({"classes": ["a", ""]}, r"classes\[1\]: expected a label, got ''"),
        ({"architecture": ""}, "architecture: expected a name"),
        ({"details": {"files": {}}}, "'files' is the format's own"),
        ({"details": {"accuracy": float("nan")}}, "a detail is not JSON"),
        ({"details": {"when": object}}, "a detail is not JSON"),
    ],
)
def test_nothing_is_written_of_a_wrong_description(model: Path, arguments: dict[str, Any], message: str) -> None:
    before = (model / MODEL_JSON).read_bytes()
    good: dict[str, Any] = {"classes": ["a"], "architecture": "r", "preprocessing": SPEC, "precision": "fp32"}
    with pytest.raises(ArtifactError, match=message):
        write(model, **{**good, **arguments})
    assert (model / MODEL_JSON).read_bytes() == before
    assert not list(model.glob(".*"))


def test_writing_to_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be written"):
        write(tmp_path / "none", classes=["a"], architecture="r", preprocessing=SPEC, precision="fp32")


def test_a_missing_folder_and_a_missing_document_are_named(tmp_path: Path) -> None:
    assert "there is no such folder" in refusal(tmp_path / "none")
    assert refusal(tmp_path).startswith("model.json: missing in ")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 200_000, b"not json", b"1" * 5000])
def test_a_document_that_is_not_json(model: Path, text: bytes) -> None:
    (model / MODEL_JSON).write_bytes(text)
    assert refusal(model).startswith("model.json: is not JSON (")


@pytest.mark.parametrize(("text", "kind"), [("[]", "an empty list"), ("[1]", "a list"), ("3", "3"), ("null", "null")])
def test_a_document_that_is_no_object(model: Path, text: str, kind: str) -> None:
    (model / MODEL_JSON).write_text(text)
    assert refusal(model) == f"model.json: expected an object, got {kind}"


def test_a_newer_format_is_told_before_anything_else(model: Path) -> None:
    (model / MODEL_JSON).write_text('{"format_version": 2}')
    message = refusal(model)
    assert "made by a newer version (format_version 2), this server reads up to 1; serve it with a newer" in message


@pytest.mark.parametrize("version", [0, -1, "1", 1.0, True, None, [1]])
def test_a_wrong_format_version(model: Path, version: object) -> None:
    edit(model, format_version=version)
    assert "format_version: expected a whole number from 1" in refusal(model)


@pytest.mark.parametrize("key", ["format_version", "classes", "files", "architecture", "preprocessing", "precision"])
def test_a_missing_key_is_named(model: Path, key: str) -> None:
    document = json.loads((model / MODEL_JSON).read_text())
    del document[key]
    (model / MODEL_JSON).write_text(json.dumps(document))
    assert f"the key '{key}' is missing" in refusal(model)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("classes", [], "classes: expected a list of labels, got an empty list"),
        ("classes", {"0": "a"}, "classes: expected a list of labels, got an object"),
        ("classes", ["a", 5], r"classes[1]: expected a label, got 5"),
        ("classes", ["a", "a"], r"classes[1]: 'a' occurs twice"),
        ("classes", ["\ud800"], r"classes[0]: expected a label without control characters, got"),
        ("classes", ["a", "b\nc"], r"classes[1]: expected a label without control characters, got 'b\nc'"),
        ("architecture", None, "architecture: expected a name, got null"),
        ("precision", 32, "precision: expected a name, got 32"),
        ("preprocessing", [], "preprocessing: expected an object, got an empty list"),
        ("preprocessing", None, "preprocessing: expected an object, got null"),
        (
            "preprocessing",
            {**SPEC.to_dict(), "crop": None},
            "preprocessing: crop: expected a whole number from 1 to 4096, got null",
        ),
        (
            "preprocessing",
            {**SPEC.to_dict(), "mean": {"r": 1}},
            "preprocessing: mean: expected three numbers, got an object",
        ),
        (
            "preprocessing",
            {**SPEC.to_dict(), "std": [1, None]},
            "preprocessing: std: expected three numbers, got [1, null]",
        ),
        (
            "preprocessing",
            {**SPEC.to_dict(), "interpolation": None},
            "preprocessing: interpolation: expected one of nearest, bilinear, bicubic, got null",
        ),
        ("preprocessing", {**SPEC.to_dict(), "crop": "224"}, "preprocessing: crop: expected a whole number"),
        ("files", [], "files: expected an object, got an empty list"),
        ("files", {"a": 1}, "files: a: expected sha256"),
        ("files", {"a": {"sha256": "0" * 64}}, "files: a: expected sha256"),
        ("files", {"a": {"sha256": "0" * 63, "bytes": 1}}, "files: a: expected sha256"),
        ("files", {"a": {"sha256": "0" * 64, "bytes": "1"}}, "files: a: expected sha256"),
        ("files", {"a": {"sha256": "0" * 64, "bytes": -1}}, "files: a: expected sha256"),
    ],
)
def test_a_wrong_value_is_named(model: Path, key: str, value: object, message: str) -> None:
    edit(model, **{key: value})
    assert f"model.json: {message}" in refusal(model)


@pytest.mark.parametrize(
    "name",
    ["../model.bin", "/etc/passwd", "code/../../x", "", ".", "..", "a//b", "./a", "a\\b", "a\0b", "code/", MODEL_JSON],
)
def test_a_name_that_would_leave_the_folder_is_refused(model: Path, name: str) -> None:
    files = json.loads((model / MODEL_JSON).read_text())["files"]
    (model.parent / "model.bin").write_bytes(b"")
    edit(model, files={**files, name: {"sha256": hashlib.sha256(b"").hexdigest(), "bytes": 0}})
    assert "is refused, names have to stay in the model's folder" in refusal(model)


def test_a_link_that_leaves_the_folder_is_refused(model: Path) -> None:
    outside = model.parent / "outside"
    (model / WEIGHTS).rename(outside)
    (model / WEIGHTS).symlink_to(outside)
    assert refusal(model).startswith("model.pth: is a link that leads out of the model's folder")


def test_a_folder_that_is_a_link_itself_is_fine(model: Path) -> None:
    link = model.parent / "link"
    link.symlink_to(model)
    assert read(link).classes == CLASSES


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "model.bin: missing, model.json lists it"),
        (
            lambda path: path.write_bytes(bytes(2_999_999)),
            "model.bin: truncated, has 2999999 bytes, model.json says 3000000",
        ),
        (lambda path: path.write_bytes(b""), "model.bin: truncated, has 0 bytes"),
        (lambda path: path.write_bytes(bytes(3_000_001)), "model.bin: changed, has 3000001 bytes"),
        (flip_a_bit, "model.bin: corrupt, its SHA-256 is not the one in model.json; copy the artifact again"),
    ],
    ids=["missing", "truncated", "empty", "longer", "flipped bit"],
)
def test_a_damaged_file_is_named(model: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(model / GRAPH_WEIGHTS)
    assert refusal(model).startswith(message)


def test_no_flipped_bit_of_the_description_changes_what_is_served(model: Path) -> None:
    path, dice = model / MODEL_JSON, random.Random(0)
    whole, before = path.read_bytes(), dict(read(model).document)
    del before["checksum"]
    refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        try:
            after = read(model, verify=False).document
        except ArtifactError:
            refused += 1
        else:  # the name of the checksum was hit: all the rest is there, and as it was
            assert before.items() <= after.items()
    assert refused > len(whole) - len('"checksum"') - 1


def test_who_changes_the_description_removes_its_checksum(model: Path) -> None:
    document = json.loads((model / MODEL_JSON).read_text())
    document["classes"][0] = "another"
    (model / MODEL_JSON).write_text(json.dumps(document))
    assert refusal(model).startswith(
        "model.json: corrupt, its checksum is another one; copy the artifact again (or, if"
    )
    del document["checksum"]
    (model / MODEL_JSON).write_text(json.dumps(document))
    assert read(model).classes[0] == "another"


def test_a_folder_in_a_files_place(model: Path) -> None:
    (model / WEIGHTS).unlink()
    (model / WEIGHTS).mkdir()
    assert refusal(model) == "model.pth: is not a regular file"


def test_a_named_pipe_in_the_documents_place_is_not_waited_for(model: Path) -> None:
    (model / MODEL_JSON).unlink()
    os.mkfifo(model / MODEL_JSON)
    assert refusal(model) == "model.json: is not a regular file"


def test_without_verification_hashes_are_not_computed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip_a_bit(model / GRAPH_WEIGHTS)
    monkeypatch.setattr(module, "_sha256", None)
    assert read(model, verify=False).classes == CLASSES
    (model / GRAPH_WEIGHTS).write_bytes(b"")
    with pytest.raises(ArtifactError, match="truncated"):
        read(model, verify=False)


def test_files_that_are_not_listed_are_named_and_do_no_harm(model: Path) -> None:
    (model / "code").mkdir()
    (model / "code" / "inference.py").write_text("def model_fn(model_dir): ...\n")
    assert read(model).notices == ()
    for name in (".hidden", "README.md", "a\n", "b\U0001f436", "model.tar.gz", "output.tar.gz", "z"):
        (model / name).write_bytes(b"")
    artifact = read(model)
    assert artifact.classes == CLASSES
    assert artifact.notices == (
        "not listed in model.json, and not used: .hidden, README.md, a\\n, b\U0001f436, model.tar.gz and 2 more"
        " (own code belongs in code/)",
    )


def test_the_weights_for_training_may_be_missing(model: Path) -> None:
    (model / WEIGHTS).unlink()
    assert read(model).notices == ("model.pth: missing; the model can be served, but not trained further",)
    (model / WEIGHTS).write_bytes(b"others")
    assert refusal(model).startswith("model.pth: ")


def test_a_folder_around_the_model_is_named(model: Path) -> None:
    assert refusal(model.parent).endswith(
        "it is in the folder model in there: pack it with tar -C model -czf model.tar.gz ."
    )


def test_listed_code_is_verified_and_pythons_cache_of_it_is_not_listed(model: Path) -> None:
    cache = model / "code" / "__pycache__"
    cache.mkdir(parents=True)
    (cache / "inference.cpython-311.pyc").write_bytes(b"1")
    (model / "code" / "inference.py").write_text("a = 1\n")
    artifact = make(model)
    assert set(artifact.document["files"]) == {*FILES, "code/inference.py"}
    (cache / "inference.cpython-311.pyc").write_bytes(b"22")
    assert read(model) == artifact
    (model / "code" / "inference.py").write_text("a = 2\n")
    assert re.match(r"code/inference\.py: corrupt", refusal(model))
