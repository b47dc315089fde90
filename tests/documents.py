"""The content of the documentation: its files, blocks of commands, tables, links and headings."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "examples" / "README.md",
    ROOT / "local_test" / "README.md",
    ROOT / "tests" / "faults" / "README.md",
)
# Those for users: each of their blocks of commands is run, checked or marked.
FOR_USERS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
LANGUAGES = frozenset({"sh", "text", "json", "toml"})


def name(file: Path) -> str:
    """Its path below the root."""
    return str(file.relative_to(ROOT))


_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>.*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block; `mark` is the comment in the line before it."""

    file: Path
    mark: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines of a block of commands, without comments."""
        lines = [re.sub(r"(^|\s+)#\s.*", "", line).strip() for line in self.text.splitlines()]
        return [line for line in lines if line]

    @property
    def tests(self) -> list[str]:
        """The tests that run it."""
        kind, _, names = self.mark.partition(": ")
        return names.split() if kind == "run" else []


def blocks(*files: Path) -> list[Block]:
    return [
        Block(file, found["mark"] or "", found["language"], found["text"])
        for file in files or FOR_USERS
        for found in _BLOCK.finditer(file.read_text())
    ]


def commands(test: str) -> list[str]:
    """The commands that, as the documentation says, `test` runs, each command once."""
    return list(dict.fromkeys(line for block in blocks() if test in block.tests for line in block.commands))


def marked(mark: str) -> list[str]:
    """The commands of all blocks with this mark, each once."""
    return list(dict.fromkeys(line for block in blocks() if block.mark == mark for line in block.commands))


def words(command: str) -> list[str]:
    """A command's words, without variables that are set for it."""
    found = shlex.split(command.removesuffix("&"))
    while re.match(r"[A-Z_]+=", found[0]):
        found.pop(0)
    return found


def rows(file: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its two first lines."""
    section = re.split(rf"^#+ {re.escape(heading)}$", file.read_text(), flags=re.MULTILINE)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert lines, f"{file.name}: no table below {heading}"
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[0].splitlines()[2:]]


def anchors(file: Path) -> set[str]:
    """The names by which a code host links to the file's headings."""
    text = re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(file: Path) -> list[str]:
    """Targets of the links and pictures of a file."""
    text = re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\]\(([^)\s]+)\)", text)
