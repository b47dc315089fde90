import pytest

from container_train import hyperparameters
from container_train.features import decoding_processes

BATCH = 64 * 3 * 224 * 224 * 4


@pytest.mark.parametrize(
    ("free", "expected"),
    [(64 << 20, 0), (4 * BATCH, 1), (100 * BATCH, 2), (0, 0)],
    ids=["what docker run gives", "one process", "plenty", "none"],
)
def test_decoding_processes_fit_into_the_shared_memory(free: int, expected: int) -> None:
    hp = hyperparameters.parse(["--batch-size", "64", "--workers", "2"])
    assert decoding_processes(hp, 224, free) == expected


def test_more_processes_than_asked_for_are_never_started() -> None:
    assert decoding_processes(hyperparameters.parse(["--workers", "0"]), 224, 1 << 40) == 0
