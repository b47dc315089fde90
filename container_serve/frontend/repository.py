"""The files that Maven builds the front end with: checked by SHA-256 against maven.lock before any of them is used.

Maven 3.8 has no lock, and its plugins run code as soon as they are resolved. So this module downloads what maven.lock
names, from where Maven would (its settings' mirror of `central`, else its built-in URL), and Maven itself runs offline.
"""

import base64
import hashlib
import os
import re
import shutil
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LOCK = Path(__file__).parent / "maven.lock"
SUFFIXES = (".jar", ".pom")
SECONDS = 60  # for one file
TRIES = 3
REMEDY = "python -m container_serve.frontend.build --lock makes a new lock"
Source = tuple[str, dict[str, str]]  # of files: a repository's URL, and the HTTP headers that it wants


def read_lock(lock: Path = LOCK) -> dict[str, str]:
    """Return the SHA-256 by path in a Maven repository."""
    lines = [line.split() for line in lock.read_text().splitlines() if not line.startswith("#")]
    return {path: digest for digest, path in lines}


def write_lock(repository: Path, lock: Path = LOCK) -> None:
    """Lock what Maven left in the local repository `repository`."""
    files = sorted(path for path in repository.rglob("*") if path.suffix in SUFFIXES)
    lines = [f"{_sha256(path)}  {path.relative_to(repository).as_posix()}\n" for path in files]
    lock.write_text("# SHA-256 of every jar and POM of the front end's build. Made by `make lock`.\n" + "".join(lines))


def fill(settings: Path | None, lock: Path = LOCK) -> Path:
    """Return a local repository of the locked files and no others. Ends the program with one line where one differs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "byoc" / "maven"
    repository = cache / _sha256(lock)
    missing = [item for item in read_lock(lock).items() if _sha256(repository / item[0]) != item[1]]
    if missing:
        source = find_source(settings)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: _add(repository, source, *item), missing))
    return repository


def _add(repository: Path, source: Source, path: str, digest: str) -> None:
    """Download a file, whole or not at all: another build may read it meanwhile."""
    file = repository / path
    file.parent.mkdir(parents=True, exist_ok=True)
    content = _download(source, path)
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise SystemExit(
            f"{path}: its SHA-256 is {found}, not {digest} as in {LOCK.name}; nothing of it was used. "
            f"If the change is wanted, {REMEDY}"
        )
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(file)


def _download(source: Source, path: str) -> bytes:
    url, headers = source
    request = urllib.request.Request(f"{url.rstrip('/')}/{path}", headers=headers)
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


def find_source(settings: Path | None) -> Source:
    """Find the repository that Maven uses with these settings, or with the user's and the machine's."""
    home = Path(shutil.which("mvn") or "").resolve().parents[1]
    for file in [settings] if settings else [Path.home() / ".m2" / "settings.xml", home / "conf" / "settings.xml"]:
        if file.is_file() and (source := _mirror(file)):
            return source
    [model] = (home / "lib").glob("maven-model-builder-*.jar")
    with zipfile.ZipFile(model) as jar:
        pom = _xml(jar.read("org/apache/maven/model/pom-4.0.0.xml").decode())
    return pom.findtext("repositories/repository/url", ""), {}


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
            return url, {}
        name, word = (_expanded(server.findtext(key, "")) for key in ("username", "password"))
        if word.startswith("{"):
            raise SystemExit(f"{settings}: server {identifier} has an encrypted password: give it as plain text")
        return url, {"Authorization": f"Basic {base64.b64encode(f'{name}:{word}'.encode()).decode()}"}
    return None


def _xml(text: str) -> ElementTree.Element:
    """Parse XML without the namespaces of its elements: settings are written with and without one."""
    return ElementTree.fromstring(re.sub(r'\sxmlns="[^"]*"', "", text, count=1))


def _expanded(value: str) -> str:
    return re.sub(r"\$\{env\.(\w+)\}", lambda match: os.environ.get(match[1], ""), value.strip())


def _sha256(file: Path) -> str:
    """Return the file's SHA-256, or "" where it is missing."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
