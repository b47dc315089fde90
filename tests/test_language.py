"""Plain English in what people read: refused words, docstrings that begin with a question, long sentences."""

import ast
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests import documents

ROOT = Path(__file__).parents[1]
PRODUCT = ("container_serve", "container_train", "local_test", "scripts", "docker", "examples")
PAGES = [file for file in documents.FILES if file.name not in ("CHANGELOG.md", "CONTRIBUTING.md")]
SUFFIXES = (".py", ".sh", ".java", ".jinja", ".ipynb", ".yml", "Dockerfile")
# A word that a reader of average English looks up or reads twice, and what to write.
REFUSED = {
    r"pictures?": "image",
    r"whatever|whichever|whatsoever": "all that, each, in any case",
    r"whoever|whosoever": "anyone who, the user who",
    r"somebody": "another user, a person",
    r"anew": "again",
    r"but for": "except",
    r"for want of": "without",
    r"no whole number": "must be an integer",
    r"goes on|went on": "continues, runs",
    r"passed over": "ignored",
    r"found out": "detected",
    r"taken away": "removed",
    r"once more": "again",
    r"h[eo]ld against": "compared with",
    r"as it were|so to speak|to be had": "(leave it out)",
    r"lies? (here|there|in|on|below|beside)": "is",
    r"bears? (the|a|no)": "has",
    r"without a word": "silently",
}
QUESTIONS = {"What", "How", "Whether", "Why", "Where", "Who", "Which"}
LONGEST = 30  # words of a sentence
FOR_BEGINNERS = (ROOT / "README.md", ROOT / "docs" / "quickstart.md", ROOT / "examples" / "README.md")


def sources(*suffixes: str, below: Sequence[str] = PRODUCT) -> list[Path]:
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *below], cwd=ROOT, capture_output=True)
    return [ROOT / file for file in sorted(files.stdout.decode().split()) if file.endswith(suffixes)]


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """Each line for people, with its number: of a module its strings and docstrings, of anything else all lines."""
    parts = [(1, file.read_text())]
    if file.suffix == ".ipynb":
        parts = [(1, "".join(cell["source"])) for cell in json.loads(file.read_text())["cells"]]
    if file.suffix == ".py":
        nodes = ast.walk(ast.parse(file.read_text()))
        parts = [(node.lineno, node.value) for node in nodes if isinstance(node, ast.Constant)
                 and isinstance(node.value, str) and " " in node.value]  # fmt: skip
    for first, text in parts:
        for line, words in enumerate(text.splitlines(), first):
            yield line, re.sub(r"`[^`]*`", "", words)


@pytest.mark.parametrize("file", [*PAGES, *sources(*SUFFIXES)], ids=documents.name)
def test_no_word_is_refused(file: Path) -> None:
    for line, text in texts(file):
        for word, better in REFUSED.items():
            found = re.search(rf"\b({word})\b", text, re.IGNORECASE)
            assert not found, f"{documents.name(file)}:{line}: {found and found[0]!r}: {better}: {text.strip()}"


@pytest.mark.parametrize("file", sources(".py", ".java", below=(*PRODUCT, "tests", ".ci")), ids=documents.name)
def test_docstrings_begin_with_a_statement(file: Path) -> None:
    comments = re.findall(r"/\*\*\s*(?:\* )?(\w+)", file.read_text())
    if file.suffix == ".py":
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds)]
        comments = [text.split()[0] for node in nodes if (text := ast.get_docstring(node))]
    assert [word for word in comments if word in QUESTIONS] == []


def sentences(file: Path) -> Iterator[str]:
    """Sentences of a page, without its blocks and addresses; each cell of a table by itself."""
    text = re.sub(r"^```.*?^```$|<!--.*?-->", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    for part in re.split(r"\n\n|\n(?=[*|\d#])| \| ", text):
        yield from re.split(r"(?<=[.!?:;])\s", part)


@pytest.mark.parametrize("file", FOR_BEGINNERS, ids=documents.name)
def test_sentences_are_short(file: Path) -> None:
    assert [sentence for sentence in sentences(file) if len(sentence.split()) > LONGEST] == []
