"""scripts/push.sh: its command line, and what it shows without an account and without Docker."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from scripts.images.registry import LIFECYCLE
from tests.cloud.conftest import REGION
from tests.cloud.push.conftest import Push
from tests.docker import engine


def requests(name: str, encryption: dict[str, str], tags: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [
        {
            "service": "ecr",
            "operation": "CreateRepository",
            "request": {
                "repositoryName": name,
                "imageTagMutability": "IMMUTABLE",
                "imageScanningConfiguration": {"scanOnPush": True},
                "encryptionConfiguration": encryption,
                "tags": tags,
            },
        },
        {
            "service": "ecr",
            "operation": "PutLifecyclePolicy",
            "request": {"repositoryName": name, "lifecyclePolicyText": json.dumps(LIFECYCLE)},
        },
    ]


def test_dry_run_shows_what_makes_the_repositories(push: Push) -> None:
    selections = [rule["selection"] for rule in LIFECYCLE["rules"]]
    assert [(one["tagStatus"], one["countNumber"]) for one in selections] == [("untagged", 14), ("tagged", 100)]
    own = [{"Key": "byoc-project", "Value": "byoc"}]
    expected = [*requests("byoc-train", {"encryptionType": "AES256"}, own)]
    expected += requests("byoc-serve", {"encryptionType": "AES256"}, own)
    assert push("--region", REGION, "--dry-run").json == expected

    key = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    flags = ("--project", "birds", "--tags", "team=vision", "--output-kms-key", key)
    tags = [{"Key": "byoc-project", "Value": "birds"}, {"Key": "team", "Value": "vision"}]
    expected = requests("birds-serve-torch", {"encryptionType": "KMS", "kmsKey": key}, tags)
    assert push("serve-torch", "--region", REGION, "--dry-run", *flags).json == expected
    # Elsewhere nothing is asked for.
    assert push("--registry", "registry.example.com", "--dry-run").json == []


def test_the_script_gives_help_before_a_set_up(tmp_path: Path) -> None:
    (tmp_path / "scripts" / "images").mkdir(parents=True)
    (tmp_path / "local_test").mkdir()
    shutil.copy(engine.ROOT / "scripts" / "push.sh", tmp_path / "scripts")
    shutil.copy(engine.ROOT / "scripts" / "images" / "push.py", tmp_path / "scripts" / "images")
    setup = tmp_path / "local_test" / "setup.sh"
    setup.write_text(
        "#!/bin/sh\ncd $(dirname $0)/..; mkdir -p .venv-cloud/bin && printf '#!/bin/sh\\necho python $PYTHONPATH $@\\n'"
        " > .venv-cloud/bin/python && chmod +x .venv-cloud/bin/python && echo set up\n"
    )
    setup.chmod(0o755)
    script = str(tmp_path / "scripts" / "push.sh")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def output(*arguments: str) -> tuple[str, str]:
        done = subprocess.run([script, *arguments], capture_output=True, text=True, check=True, env=environment)
        return done.stdout, done.stderr

    shown, _ = output("--help")
    assert shown.startswith("Push the images")
    assert "scripts/push.sh train" in shown
    assert '"""' not in shown
    assert not (tmp_path / ".venv-cloud").exists()
    started = f"python {tmp_path} -P -m scripts.images.push train\n"
    assert output("train") == (started, "set up\n")
    assert output("train") == (started, "")


def test_the_script_works_from_any_folder(tmp_path: Path) -> None:
    # A package of the same name in the folder of the call is not the one that is meant.
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "__init__.py").write_text("raise SystemExit('the wrong scripts')")
    command = [str(engine.ROOT / "scripts" / "push.sh"), "--region", REGION, "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [entry["operation"] for entry in json.loads(done.stdout)] == ["CreateRepository", "PutLifecyclePolicy"] * 2
