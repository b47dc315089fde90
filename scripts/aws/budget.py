"""A limit in USD: what is counted, shown as a table, and refused before anything is made."""

from collections.abc import Sequence
from dataclasses import dataclass

from local_test import text
from scripts.aws import instances
from scripts.aws.errors import CloudError
from scripts.console.command import progress

DAY = 24 * 3600.0  # seconds


@dataclass(frozen=True)
class Item:
    """USD at least and at most; None where the price is not known."""

    what: str
    least: float | None
    most: float | None

    @classmethod
    def of(
        cls, instance_type: str, region: str, seconds: float, count: tuple[int, int], note: str = "", least: int = 1
    ) -> "Item":
        """So many instances, at least and at most, for so many seconds each; `least` 0: perhaps for none."""
        price = instances.price(instance_type, region)
        few, many = count
        number = str(many) if few == many else f"{few} to {many}"
        what = f"{number} x {instance_type}, {seconds / 3600:.4g} h{note}"
        return cls(what, price.cost(seconds * least, few), price.limit(seconds, many))


def check(items: Sequence[Item], limit: float | None, flag: str) -> None:
    """Raises CloudError where the items may cost more than `limit`, or it is not known what they cost."""
    if limit is None:
        return
    rows = [(one.what, _usd(one.least), _usd(one.most)) for one in items]
    most = [one.most for one in items if one.most is not None]
    if len(items) > 1:
        rows.append(("in all", _usd(sum(one.least or 0 for one in items)), _usd(sum(most))))
    progress(text.table((f"counted for {flag}", "USD at least", "at most"), rows))
    progress(f"prices: {instances.PRICE_REGION}, {instances.PRICE_MONTH}, at most in other regions half as much again")
    progress("not counted: data in and out, S3, CloudWatch")
    if len(most) < len(items):
        unknown = next(one.what for one in items if one.most is None)
        raise CloudError(f"{flag}: the price of {unknown} is not known here; see {instances.PRICE_PAGE}", 2)
    if sum(most) > limit:
        raise CloudError(f"{flag} {limit:g}: this may cost {sum(most):.2f} USD: ask for less, or raise it", 2)


def _usd(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"
