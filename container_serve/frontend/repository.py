"""The files that Maven builds the front end with: checked by SHA-256 against maven.lock before any of them is used.

Maven 3.8 has no lock, and its plugins run code as soon as they are resolved. So this module downloads what maven.lock
names, from where Maven would (its settings' mirror of `central`, else its built-in URL), and Maven itself runs offline.
"""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

LOCK = Path(__file__).parent / "maven.lock"
SUFFIXES = (".jar", ".pom")
SECONDS = 60  # for one file
TRIES = 3
REMEDY = "python -m container_serve.frontend.build --lock makes the lock anew"


@dataclass(frozen=True)
class Source:
    """A Maven repository: its URL, and the HTTP headers that it wants."""

    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)


def read_lock(lock: Path = LOCK) -> dict[str, str]:
    """The SHA-256 by path in a Maven repository. Ends the program with one line where the lock is none."""
    try:
        text = lock.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"{lock}: cannot be read ({error}); restore it, or {REMEDY}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([0-9a-f]{64})  ([\w.+-]+(?:/[\w.+-]+)+)", line)
            if match is None or ".." in match[2].split("/"):
                raise SystemExit(f"{lock}:{number}: not a SHA-256 and a path: restore it, or {REMEDY}")
            found[match[2]] = match[1]
    return found


def write_lock(repository: Path, lock: Path = LOCK) -> None:
    """Lock what Maven left in the local repository `repository`."""
    files = sorted(path for path in repository.rglob("*") if path.suffix in SUFFIXES)
    lines = [f"{_sha256(path.read_bytes())}  {path.relative_to(repository).as_posix()}\n" for path in files]
    lock.write_text("# SHA-256 of every jar and POM of the front end's build. Made by `make lock`.\n" + "".join(lines))


def fill(repository: Path, settings: Path | None, lock: Path = LOCK) -> None:
    """Make `repository` hold the locked files and nothing else. Ends the program with one line where one differs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "byoc" / "maven"
    locked = read_lock(lock)
    source: list[Source] = []  # asked for once a file is missing

    def add(item: tuple[str, str]) -> None:
        path, digest = item
        content = _cached(cache / path, digest)
        if content is None:
            content = _download(source[0], path)
            if _sha256(content) != digest:
                raise SystemExit(
                    f"{path}: its SHA-256 is {_sha256(content)}, not {digest} as in {lock.name}; "
                    f"nothing of it was used. If the change is wanted, {REMEDY}"
                )
            _write(cache / path, content)
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_bytes(content)

    if any(_cached(cache / path, digest) is None for path, digest in locked.items()):
        source.append(find_source(settings))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, locked.items()))


def find_source(settings: Path | None) -> Source:
    """Find the repository that Maven uses with these settings, or with the user's and the machine's."""
    home = _maven_home()
    for file in [settings] if settings else [Path.home() / ".m2" / "settings.xml", home / "conf" / "settings.xml"]:
        if file.is_file() and (source := _mirror(file)):
            return source
    [model] = (home / "lib").glob("maven-model-builder-*.jar")
    with zipfile.ZipFile(model) as jar:
        pom = _xml(jar.read("org/apache/maven/model/pom-4.0.0.xml").decode())
    url = pom.findtext("repositories/repository/url")
    assert url is not None
    return Source(url)


def _mirror(settings: Path) -> Source | None:
    """The first mirror of `central` in a settings file, with its server's name and password."""
    try:
        root = _xml(settings.read_text())
    except (OSError, ElementTree.ParseError) as error:
        raise SystemExit(f"{settings}: cannot be read as Maven settings: {error}") from None
    for mirror in root.iterfind("mirrors/mirror"):
        of = [part.strip() for part in mirror.findtext("mirrorOf", "").split(",")]
        if "!central" in of or not {"*", "external:*", "central"} & set(of):
            continue
        url, identifier = _expanded(mirror.findtext("url", "")), mirror.findtext("id")
        server = next((one for one in root.iterfind("servers/server") if one.findtext("id") == identifier), None)
        if server is None or server.findtext("username") is None:
            return Source(url)
        name, word = (_expanded(server.findtext(key, "")) for key in ("username", "password"))
        if word.startswith("{"):
            raise SystemExit(f"{settings}: server {identifier} has an encrypted password: give it as plain text")
        token = base64.b64encode(f"{name}:{word}".encode()).decode()
        return Source(url, {"Authorization": f"Basic {token}"})
    return None


def _xml(text: str) -> ElementTree.Element:
    """Parsed, with the namespaces of its elements left out: settings are written with and without one."""
    root = ElementTree.fromstring(text)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _expanded(value: str) -> str:
    return re.sub(r"\$\{env\.(\w+)\}", lambda match: os.environ.get(match[1], ""), value.strip())


def _maven_home() -> Path:
    if shutil.which("mvn") is None:
        raise SystemExit("mvn is not on PATH: install Maven, for example Debian's maven")
    told = subprocess.run(["mvn", "--version", "--batch-mode"], capture_output=True, text=True)
    home = re.search(r"Maven home: (.+)", told.stdout)
    if home is None:
        raise SystemExit(f"mvn --version does not say where Maven is: {told.stdout[:200]}{told.stderr[:200]}")
    return Path(re.sub(r"\x1b\[[0-9;]*m", "", home[1]).strip())


def _download(source: Source, path: str) -> bytes:
    request = urllib.request.Request(f"{source.url.rstrip('/')}/{path}", headers=source.headers)
    for last in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as response:
                content: bytes = response.read()
                return content
        except OSError as error:
            if last == TRIES - 1 or (isinstance(error, urllib.error.HTTPError) and error.code < 500):
                raise SystemExit(
                    f"{path}: cannot be downloaded ({error}); the proxy's CA, a mirror: see build.sh --help"
                ) from None
    raise AssertionError


def _cached(file: Path, digest: str) -> bytes | None:
    try:
        content = file.read_bytes()
    except OSError:
        return None
    return content if _sha256(content) == digest else None


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all: another build may read it meanwhile."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as partial:
        partial.write(content)
    Path(partial.name).replace(file)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
