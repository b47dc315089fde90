"""The study: what is asked, in which order, and what Hyperband ends."""

import re
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy import event

from scripts.aws.errors import CloudError
from scripts.tuning import space, table
from scripts.tuning.study import Study, broken
from scripts.tuning.table import Lines
from scripts.tuning.trials import Search
from tests.conftest import Capture, Patch
from tests.scripts.tuning.searches import usual


def study(folder: Path, strategy: str = "bayesian", **fixed: str) -> Study:
    return Study(folder, space.load().with_fixed(fixed), strategy, {}, parallel=1)


def epoch(number: int, value: float) -> dict[str, float]:
    return {"epoch": number, "valid_accuracy": value}


def test_a_grid_is_tried_in_order(tmp_path: Path) -> None:
    made = study(tmp_path, "grid")
    asked = []
    for _ in range(10):
        trial = made.ask()
        asked.append(dict(trial.parameters))
        made.end(trial.number, "completed", 0.5)
    assert asked == space.load().grid()


@pytest.mark.parametrize("strategy", ["bayesian", "random"])
def test_begun_again_it_does_not_repeat_itself(tmp_path: Path, strategy: str) -> None:
    tried = set()
    for _ in range(4):
        made = study(tmp_path, strategy)
        for _ in range(2):
            trial = made.ask()
            tried.add(trial.parameters["lr"])
            made.end(trial.number, "completed", 0.5)
    assert len(tried) == 8


def test_hyperband_ends_what_is_worse_than_others_were(tmp_path: Path) -> None:
    made = study(tmp_path, "hyperband", epochs="9")
    ended = 0
    for number in range(12):
        trial = made.ask()
        good = number % 4 == 0
        for step in range(1, 10):
            if made.report(trial.number, epoch(step, (0.1 if good else 0.01) * step)):
                assert not good
                made.end(trial.number, "pruned")
                ended += 1
                break
        else:
            made.end(trial.number, "completed", 0.9 if good else 0.09)
    assert ended > 0
    pruned = [trial for trial in made.trials() if trial.status == "pruned"]
    assert len(pruned) == ended
    assert pruned[0].value is None
    assert pruned[0].epochs[0] == epoch(1, 0.01)


def test_a_trial_that_was_running_is_tried_again(tmp_path: Path) -> None:
    made = study(tmp_path)
    cut = made.ask()
    again = study(tmp_path)
    assert again.trials() == []
    assert again.ask().parameters == cut.parameters
    assert [trial.status for trial in again.trials()] == ["running"]


def test_a_search_of_something_else_is_not_resumed(tmp_path: Path) -> None:
    plain = space.load()
    Study(tmp_path, plain, "bayesian", {"data": "/a"}, parallel=1)
    Study(tmp_path, plain, "random", {"data": "/a"}, parallel=2)
    with pytest.raises(CloudError, match="was begun with another data \\(/a, now /b\\): give another --name"):
        Study(tmp_path, plain, "bayesian", {"data": "/b"}, parallel=1)
    with pytest.raises(CloudError, match="begun with another search space, or other hyperparameters: give"):
        Study(tmp_path, plain, "bayesian", {"data": "/a", "space": "1e396669d12fc488"}, parallel=1)


def test_lines_say_each_change_once(tmp_path: Path) -> None:
    made = study(tmp_path)
    said: list[str] = []
    show = Lines(3, said.append)

    def look() -> None:
        show(made.search("dogs", "here"))

    first = made.ask()
    look()
    look()
    made.end(first.number, "completed", 0.5)
    second = made.ask()
    look()
    made.end(second.number, "failed", reason="it broke")
    look()
    assert [line.split(" (")[0].split(",")[0] for line in said] == [
        "trial 0: running", "trial 0: completed", "trial 1: running", "trial 1: failed",
    ]  # fmt: skip
    assert said[0] == "trial 0: running, lr 0.001, batch-size 64"
    assert "valid_accuracy 0.5, the best so far" in said[1]
    assert "it broke" in said[3]
    assert isinstance(made.search("dogs", "here"), Search)


def test_on_a_terminal_it_is_a_table(monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("LINES", "60")
    found = usual(50)
    with table.live(60) as show:
        show(found)
    drawn = capsys.readouterr().err
    best = found.best
    assert best is not None
    plain = " ".join(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn).split())
    assert f"50 of 60 trials, best valid_accuracy {best.value:.4g} in trial {best.number}" in plain
    assert "batch-size" in drawn
    # The newest, and the best wherever it stands.
    assert plain.count(" completed ") % table.ROWS == 0  # drawn once more at the end


def test_a_full_disk_is_told_without_sql(tmp_path: Path) -> None:
    made = study(tmp_path)
    storage = made.study._storage._backend  # type: ignore[attr-defined]
    event.listen(storage.engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = 1"))
    storage.remove_session()
    storage.engine.dispose()
    with pytest.raises(StorageInternalError) as caught:
        made.study.set_user_attr("more", "x" * 10**6)
    said = str(broken(tmp_path, caught.value, ""))
    assert said == f"{tmp_path}: no space is left: make room, or give other --results"
