from collections.abc import Iterator

import pytest

from container_train import progress


class Counted(list[int]):
    """Counts the items that were taken from it."""

    taken = 0

    def __iter__(self) -> Iterator[int]:
        for item in super().__iter__():
            self.taken += 1
            yield item


def test_results_come_in_order_and_few_items_wait() -> None:
    items, ahead, done = Counted(range(5000)), [], 0

    def work(item: int) -> int:
        nonlocal done
        ahead.append(items.taken - done)
        done += 1
        return 2 * item

    assert progress.in_threads(work, items, "counting", 3) == [2 * item for item in range(5000)]
    assert max(ahead) <= (progress.AHEAD + 1) * 3 + 2, "a million waiting ones would take a gigabyte"


def test_after_an_error_no_item_is_begun() -> None:
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 5:
            raise ValueError("the sixth")

    with pytest.raises(ValueError, match="the sixth"):
        progress.in_threads(work, range(5000), "counting", 2)
    assert len(begun) < 200
