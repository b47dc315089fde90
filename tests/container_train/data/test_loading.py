import subprocess
import sys

import pytest
import torch

from container_train.data import loading
from container_train.data.loading import Decoders
from container_train.distributed.process_group import ProcessGroup

CPU = torch.device("cpu")
BATCH = 64 * 3 * 224 * 224


@pytest.mark.parametrize(
    ("free", "expected"),
    [(64 << 20, 2), (4 * BATCH, 1), (100 * BATCH, 2), (0, 0)],
    ids=["what docker run gives", "one process", "plenty", "none"],
)
def test_decoding_processes_fit_into_the_shared_memory(free: int, expected: int) -> None:
    assert Decoders(2, free).processes(64, 224) == expected


def test_a_gpu_has_more_batches_ready() -> None:
    assert Decoders.of(8, torch.device("cuda")).prefetch == 4
    assert Decoders(8, 40 * BATCH, prefetch=4).processes(64, 224) == 7  # of 32 batches one is in use


def test_more_processes_than_asked_for_are_never_started() -> None:
    assert Decoders(0, 1 << 40).processes(64, 224) == 0


def test_the_processes_of_a_host_share_its_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_free_shared_memory", lambda: 20 * BATCH)
    assert Decoders.of(8, CPU).processes(64, 224) == 7
    four = [Decoders.of(8, CPU, ProcessGroup(rank, local_size=4)).processes(64, 224) for rank in range(4)]
    assert four == [1] * 4  # three batches of each, which are four fifths of the five that it may take


FAILING = """
from torch.utils.data import DataLoader, Dataset
from container_train.data.loading import start_decoding
from container_train.signals import StopFlag

class Broken(Dataset):
    def __len__(self): return 100
    def __getitem__(self, index):
        if index == 7: raise OSError("disk gone")
        return index

stop = StopFlag().install()
try:
    for batch in DataLoader(Broken(), batch_size=4, num_workers=2, worker_init_fn=start_decoding): pass
except OSError as error:
    kept = error  # its traceback keeps the loader, as it does in a program that reports it
    print("failed")
"""


def test_a_failed_decoding_process_does_not_keep_the_program_from_ending() -> None:
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "failed")
