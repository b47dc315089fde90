import threading

import pytest

from container_train import progress


def test_results_come_in_order() -> None:
    assert progress.in_threads(lambda item: 2 * item, range(5000), "counting", 3) == list(range(0, 10_000, 2))


def test_after_an_error_no_item_is_begun() -> None:
    begun: list[int] = []
    seen = threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if item == 5:
            raise ValueError("the sixth")
        if item > 5:
            assert seen.wait(60)

    with pytest.raises(ValueError, match="the sixth"):
        progress.in_threads(work, range(5000), "counting", 2)
    seen.set()
    assert len(begun) < 10 * progress.MOST_AT_A_TIME
