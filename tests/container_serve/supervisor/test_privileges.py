"""A server that starts as root gives that up; each in a child, for there is no way back."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from container_serve import scratch
from container_serve.errors import ServeError
from container_serve.supervisor import privileges
from container_serve.supervisor.privileges import User
from tests.conftest import need
from tests.contract.models import write_model

ROOT = Path(__file__).parents[3]
GIVE_UP = """
import os, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
os.umask(0o077)
from container_serve.supervisor import privileges
with privileges.dropped(privileges.User(65534, 65534), Path(sys.argv[2])) as model:
    text, linked = (model / "code" / "a.txt").read_text(), (model / "link").is_symlink()
    print(model, text, linked, *os.getresuid(), *os.getgroups())
    print(Path("/proc/self/status").read_text().split("NoNewPrivs:\\t")[1][0])
print(model.exists())
"""


@pytest.fixture(autouse=True)
def root() -> None:
    need(os.geteuid() == 0, "to be root")


@pytest.mark.parametrize("name", [None, "", "root", "0"])
def test_nobody_to_become(name: str | None) -> None:
    assert privileges.find(name) is None


def test_a_name_or_a_number() -> None:
    assert privileges.find("nobody") == privileges.find("65534")
    assert privileges.find("123456") == User(123456, 123456)
    with pytest.raises(ServeError, match="BYOC_USER: got 'no-such-user'"):
        privileges.find("no-such-user")


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from container_serve.supervisor import privileges
with privileges.dropped(privileges.User(65534, 65534), Path(sys.argv[2])) as model:
    os.kill(os.getpid(), 9)
"""


def test_the_copy_of_a_killed_server_is_removed_by_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are for root alone
        Path(folder).chmod(0o1777)
        model = write_model(Path(folder) / "model")
        model.chmod(0o700)
        env = {"TMPDIR": folder}
        done = subprocess.run([sys.executable, "-c", KILLED, str(ROOT), str(model)], env=env)
        assert done.returncode == -9
        assert len(list(Path(folder).glob("*/model/model.json"))) == 1
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with scratch.run_directory():
            assert list(Path(folder).glob("*/model/model.json")) == []
        assert list(Path(folder).iterdir()) == [model]


def give_up(model: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", GIVE_UP, str(ROOT), str(model)], capture_output=True, text=True, env={"TMPDIR": "/tmp"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("readable", [True, False])
def test_the_model_is_copied_only_where_it_has_to_be(readable: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are for root alone
        Path(folder).chmod(0o755)
        copied_where_needed(Path(folder) / "model", readable)


def copied_where_needed(model: Path, readable: bool) -> None:
    (model / "code").mkdir(parents=True)
    (model / "code" / "a.txt").write_text("text")
    (model / "link").symlink_to("code/a.txt")
    for folder in (model, model / "code"):
        folder.chmod(0o755)
    (model / "code" / "a.txt").chmod(0o644 if readable else 0o600)
    (where, *rest), no_new_privileges, left = (line.split() for line in give_up(model))
    assert rest == ["text", "True", "65534", "65534", "65534"]
    assert no_new_privileges == ["1"]
    assert (where == str(model)) == readable
    assert left == [str(readable)]
