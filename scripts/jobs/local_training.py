"""A job on this machine: what the flags ask for, made ready for local mode."""

import argparse
from pathlib import Path

from container_serve import scratch
from container_train.data import splits as data_sets
from local_test import engine as local_engine
from local_test import weights
from local_test.errors import naming
from scripts.aws import names
from scripts.aws.errors import CloudError
from scripts.aws.settings import Settings
from scripts.console.command import progress
from scripts.images import engine
from scripts.jobs import inputs, local_mode, outcome, watch
from scripts.jobs.inputs import SAMPLE, WEIGHTS, Weights
from scripts.jobs.training import is_none
from scripts.jobs.training_jobs import NO_ROLE, TrainingJobSpec

# Flags that are taken with --local, so that one command serves for both, and have no effect there.
LEFT_OUT = (
    "--instance-type", "--volume-size", "--spot", "--max-wait", "--max-run", "--keep-alive", "--checkpoints",
    "--register", "--serving-image", "--input-mode", "--network-isolation", "--service-debugger", "--upload-to",
    "--allow-unknown", "--role", "--bucket", "--tags", "--subnets", "--security-groups", "--output-kms-key",
    "--volume-kms-key", "--no-wait", "--max-usd",
)  # fmt: skip
_NOT_S3 = {
    "--data": "give a folder of this machine (`aws s3 sync` fetches one), or sample",
    "--weights": "give a file of this machine (`aws s3 cp` fetches one), or a word",
    "--output": "give a folder of this machine",
}


def run(flags: argparse.Namespace, settings: Settings, asked: Weights, hyperparameters: dict[str, str]) -> int:
    """The job, from its flags to its results; the exit code."""
    check(flags)
    if not flags.image:
        local_engine.check_tracker(hyperparameters, in_image=True)
    name = names.checked(flags.name) if flags.name is not None else names.unique(settings.project, "train")
    home = Path(flags.output or local_mode.OUT).absolute()
    if (home / name).exists():
        raise CloudError(f"{home / name} already exists: give another --name or --output, or remove it", 2)
    progress(f"making {name} ready: Docker, the Docker image, the weights, the data")
    here = local_mode.Engine()
    image = flags.image or local_engine.own_image("train")
    environment = inputs.environment(image, flags.environment)
    engine.need_image(here.client, image)
    file = backbone(asked, hyperparameters, is_sample=flags.data == SAMPLE)
    metrics, quiet = watch.Metrics(), watch.ToolkitLogFilter()

    def tell(line: str) -> None:
        for shown in metrics.feed(line) if quiet.keeps(line) else ():
            progress(f"  {shown}")

    home.mkdir(parents=True, exist_ok=True)
    with naming(home), inputs.images(flags.data) as splits, scratch.folder(".byoc-", home) as work:
        data_sets.lay_out(splits, work / "data")
        if file:
            (work / "data" / WEIGHTS).mkdir()
            data_sets.link(file, work / "data" / WEIGHTS / file.name)
        spec = TrainingJobSpec(
            name=name,
            image=image,
            role=NO_ROLE,
            region=settings.region or local_mode.REGION,
            channels={
                channel: f"file://{work / 'data' / channel}" for channel in [*splits, *([WEIGHTS] if file else [])]
            },
            hyperparameters=hyperparameters,
            output=f"file://{home / name / 'output'}",
            instance_type="local_gpu" if here.has_gpu else "local",
            instance_count=flags.instance_count or 1,
            environment=environment,
        )
        progress(f"training {name} in {image}")
        result = local_mode.train(here, spec, work, tell)
    for shown in metrics.flush():
        progress(f"  {shown}")
    return outcome.of_local(name, image, result, metrics.summary(), as_json=flags.json)


def check(flags: argparse.Namespace) -> None:
    """Raises CloudError for what --local cannot do, DataError for its --data; says which flags do nothing."""
    given = {f"--{key.replace('_', '-')}": value for key, value in vars(flags).items()} | {"--no-wait": not flags.wait}
    for flag, remedy in _NOT_S3.items():
        if str(given.get(flag) or "").startswith("s3://"):
            raise CloudError(f"{flag} {given[flag]}: --local neither reads nor writes in S3; {remedy}", 2)
    if flags.data != SAMPLE:
        data_sets.plan(Path(flags.data))  # its error: weights, and images to build, take longer
    if flags.dry_run:
        raise CloudError("--dry-run shows what is sent to AWS, and --local sends nothing", 2)
    if left_out := [flag for flag in LEFT_OUT if given.get(flag) not in (None, False)]:
        progress(f"no effect in local mode: {', '.join(left_out)}")


def backbone(
    asked: Weights, hyperparameters: dict[str, str], *, is_sample: bool, in_container: bool = True
) -> Path | None:
    """The file for the channel. What is not said is decided as local_test/run.sh does, and put into hyperparameters."""
    if asked.file or is_none(hyperparameters):
        return asked.file
    url = weights.url_of(hyperparameters)
    found = weights.choose(asked.word, url, is_sample=is_sample, in_container=in_container)
    if found.note:
        progress(found.note)
    if found.hyperparameter is not None:
        hyperparameters[WEIGHTS] = found.hyperparameter
    return found.file
