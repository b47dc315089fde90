"""Collectives, among real processes over gloo."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from container_train.distributed.process_group import SINGLE, ProcessGroup
from container_train.model import builder
from tests.contract.serving import free_port

SIZE = 3


def check(rank: int, port: int) -> None:
    """Do the part of one process; an error that it raises fails the test."""
    names = {"RANK": rank, "WORLD_SIZE": SIZE, "LOCAL_WORLD_SIZE": SIZE, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    group = ProcessGroup.from_environment()
    group.start(torch.device("cpu"))
    assert (group.rank, group.size) == (rank, SIZE)
    for rows in (7, 2):  # of two, the last process has none
        for dtype in (torch.float32, torch.bfloat16):
            whole = torch.arange(rows * 6).reshape(rows, 3, 2).to(dtype)
            assert torch.equal(group.gather_rows(whole[rank::SIZE], rows), whole)
        shares = [torch.arange(rows).tensor_split(SIZE)[other] for other in range(SIZE)]
        assert torch.equal(group.shard(torch.arange(rows)), shares[rank])
    assert group.all_reduce([1.0, 0.1 * rank]) == [3.0, 0.1 + 0.2]
    assert group.any(rank == 2, False) == [True, False]
    assert group.gather(f"of {rank}") == ["of 0", "of 1", "of 2"]
    content = {"weights": torch.ones(2)} if rank == 0 else None
    assert torch.equal(group.broadcast_object(content)["weights"], torch.ones(2))
    norm = torch.nn.BatchNorm2d(2)
    norm.running_mean = torch.full((2,), float(rank))
    group.average_buffers(norm)
    assert norm.running_mean.tolist() == [1.0, 1.0]
    norm.running_mean.fill_(rank)
    group.broadcast_parameters(norm)
    assert norm.running_mean.tolist() == [0.0, 0.0]
    group.shutdown()


def test_processes_tell_each_other_the_same() -> None:
    with ProcessPoolExecutor(SIZE, multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(check, range(SIZE), [free_port()] * SIZE)) == [None] * SIZE


def test_a_single_process_gets_back_what_it_gave() -> None:
    rows, module = torch.arange(5), torch.nn.Linear(2, 2)
    assert SINGLE.gather_rows(rows, 5) is rows
    assert torch.equal(SINGLE.shard(rows), rows)
    assert SINGLE.all_reduce_async(torch.tensor([0.5]))() == [0.5]
    assert SINGLE.gather("a") == ["a"]
    assert SINGLE.broadcast_object(module) is module
    assert SINGLE.data_parallel(module) is module


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "timm/mobilenetv3_small_050", "timm/resnet10t"])
def test_synchronised_batch_norm_computes_the_same(arch: str) -> None:
    network = builder.build(arch, 3, weights="none", weights_file=None, freeze_until="none", image_size=32)
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        expected = network.model(x)
        whole = ProcessGroup(size=2).sync_batch_norm(network.head, torch.device("cuda"))
        assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in whole.modules())
        assert torch.equal(whole(x), expected)
