"""Several hosts train what one trains; one that is lost, or is told to stop, ends all of them, in time and in words."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from container_serve import artifact
from container_train.debugger import config
from container_train.debugger.saved_steps import Steps, Values
from container_train.distributed.cluster import gpus
from container_train.paths import SageMakerPaths, replace_file
from tests import trees
from tests.faults import hosts

BY = 60.0  # s, promised
PICTURES = {"train": 12, "valid": 4, "test": 4}  # of each of three classes: five batches of 7, and one
long = pytest.mark.full
both_engines = pytest.mark.parametrize("kind", ["process", pytest.param("docker", marks=[pytest.mark.docker, long])])


def weights(base: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(base / "model" / "model.pth", weights_only=True)
    return found


def gradients(base: Path) -> dict[tuple[int, str], Values]:
    """The tensors that the debugger saved of them, by training step and tensor."""
    steps = Steps(config.folder(SageMakerPaths(base))).new()
    found = {(s.number, n): s.values(n) for s in steps if s.mode == "TRAIN" for n in s.names("gradients")}
    return {key: values for key, values in found.items() if values is not None}


class Trained(NamedTuple):
    curves: dict[str, list[float]]
    weights: dict[str, torch.Tensor]
    gradients: dict[tuple[int, str], Values]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One process."""
    base = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "0")
        with hosts.job("process", base, 1, {**hosts.SAME, "debug": "on"}, PICTURES) as jobs:
            assert hosts.finish(jobs) == [0], jobs[0].text()
    return Trained(hosts.curves(jobs[0].text()), weights(jobs[0].base), gradients(jobs[0].base))


@pytest.mark.parametrize(
    ("kind", "count", "cache"),
    [
        ("process", 2, "auto"),  # of each batch one has 4 pictures and the other 3; of the last, one and none
        pytest.param("process", 1, "auto", marks=pytest.mark.skipif(gpus() < 2, reason="needs two GPUs")),
        pytest.param("process", 3, "auto", marks=long),
        pytest.param("process", 2, "off", marks=long),
        pytest.param("docker", 2, "auto", marks=[pytest.mark.docker, long]),
        pytest.param("docker", 3, "off", marks=[pytest.mark.docker, long]),
    ],
)
def test_several_hosts_train_what_one_trains(kind: str, count: int, cache: str, alone: Trained, tmp_path: Path) -> None:
    hyperparameters = {**hosts.SAME, "feature-cache": cache, "debug": "on"}
    with hosts.job(kind, tmp_path, count, hyperparameters, PICTURES) as jobs:
        codes = hosts.finish(jobs)
    assert codes == [0] * count, "\n".join(job.text() for job in jobs)
    first, *others = jobs
    for name, values in hosts.curves(first.text()).items():
        assert len(values) == 3
        assert values == pytest.approx(alone.curves[name], abs=1e-4), name
    for name, tensor in weights(first.base).items():
        assert torch.allclose(tensor.float(), alone.weights[name].float(), atol=1e-4), name
    recorded = gradients(first.base)
    assert recorded.keys() == alone.gradients.keys()
    assert len(recorded) >= 2 * 10  # of the last layer's weight and bias
    for key, gradient in recorded.items():  # of the whole batch, not of the first process's part
        np.testing.assert_allclose(gradient, alone.gradients[key], atol=1e-4, err_msg=str(key))
    assert artifact.read(first.base / "model", verify=True).classes == trees.LABELS
    for other in others:  # only the first process writes, and speaks
        assert not list((other.base / "model").glob("*"))
        assert not list((other.base / "checkpoints").glob("*.pt"))
        assert "train_loss=" not in other.text()
        assert (other.base / "output" / "success").exists()


def test_several_hosts_finetune_as_one_does(tmp_path: Path) -> None:
    """Pairs that are mixed, erased rectangles and class weights are those of the whole batch."""
    hyperparameters = {
        **hosts.SAME, "recipe": "finetune", "head-epochs": "1", "epochs": "1", "lr": "0.001", "batch-norm": "frozen",
        "class-weights": "balanced", "accumulate": "2", "measure": "none",
    }  # fmt: skip
    pictures = {"train": 9, "valid": 4, "test": 4}  # of each class: three batches of 7, and one of 6
    found = []
    for count in (1, 2):
        with hosts.job("process", tmp_path / str(count), count, hyperparameters, pictures) as jobs:
            assert hosts.finish(jobs) == [0] * count, "\n".join(job.text() for job in jobs)
        kept = torch.load(jobs[0].base / "checkpoints" / "checkpoint.pt", weights_only=True)
        found.append((hosts.curves(jobs[0].text()), kept["model"], kept["average"]))
    (alone, weights_alone, average_alone), (shared, weights_shared, average_shared) = found
    for name, values in alone.items():
        assert len(values) == 2
        assert shared[name] == pytest.approx(values, abs=1e-4), name
    for ours, theirs in ((weights_shared, weights_alone), (average_shared, average_alone)):
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            assert torch.allclose(tensor.float(), theirs[name].float(), atol=1e-4), name


@pytest.mark.skipif(not gpus(), reason="needs a GPU: without one, batch statistics are of each process's part")
def test_batch_statistics_of_several_gpus_are_of_the_whole_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # which the hosts share
    found = []
    for count in (1, 2):
        with hosts.job("process", tmp_path / str(count), count, {**hosts.SAME, "freeze-until": "layer3"}) as jobs:
            assert hosts.finish(jobs) == [0] * count, "\n".join(job.text() for job in jobs)
        found.append(hosts.curves(jobs[0].text()))
    for name, values in found[0].items():
        assert found[1][name] == pytest.approx(values, abs=1e-3), name


@long
def test_a_process_that_hangs_ends_the_job_on_all_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lives, and is never heard of again: as in a read of storage that is out of reach."""
    monkeypatch.setenv("BYOC_COLLECTIVE_TIMEOUT", "10")
    with hosts.job("process", tmp_path, 2, {"epochs": "10000"}) as jobs:
        jobs[0].wait_for("epoch=2\n")
        (rank,) = hosts.ranks(jobs[1])
        rank.suspend()
        assert all(hosts.finish(jobs, 10 + BY))
        assert not rank.is_running()
    # Of the timer of a step, or of gloo.
    words = r"no step was finished within 10 s: a process hangs, or |another process of the job is lost or hangs \("
    for job in jobs:
        assert re.match(words, job.failure()), job.failure()


@long
def test_a_host_that_is_gone_ends_the_job_on_the_others(tmp_path: Path) -> None:
    with hosts.job("process", tmp_path, 3, {"epochs": "10000"}) as jobs:
        jobs[0].wait_for("epoch=2\n")
        hosts.kill_all(jobs[1])
        codes = hosts.finish(jobs, BY)
    assert all(codes)
    for job in (jobs[0], jobs[2]):
        line = job.failure().splitlines()[0]
        assert line == "host 127.0.0.2 is lost: its container ended, or it cannot be reached any more"


@both_engines
def test_a_stop_of_one_host_stops_all_and_a_process_that_dies_later_ends_all(kind: str, tmp_path: Path) -> None:
    with hosts.job(kind, tmp_path, 2, {"epochs": "10000"}) as jobs:
        jobs[0].wait_for("epoch=2\n")
        jobs[1].stop()
        assert hosts.finish(jobs, BY) == [143, 143], "\n".join(job.text() for job in jobs)
    stopped = jobs[0].failure()
    assert "the checkpoint holds them" in stopped
    done = int(re.findall(r"^epoch=(\d+)$", jobs[0].text(), re.MULTILINE)[-1])
    # It goes on where it was. Now a process dies.
    with hosts.job(kind, tmp_path, 2, {"epochs": "10000"}) as jobs:
        jobs[0].wait_for(f"epoch={done + 2}\n")
        if kind == "docker":
            hosts.kill_in_container(jobs[1])
        else:
            (rank,) = hosts.ranks(jobs[1])
            rank.kill()
        codes = hosts.finish(jobs, BY)
    assert re.findall(r"^epoch=(\d+)$", jobs[0].text(), re.MULTILINE)[:2] == [str(done + 1), str(done + 2)]
    assert all(codes)
    for job in jobs:
        line = job.failure().splitlines()[0]
        assert re.match(r"process 1 of 2, host \S+2 was killed by SIGKILL: mostly for lack of memory", line), line


@pytest.mark.parametrize("here", [0, pytest.param(1, marks=long)])
def test_a_stop_while_another_host_is_missing_is_at_once(here: int, tmp_path: Path) -> None:
    with hosts.job("process", tmp_path, 2, {}) as jobs:
        hosts.kill_all(jobs[1 - here])
        jobs[here].wait_for("waiting for host")
        jobs[here].stop()
        assert hosts.finish([jobs[here]], 20) == [143]
    assert jobs[here].failure().startswith(f"stopped while host 127.0.0.{2 - here} was waited for; nothing is lost")


def test_hosts_with_different_pictures_are_told_apart(tmp_path: Path) -> None:
    """On an interface that is not there, as SDK v3's local mode names one: they find each other on the default one."""
    with hosts.job("process", tmp_path, 2, {}, interface="ethwe") as jobs:
        trees.picture(jobs[1].base / "input" / "data" / "train" / "01.red" / "more.jpg", (200, 40, 40), 7)
        assert all(hosts.finish(jobs, BY))
    for job in jobs:
        assert job.failure().startswith("process 1 of 2 has other images than the first: every host needs all of them")
        assert "warning: resourceconfig.json: network_interface_name 'ethwe' is not an interface of this" in job.text()


def test_hosts_leave_out_the_same_images(tmp_path: Path) -> None:
    """In FastFile mode, where nothing is read before the training."""
    broken = {"train/02.green/003.jpg", "valid/10.blue/001.jpg"}
    # More than 5 % of this split, but not of all.
    broken |= {"test/01.red/002.jpg", "test/01.red/005.jpg"}
    hyperparameters = {**hosts.SAME, "feature-cache": "off"}
    with hosts.job("process", tmp_path, 2, hyperparameters, {"train": 12, "valid": 8, "test": 8}) as jobs:
        for job in jobs:
            modes = job.base / "input" / "config" / "inputdataconfig.json"
            replace_file(modes, modes.read_text().replace('"File"', '"FastFile"').encode())
            for name in broken:
                replace_file(job.base / "input" / "data" / name, b"no image")
        assert hosts.finish(jobs) == [0, 0], "\n".join(job.text() for job in jobs)
    first, second = (job.text() for job in jobs)
    assert first.count("left out from now on: 2 images that cannot be read") == 1
    assert "not evaluated: 2 of 24 images of test, which cannot be read" in first
    assert "left out" not in second
    document = artifact.read(jobs[0].base / "model", verify=True).document
    assert {file["file"] for file in document["data"]["skipped_files"]} == broken
    assert all("not an image" in file["reason"] for file in document["data"]["skipped_files"])
    metrics = json.loads((jobs[0].base / "output" / "data" / "metrics.json").read_text())
    assert (metrics["images"], metrics["skipped"]) == ({"train": 35, "valid": 23, "test": 22}, 4)
    assert sum(row["images"] for row in metrics["per_class"]) == 22


SUM = """
import os, pathlib, sys
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
ranks = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(ranks)
pathlib.Path(os.environ["SM_MODEL_DIR"], "sum.txt").write_text(f"{dist.get_rank()} {int(ranks)} {sys.argv[1:]}")
dist.destroy_process_group()  # gloo's threads, still running, would abort the interpreter at its end
"""


def test_a_user_s_own_program_runs_under_torchrun_on_all_hosts(tmp_path: Path) -> None:
    asked = {"sagemaker_program": '"mine.py"', "sagemaker_torch_distributed_enabled": "true", "alpha": "a b"}
    with hosts.job("process", tmp_path, 2, asked, {"train": 1}, interface="ethwe", program=SUM) as jobs:
        assert hosts.finish(jobs, BY) == [0, 0], "\n".join(job.text() for job in jobs)
    said = [(job.base / "model" / "sum.txt").read_text() for job in jobs]
    assert [words.split(maxsplit=2)[:2] for words in said] == [["0", "3"], ["1", "3"]]
    assert all("'--alpha', 'a b'" in words for words in said)


@long
def test_what_is_wrong_on_one_host_stands_in_the_failure_file_of_all(tmp_path: Path) -> None:
    with hosts.job("process", tmp_path, 2, {}) as jobs:
        (jobs[1].base / "input" / "data" / "weights").mkdir()
        assert all(hosts.finish(jobs, BY))
    for job in jobs:
        assert job.failure().startswith("channel weights: ")
        assert "host 127.0.0.2)" in job.failure()
