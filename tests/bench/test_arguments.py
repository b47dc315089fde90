import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench.arguments import existing, new_file, positive, whole


@pytest.mark.parametrize(
    ("kind", "texts"),
    [(whole, ("0", "-1", "1.5", "x")), (positive, ("0", "-1", "nan", "inf")), (existing, ("/nowhere",)),
     (new_file, ("/nowhere/x", "/tmp"))],
)  # fmt: skip
def test_what_is_refused(kind: Callable[[str], Any], texts: tuple[str, ...]) -> None:
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError, match=text):
            kind(text)


def test_what_is_taken(tmp_path: Path) -> None:
    assert (whole("3"), positive("0.5")) == (3, 0.5)
    assert existing(str(tmp_path)) == tmp_path
    assert new_file(str(tmp_path / "x")) == tmp_path / "x"
