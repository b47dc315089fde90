#!/usr/bin/env python3
"""Train with this project's image and version 3 of the SageMaker Python SDK, whose ModelTrainer replaced Estimator.

It runs in an environment of its own, since version 2, which scripts/train.py uses, cannot be installed beside it:

    python3 -m venv .venv-v3 && .venv-v3/bin/pip install --require-hashes -r examples/sdk_v3.lock
    .venv-v3/bin/python examples/sdk_v3.py --image URI --role ARN --data s3://BUCKET/PREFIX --epochs 10
    .venv-v3/bin/python examples/sdk_v3.py --image URI --role ARN --data s3://BUCKET/PREFIX --dry-run
    .venv-v3/bin/python examples/sdk_v3.py --image byoc-train:0.1.0-abc --data my-images --local

URI is what scripts/push.sh prints. `--data` has train/, valid/ and test/; every other `--name value` is a
hyperparameter. With --local it needs Docker Compose, and the results are in the folder that --output names.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# It would refuse the role of scripts/make_role.py, which has no more rights than a job needs.
os.environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")

try:
    from sagemaker.core.helper.session_helper import Session
except ModuleNotFoundError as error:
    sys.exit(f"sdk_v3.py: {error}: it runs in an environment of its own, .venv-v3, which its first lines make")
from sagemaker.core.shapes import MetricDefinition
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, OutputDataConfig, StoppingCondition
from sagemaker.train.model_trainer import Mode

from container_train.data.labels import SPLITS
from container_train.training.metrics import DEFINITIONS

NAME = "byoc-train"


def trainer(flags: argparse.Namespace, hyperparameters: dict[str, str], session: Session | None = None) -> ModelTrainer:
    """The job. `session` is needed where there are no credentials to make one from."""
    where: dict[str, Any] = {
        "role": flags.role,
        "compute": Compute(instance_type=flags.instance_type, instance_count=1, volume_size_in_gb=30),
    }
    if flags.output:
        where["output_data_config"] = OutputDataConfig(s3_output_path=flags.output)
    if flags.local:
        # No account is asked. The image's own command trains: ModelTrainer does not pass `train`.
        where = {
            "training_mode": Mode.LOCAL_CONTAINER,
            "local_container_root": str(Path(flags.output or ".").resolve()),
            "compute": Compute(instance_type="local_cpu", instance_count=1),
            "role": "arn:aws:iam::000000000000:role/local",
        }
    made = ModelTrainer(
        training_image=flags.image,
        base_job_name=NAME,
        sagemaker_session=session,
        stopping_condition=StoppingCondition(max_runtime_in_seconds=24 * 3600),
        hyperparameters=hyperparameters,
        environment={"BYOC_IMAGE": flags.image},  # which the program writes into the artifact
        input_data_config=[
            InputData(channel_name=split, data_source=f"{flags.data.rstrip('/')}/{split}") for split in SPLITS
        ],
        **where,
    )
    definitions = [MetricDefinition(name=one["Name"], regex=one["Regex"]) for one in DEFINITIONS]
    return made.with_metric_definitions(definitions)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--image", required=True, help="URI in ECR; with --local an image of this machine")
    add("--data", required=True, help="s3://BUCKET/PREFIX; with --local a folder")
    add("--role", help="ARN of the execution role")
    add("--output", help="s3://BUCKET/PREFIX of the results; with --local a folder")
    add("--instance-type", default="ml.g4dn.xlarge")
    add("--local", action="store_true", help="in a container on this machine")
    add("--dry-run", action="store_true", help="check what would be sent, send nothing")
    flags, rest = parser.parse_known_args(arguments)
    names, values = rest[::2], rest[1::2]
    if len(names) != len(values) or not all(name.startswith("--") for name in names):
        parser.error(f"hyperparameters are --name value, and not {' '.join(rest)}")
    return flags, {name[2:]: value for name, value in zip(names, values, strict=True)}


def main(arguments: Sequence[str]) -> None:
    flags, hyperparameters = parse(arguments)
    trainer(flags, hyperparameters).train(dry_run=flags.dry_run)


if __name__ == "__main__":
    main(sys.argv[1:])
