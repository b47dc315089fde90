"""Fails the build of a serving image where something is older than lowest.toml allows: one line each. No network.

Looks at what the server would load: the jars of its class path, its Java runtime, the packages of its Python.
"""

import importlib.metadata
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "lowest.toml"
Rule = Mapping[str, str]


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers: 4.2.18.Final -> (4, 2, 18)."""
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in leading[0].split(".")) if leading else ()


def in_jar(jar: Path, rule: Rule) -> Iterator[str]:
    """The versions that a jar states of a library; "" where the jar has its classes and states none."""
    with zipfile.ZipFile(jar) as archive:
        names = archive.namelist()
        stated = [n for n in names if re.fullmatch(rf"META-INF/maven/{rule['group']}/[^/]+/pom\.properties", n)]
        for name in stated:
            version = re.search(r"(?m)^version=(\S+)", archive.read(name).decode())
            yield version[1] if version else ""
    if not stated and any(name.startswith(rule["classes"]) for name in names):
        yield ""


def of_java(name: str, rule: Rule, jars: list[Path]) -> Iterator[tuple[str, str]]:
    """Yield each place of a library, and its version there."""
    found = [(f"{name} in {jar.name}", version) for jar in jars for version in in_jar(jar, rule)]
    yield from found or [(name, "")]


def of_runtime(name: str, release: Path) -> tuple[str, str]:
    """The version in the `release` file of a Java runtime."""
    text = release.read_text() if release.is_file() else ""
    version = re.search(r'JAVA_VERSION="(.*?)"', text)
    return f"{name} in {release.parent}", version[1] if version else ""


def of_python(name: str) -> tuple[str, str]:
    try:
        return name, importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return name, ""


def wrong(table: Mapping[str, Any], jars: list[Path], release: Path) -> list[str]:
    """A line for each version that is too low, or that nothing states."""
    found: list[tuple[str, str, Rule]] = []
    for name, rule in table.get("java", {}).items():
        found += [(where, version, rule) for where, version in of_java(name, rule, jars)]
    found += [(*of_runtime(name, release), rule) for name, rule in table.get("runtime", {}).items()]
    found += [(*of_python(name), rule) for name, rule in table.get("python", {}).items()]
    return [
        f"{where}: version {version or 'unknown'}, lowest good {rule['lowest']} ({rule['reason']})"
        for where, version, rule in found
        if numbers(version) < numbers(rule["lowest"])
    ]


def main() -> None:
    from container_serve.supervisor import configuration

    jars = [Path(path) for path in configuration.class_path().split(":")]
    release = Path(configuration.java()).resolve().parents[1] / "release"
    table = tomllib.loads(TABLE.read_text())
    if lines := wrong(table, jars, release):
        sys.exit("\n".join(lines))
    print(f"{sum(map(len, table.values()))} versions are as high as {TABLE.name} wants them")


if __name__ == "__main__":
    main()
