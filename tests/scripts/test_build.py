"""scripts/build.sh: what it hashes, what it refuses, what it passes on."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.docker import engine
from tests.docker.engine import ROOT, copy_tree

IMAGES = ("train", "serve", "serve-torch")


def build(root: Path, *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [str(root / "scripts" / "build.sh"), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=1500, **more)


def content(root: Path, image: str) -> str:
    done = build(root, "--content", image)
    assert re.fullmatch(r"[0-9a-f]{12}\n", done.stdout), done
    return done.stdout.strip()


def copied_by(image: str) -> set[Path]:
    """Files that the Dockerfile of `image` takes from this repository: every file, the lock of another target apart."""
    dockerfile = ROOT / "docker" / ("train.Dockerfile" if image == "train" else "serve.Dockerfile")
    sources = [dockerfile]
    for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile.read_text(), re.MULTILINE):
        sources += [ROOT / name for name in line.split()[:-1]]
    sources += [ROOT / name for name in re.findall(r"type=bind,source=([^,]+),", dockerfile.read_text())]
    if image == "serve":
        sources.remove(ROOT / "docker" / "serve-torch.lock")
    files = {path for source in sources for path in ([source] if source.is_file() else source.rglob("*"))}
    # .dockerignore: what a machine has built beside the sources.
    ignored = {path for name in ("target", "lib") for path in (ROOT / "container_serve" / "frontend" / name).rglob("*")}
    return {
        path.relative_to(ROOT) for path in files - ignored if path.is_file() and path.suffix not in (".pyc", ".jsa")
    }


@pytest.mark.parametrize("image", IMAGES)
def test_the_content_is_all_that_is_copied_and_nothing_else(tmp_path: Path, image: str) -> None:
    tree = copy_tree(tmp_path)
    before = content(tree, image)
    assert before == content(ROOT, image)
    relevant = copied_by(image)
    # One file of each folder stands for the folder: the script hashes folders as a whole.
    tried: set[tuple[Path, str, bool]] = set()
    files = sorted(path.relative_to(tree) for path in tree.rglob("*") if path.is_file())
    for path in files:
        kind = (path.parent, path.name if path.parent.name == "docker" else path.suffix, path in relevant)
        if kind in tried or path not in relevant:
            continue
        tried.add(kind)
        original = (tree / path).read_bytes()
        (tree / path).write_bytes(original + b"\n# changed\n")
        assert content(tree, image) != before, path
        (tree / path).write_bytes(original)
    # The others all at once: none of them counts.
    others = [path for path in files if path not in relevant and path.name != "build.sh"]
    for path in others:
        (tree / path).write_bytes((tree / path).read_bytes() + b"\n# changed\n")
    assert content(tree, image) == before, others


def test_bytecode_does_not_change_the_content_and_the_version_does(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    before = content(tree, "serve")
    (tree / "container_serve" / "__pycache__").mkdir()
    (tree / "container_serve" / "__pycache__" / "codec.cpython-311.pyc").write_bytes(b"bytecode")
    assert content(tree, "serve") == before
    engine.set_version(tree, "99.0.0")
    assert build(tree, "--version").stdout == "build.sh 99.0.0\n"
    assert content(tree, "serve") != before


@pytest.mark.parametrize(
    ("remote", "label"),
    [
        ("https://me:secret@host.example/team/repo.git", "https://host.example/team/repo"),
        ("http://host.example:8443/team/repo", "https://host.example/team/repo"),
        ("ssh://git@host.example:2222/team/repo.git/", "https://host.example/team/repo"),
        ("git@host.example:team/repo.git", "https://host.example/team/repo"),
        ("/srv/me/repo", ""),
        ("file:///srv/me/repo", ""),
        ("../repo", ""),
        ("", ""),
    ],
)
def test_the_source_label_is_an_address_without_a_password(remote: str, label: str) -> None:
    source = (ROOT / "scripts" / "build.sh").read_text()
    function = source[source.index("public_address() {") :].partition("\n}\n")[0] + "\n}"
    done = subprocess.run(
        ["bash", "-c", f"{function}\npublic_address"], input=f"{remote}\n", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == label


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--bogus"], ["--bogus", "--help"]),
        (["serving"], ["serving", "--help"]),
        (["train", "serve"], ["train", "serve", "all"]),
        (["--tag"], ["--tag", "value"]),
        (["--tag", "a b"], ["a b"]),
        (["--content"], ["--content", "train", "serve"]),
        (["--ca-bundle", "absent.pem"], ["absent.pem"]),
        (["--ca-bundle", "pyproject.toml"], ["pyproject.toml", "PEM"]),
        (["--maven-settings", "absent.xml"], ["Maven settings", "absent.xml"]),
        (["--osv-url", "osv.example"], ["osv.example", "http://"]),
        (["--platform", "linux/arm"], ["--platform", "'linux/arm'", "linux/arm64"]),
        (["--osv-url", "https://me:word@osv.example/"], ["password"]),
    ],
)
def test_a_wrong_argument_is_one_line(args: list[str], words: list[str]) -> None:
    message = one_line(build(ROOT, *args))
    assert all(word in message for word in words), message


# What the script itself uses, without any docker client.
TOOLS = (
    "bash env sed find sort sha256sum cut cat dirname basename git mktemp rm mkdir rmdir mv touch grep tr awk tail head"
    " date wc"
)
PLAIN = "case $1 in image) echo linux/amd64 ;; esac"  # what the stub does: it knows what it has built


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """The only folder on PATH, without a docker client."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS.split():
        found = shutil.which(tool)
        assert found is not None, tool
        (folder / tool).symlink_to(found)
    return folder


Called = Callable[..., tuple[subprocess.CompletedProcess[str], str]]


@pytest.fixture
def called(tools: Path, tmp_path: Path) -> Called:
    """Call build.sh with a stub for Docker; what came of it, and the calls of Docker.

    What this machine has cannot be relied on to be without plugins.
    """

    def call(*flags: str, does: str = PLAIN, root: Path = ROOT, **more: object) -> Any:
        calls, client = tmp_path / "calls", tools / "docker"
        client.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "$*" >> {calls}\n{does}\n')
        client.chmod(0o755)
        env = {"PATH": str(tools), **{key: str(value) for key, value in more.items()}}
        done = build(root, *flags, env=env, cwd=tmp_path)
        return done, calls.read_text()

    return call


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("", "no docker client on PATH"),
        ("27.1.1", "install its buildx plugin"),
        ("20.10.24", "no Docker daemon answers"),
    ],
)
def test_without_a_client_buildkit_or_daemon(tools: Path, called: Called, version: str, words: str) -> None:
    does = f'case $1 in --version) echo "Docker version {version}, build x" ;; *) exit 1 ;; esac'
    done = called("serve", does=does)[0] if version else build(ROOT, "serve", env={"PATH": str(tools)})
    assert words in one_line(done)


def test_with_buildx_the_platform_gets_a_plain_docker_image(called: Called, tmp_path: Path) -> None:
    does = """case $* in *sbom.Dockerfile*)
    [[ $* =~ dest=([^ ]*) ]] && file=${BASH_REMATCH[1]}
    [[ $* =~ NAME=([^ ]*) ]] && file=$file/${BASH_REMATCH[1]}
    printf 'numpy\\t1\\tBSD\\nnetty\\t2\\tnot stated\\n' > $file.licenses.txt
    echo 'none known' > $file.advisories.txt
    echo '"verdict": "none"' > $file.advisories.json ;;
esac
case $1 in
    context) echo mine ;;
    image) case $* in *Size*) echo 685000000 ;; *) echo linux/amd64 ;; esac ;;
esac"""
    tree = copy_tree(tmp_path / "tree")
    done, calls = called("--tag", "t1", "--base-train", "b1", "--base-serve", "b2", does=does, root=tree)
    assert done.returncode == 0, done.stderr
    train, listed, serve, _ = (line for line in calls.splitlines() if line.startswith("buildx build"))
    for name, base, line in (("train", "b1", train), ("serve", "b2", serve)):
        assert "--provenance=false --sbom=false --output type=docker,oci-mediatypes=false" in line
        for words in ("--platform linux/amd64", f"--tag byoc-{name}:t1", f"BASE={base}"):
            assert words in line
    # From the image that was built, by the builder that has it: one of the caller's own would look for it elsewhere.
    output = "--platform linux/amd64 --output type=local,dest=dist/.partial-"
    assert f"--builder mine --file docker/sbom.Dockerfile {output}" in listed
    assert "IMAGE=byoc-train:t1" in listed
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [
        line
        for name in ("train", "serve")
        for line in (
            f"byoc-{name}:t1 685 MB",
            f"dist/byoc-{name}_t1.cdx.json: 2 components, 1 of them without a stated licence",
            "advisories: none known",
        )
    ]


def test_the_image_says_of_which_revision_it_is(called: Called, tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    git = ["git", "-C", str(tree), "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]

    def revision() -> str:
        (tmp_path / "calls").unlink(missing_ok=True)
        done, calls = called("serve", "--no-sbom", root=tree, GIT_CEILING_DIRECTORIES=tmp_path)
        assert done.returncode == 0, done.stderr
        return calls.partition("REVISION=")[2].partition(" --build-arg")[0]

    assert revision() == "unknown"
    subprocess.run([*git, "init", "--quiet"], check=True)
    assert revision() == "unknown"  # without a commit, `git rev-parse HEAD` prints HEAD
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "m"], check=True)
    assert re.fullmatch("[0-9a-f]{40}", committed := revision())
    (tree / "container_serve" / "__init__.py").open("a").write("\n")
    assert revision() == f"{committed}-changed"


def test_an_image_for_arm_has_a_tag_of_its_own_and_another_platform_is_refused(called: Called) -> None:
    arm = PLAIN.replace("amd64", "arm64")
    done, calls = called("serve", "--platform", "linux/arm64", "--no-sbom", does=arm)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"--platform linux/arm64 --tag byoc-serve:\S+-{content(ROOT, 'serve')}-arm64 ", calls)
    done, _ = called("serve", does=arm)
    assert done.returncode != 0
    assert "linux/arm64" in done.stderr.splitlines()[-1]


def test_the_callers_package_index_is_a_secret(called: Called, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    does = f"""{PLAIN}
while [ $# -gt 0 ]; do
    case $1 in id=packages,*) cat "${{1#*src=}}" > {seen} ;; *secret-word*) exit 9 ;; esac
    shift
done"""
    index = "https://me:secret-word's@packages.example/simple"
    done, _ = called("serve", "--no-sbom", does=does, PIP_INDEX_URL=index)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        ["sh", "-c", '. "$0"; echo "$PIP_INDEX_URL"; echo "$UV_DEFAULT_INDEX"', seen], capture_output=True, text=True
    )
    assert shown.stdout.splitlines() == [index, index]


def test_flags_and_environment_variables_that_stand_for_them(called: Called, tmp_path: Path) -> None:
    def asked(*flags: str, **environment: object) -> str:
        done, calls = called("serve", "--no-sbom", *flags, **environment)
        assert done.returncode == 0, done.stderr
        return calls

    # A CA bundle is found from the caller's folder.
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    assert f"id=ca,src={tmp_path}/ca.pem" in asked("--ca-bundle", "ca.pem")
    # Maven's settings are a secret, the user's own by default.
    own, mine = tmp_path / ".m2" / "settings.xml", tmp_path / "mine.xml"
    own.parent.mkdir()
    assert "id=maven" not in asked(HOME=tmp_path)
    for file in (own, mine):
        file.write_text("<settings/>")
    assert f"--secret id=maven,src={own}" in asked(HOME=tmp_path)
    assert f"--secret id=maven,src={mine}" in asked(HOME=tmp_path, BYOC_MAVEN_SETTINGS=mine)
    assert "BASE=b3 --network host" in asked(BYOC_BASE_SERVE="b3", BYOC_NETWORK="host")
    assert "BASE=b4" in asked("--base-serve", "b4", BYOC_BASE_SERVE="b3")


def test_help_and_content_need_no_environment() -> None:
    env = {"PATH": os.environ["PATH"]}
    assert "Examples:" in build(ROOT, "--help", env=env).stdout
    assert content(ROOT, "train") == build(ROOT, "train", "--content", env=env).stdout.strip()
