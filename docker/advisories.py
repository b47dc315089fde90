"""Advisories of osv.dev on an image's components, written inside of it: NAME.advisories.json and .txt.

pip-audit asks for the Python packages; for the Java that they carry the same service is asked here, since pip-audit
knows of Python only. Debian packages are left to the registry's scan. Runs in a build, see sbom.Dockerfile.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOOLS = Path(sys.prefix) / "bin"
VENV = Path("/opt/venv")
BUNDLE = Path("/run/secrets/ca")
SECONDS = 10  # for one answer
ALL_SECONDS = 300  # for all of them
Advisory = dict[str, Any]


class NotChecked(Exception):
    """The service could not be asked; `str()` says why."""


def accepted(file: Path) -> dict[str, str]:
    """The reason by identifier, in capitals. Ends the program with one line where a reason is missing."""
    found = {}
    for line in file.read_text(encoding="utf-8-sig").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        identifier, _, reason = line.strip().partition(" ")
        if not reason.strip():
            sys.exit(f"{file.name} gives no reason for {identifier}: write one behind it")
        found[identifier.upper()] = reason.strip()
    return found


def of_python(url: str, names: set[str]) -> list[Advisory]:
    """Those against the packages `names`. Raises NotChecked."""
    site = next((VENV / "lib").glob("python3.*/site-packages"))
    command = [str(TOOLS / "pip-audit"), "--path", str(site), "--vulnerability-service", "osv", "--format", "json"]
    command += ["--desc", "off", "--progress-spinner", "off", "--timeout", str(SECONDS)]
    command += ["--osv-url", url] if url else []
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=ALL_SECONDS)
        packages = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        raise NotChecked(f"there was no end to the answers after {ALL_SECONDS} s") from None
    except (ValueError, KeyError):
        raise NotChecked(reason((done.stderr.strip().splitlines() or ["no answer"])[-1])) from None
    return [
        {
            "name": package["name"], "version": package["version"],
            "ids": sorted({known["id"], *known["aliases"]}), "fixed_in": known["fix_versions"],
        }
        for package in packages
        if plain(package["name"]) in names
        for known in package.get("vulns", [])
    ]  # fmt: skip


def of_java(url: str, components: list[dict[str, Any]]) -> list[Advisory]:
    """Those against these components, which have a purl with a version. Raises NotChecked."""
    import requests
    from pip_audit._service.osv import OsvService

    found = []
    for component in components:
        try:
            body = {"package": {"purl": component["purl"]}}
            response = requests.post(url or OsvService.DEFAULT_OSV_URL, json=body, timeout=SECONDS)
            response.raise_for_status()
            known = response.json().get("vulns", [])
        except (requests.RequestException, ValueError, AttributeError) as error:
            raise NotChecked(reason(f"{type(error).__name__}: {error}")) from None
        for one in known:
            ranges = [events for part in one.get("affected", []) for events in part.get("ranges", [])]
            fixed = {event["fixed"] for part in ranges for event in part.get("events", []) if "fixed" in event}
            ids = sorted({one["id"], *one.get("aliases", [])})
            found.append(
                {"name": component["name"], "version": component["version"], "ids": ids, "fixed_in": sorted(fixed)}
            )
    return found


def plain(name: str) -> str:
    """A Python package's name as indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def reason(line: str) -> str:
    """The cause in the last line of a traceback."""
    cause = re.search(r"""Caused by \w+\(["']?(?:[^:]*\([^)]*\): )?(.*?)["']?\)+$""", line)
    return cause[1] if cause else line[:300]


def ask(document: Mapping[str, Any], asked: str, url: str, reasons: Mapping[str, str]) -> dict[str, Any]:
    """The answer; `verdict` is none (or all accepted), known, or not checked, with the reason."""
    named = [component for component in document["components"] if "byoc:in" not in json.dumps(component)]
    python = {plain(one["name"]) for one in named if one.get("purl", "").startswith("pkg:pypi/")}
    java = [one for one in named if one.get("purl", "").startswith("pkg:maven/") and one.get("version")]
    answer: dict[str, Any] = {"asked": asked, "verdict": "none", "reason": "", "python": len(python), "java": len(java)}
    try:
        found = of_python(url, python) + of_java(url, java)
    except NotChecked as error:
        return answer | {"verdict": "not checked", "reason": str(error), "found": []}
    for row in found:
        row["accepted"] = next((reasons[name.upper()] for name in row["ids"] if name.upper() in reasons), "")
    verdict = "known" if any(not row["accepted"] for row in found) else "none"
    unused = sorted(set(reasons) - {name.upper() for row in found for name in row["ids"]})
    return answer | {"verdict": verdict, "found": found, "accepted_in_vain": unused}


def told(answer: Mapping[str, Any]) -> str:
    """The answer for a person: a line each."""
    if answer["verdict"] == "not checked":
        return f"not checked: the service gave no answer ({answer['asked']}): {answer['reason']}\n"
    lines = []
    for row in answer["found"]:
        line = (
            f"{row['name']} {row['version']}: {', '.join(row['ids'])}; fixed in {', '.join(row['fixed_in']) or 'none'}"
        )
        lines.append(line + (f"; accepted: {row['accepted']}" if row["accepted"] else ""))
    count = "none" if not lines else len(lines)
    lines += [f"{each}: accepted, but not known against this image" for each in answer["accepted_in_vain"]]
    scope = f"{answer['python']} Python packages and {answer['java']} Java libraries"
    return "\n".join([f"{count} known against {scope} ({answer['asked']})", *lines]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder and name of the files, without their ends")
    parser.add_argument("--asked", required=True, help="when")
    parser.add_argument("--url", default="", help="of another service that answers as osv.dev does")
    parser.add_argument("--accepted", type=Path, required=True, help="a file: identifier and reason, a line each")
    given = parser.parse_args()
    if BUNDLE.is_file() and BUNDLE.stat().st_size:
        os.environ["REQUESTS_CA_BUNDLE"] = str(BUNDLE)
    document = json.loads(Path(f"{given.out}.cdx.json").read_text())
    answer = ask(document, given.asked, given.url, accepted(given.accepted))
    Path(f"{given.out}.advisories.json").write_text(json.dumps(answer, indent=1) + "\n")
    Path(f"{given.out}.advisories.txt").write_text(told(answer))


if __name__ == "__main__":
    main()
