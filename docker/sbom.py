"""The content of an image, written inside of it: NAME.cdx.json (CycloneDX 1.6) and NAME.licenses.txt.

Listed are the Python packages, what their own wheels list of the libraries in them (PEP 770), the Java that they carry,
and the Debian packages. Runs in a build, see sbom.Dockerfile, with the packages of sbom.lock.
"""

import argparse
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Component = dict[str, Any]
TOOLS = Path(sys.prefix) / "bin"
VENV = Path("/opt/venv")
COPYRIGHT = Path("/usr/share/doc")
JRE = Path("/opt/java")
LIBRARIES = Path("/opt/program/container_serve/frontend/lib")
# What multi-model-server's jar carries. It says no versions.
IN_JAR = {
    "com/google/gson/": ("com.google.code.gson", "gson"),
    "com/lmax/disruptor/": ("com.lmax", "disruptor"),
    "org/apache/commons/cli/": ("commons-cli", "commons-cli"),
    "org/apache/commons/io/": ("commons-io", "commons-io"),
    "org/slf4j/": ("org.slf4j", "slf4j-api"),
}
# Each of these projects says so at its home; the jar has no licence files.
MIT = {"slf4j-api"}


def plain(name: str) -> str:
    """A Python package's name as indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licensed(component: Component, *names: str) -> Component:
    return component | {"licenses": [{"license": {"name": name}} for name in names]} if names else component


def python_packages() -> Iterator[Component]:
    """Those of /opt/venv, by cyclonedx-py, without those of which the image keeps the name only."""
    command = [
        str(TOOLS / "cyclonedx-py"),
        "environment",
        "--sv",
        "1.6",
        "--output-reproducible",
        str(VENV / "bin/python"),
    ]
    listed = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    site = next((VENV / "lib").glob("python3.*/site-packages"))
    kept = set()
    for one in importlib.metadata.distributions(path=[str(site)]):
        # Neither what describes it nor the commands in bin/ is the package.
        files = [file for file in one.files or [] if ".dist-info" not in str(file) and file.parts[0] != ".."]
        if not files or any(Path(str(one.locate_file(file))).exists() for file in files):
            kept.add(plain(one.metadata["Name"]))
    for component in listed["components"]:
        if plain(component["name"]) in kept:
            component.pop("externalReferences", None)
            yield component


def in_wheels() -> Iterator[Component]:
    """Return what Python packages' own lists name: compiled libraries, mostly."""
    for file in sorted(VENV.glob("lib/python3.*/site-packages/*.dist-info/sboms/*.json")):
        owner = file.parent.parent.name.removesuffix(".dist-info")
        for one in json.loads(file.read_text()).get("components", []):
            purl = one.get("purl", "")
            if purl.startswith(f"pkg:pypi/{plain(owner.split('-')[0])}@"):
                continue  # a part of the package itself
            known = {key: one[key] for key in ("type", "group", "name", "version", "purl", "licenses") if one.get(key)}
            yield known | {"properties": [{"name": "byoc:in", "value": owner}]}


def java() -> Iterator[Component]:
    """The Java runtime, which jlink made of Debian's JDK, and what is in the jars of the front end's class path."""
    if (JRE / "release").exists():
        version = re.search(r'JAVA_VERSION="(.*?)"', (JRE / "release").read_text())
        component = {"type": "platform", "name": "OpenJDK runtime", "version": version[1] if version else ""}
        yield component | {"licenses": [{"expression": "GPL-2.0-only WITH Classpath-exception-2.0"}]}
    for jar in sorted(LIBRARIES.glob("*.jar")):
        with zipfile.ZipFile(jar) as archive:
            inside = archive.namelist()
            for file in (one for one in inside if re.fullmatch(r"META-INF/maven/.+/pom\.properties", one)):
                said = dict(re.findall(r"(?m)^(\w+)=(\S+)", archive.read(file).decode()))
                yield maven(said["groupId"], said["artifactId"], said["version"])
        if jar.name == "model-server.jar":
            for folder, (group, name) in IN_JAR.items():
                if any(one.startswith(folder) for one in inside):
                    yield maven(group, name, "")


def maven(group: str, name: str, version: str) -> Component:
    component = {"type": "library", "group": group, "name": name, "purl": f"pkg:maven/{group}/{name}"}
    if version:
        component |= {"version": version, "purl": f"{component['purl']}@{version}"}
    return component | {"licenses": [{"license": {"id": "MIT" if name in MIT else "Apache-2.0"}}]}


def system(status: Path) -> Iterator[Component]:
    """The Debian or Ubuntu packages, and a Python that is none of them."""
    from debian.deb822 import Deb822
    from packageurl import PackageURL

    release = platform.freedesktop_os_release()
    with status.open(encoding="utf-8") as stream:
        for package in Deb822.iter_paragraphs(stream):
            if not package.get("Status", "").endswith(" installed"):
                continue
            name, version = package["Package"], package["Version"]
            where = {"arch": package["Architecture"], "distro": f"{release['ID']}-{release.get('VERSION_ID', '')}"}
            purl = PackageURL("deb", release["ID"], name, version, where).to_string()
            component = {"type": "library", "name": name, "version": version, "purl": purl}
            yield licensed(component, *debian_licenses(COPYRIGHT / name / "copyright"))
    if Path("/usr/local/bin/python3").exists():
        version = subprocess.run(["/usr/local/bin/python3", "-V"], check=True, capture_output=True, text=True).stdout
        yield licensed({"type": "platform", "name": "Python", "version": version.split()[1]}, "PSF-2.0")


def debian_licenses(copyright_file: Path) -> list[str]:
    """The short names in a machine-readable copyright file (Debian's DEP 5); where to read any other one."""
    from debian.deb822 import Deb822

    if not copyright_file.exists():
        return []
    text = copyright_file.read_text(encoding="utf-8", errors="replace")
    if not text.lstrip().startswith("Format:"):
        return [f"see {copyright_file}"]
    named = [paragraph.get("License", "") for paragraph in Deb822.iter_paragraphs(text.splitlines(keepends=True))]
    return sorted({license.splitlines()[0].strip() for license in named if license.strip()})


def license_names(component: Component) -> str:
    """A component's licences in one line: SPDX where it says so."""
    names = []
    for one in component.get("licenses", []):
        inner = one.get("license", {})
        names.append(one.get("expression") or inner.get("id") or inner.get("name", "").removeprefix("License :: "))
    # A classifier beside an identifier says the same again.
    names = [name for name in names if "OSI Approved" not in name] or names
    return ", ".join(dict.fromkeys(name.splitlines()[0] for name in names if name)) or "not stated"


def components(image: str, identifier: str, status: Path) -> tuple[dict[str, Any], str]:
    """The CycloneDX document, which holds to its schema, and the table of licences."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    by_reference: dict[str, Component] = {}
    for component in (*python_packages(), *java(), *system(status), *in_wheels()):
        within = "".join(f" in {one['value']}" for one in component.get("properties", []) if one["name"] == "byoc:in")
        reference = (component.get("purl") or f"{component['name']}@{component.get('version', '')}") + within
        by_reference.setdefault(reference, component | {"bom-ref": reference})
    name, _, tag = image.partition(":")
    itself = {"type": "container", "name": name, "version": tag, "bom-ref": image}
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, identifier).urn,
        "metadata": {"component": itself | {"properties": [{"name": "byoc:image-id", "value": identifier}]}},
        "components": [by_reference[reference] for reference in sorted(by_reference)],
    }
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)):
        sys.exit(f"sbom.py: the list is no CycloneDX 1.6: {wrong}")
    rows = [(one["name"], one.get("version") or "-", license_names(one)) for one in document["components"]]
    return document, "".join(f"{name}\t{version}\t{names}\n" for name, version, names in sorted(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True, help="NAME:TAG")
    parser.add_argument("--image-id", required=True)
    parser.add_argument("--dpkg-status", type=Path, required=True, help="as it was before the tools came")
    parser.add_argument("--out", type=Path, required=True, help="folder and name of the files, without their ends")
    given = parser.parse_args()
    document, licenses = components(given.image, given.image_id, given.dpkg_status)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{given.out}.cdx.json").write_text(json.dumps(document, indent=1) + "\n")
    Path(f"{given.out}.licenses.txt").write_text(licenses)


if __name__ == "__main__":
    main()
