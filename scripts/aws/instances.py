"""Instance types: which of them the images run on, and what those cost whose price is known.

An endpoint may name several, as A,B: the service takes the first that it has (instance pools). Such a text is an
instance type to `price`, `describe` and `takes_volume_key`, too.
"""

import re
from dataclasses import dataclass

from scripts.aws.errors import CloudError

# Families that no image of this project can use, and why. torch 2.13 is built for compute capability 7.5 and up.
_OLD_GPU = "a GPU of compute capability {}; the torch in the image needs 7.5 or more"
_ARM = "an ARM processor, on which these images do not train"
_OTHER_CHIP = "{}, for which the image has no software; it uses CPUs and NVIDIA GPUs"
REFUSED = {
    "p2": _OLD_GPU.format("3.7 (K80)"),
    **dict.fromkeys(("p3", "p3dn"), _OLD_GPU.format("7.0 (V100)")),
    **dict.fromkeys(("g3", "g3s"), _OLD_GPU.format("5.2 (M60)")),
    "g4ad": _OTHER_CHIP.format("AMD GPUs"),
    "dl1": _OTHER_CHIP.format("Gaudi chips"),
    **dict.fromkeys(("trn1", "trn1n", "trn2"), _OTHER_CHIP.format("Trainium chips")),
    **dict.fromkeys(("inf1", "inf2"), _OTHER_CHIP.format("Inferentia chips")),
}
_ARM_FAMILIES = re.compile(r"(a1|t4g|x2gd|g5g|p6e-gb200|(m6|m7|m8|c6|c7|c8|r6|r7|r8)g[dn]?)\Z")
INSTEAD = "ml.g4dn.xlarge (T4), ml.g5.xlarge (A10G), ml.g6.xlarge (L4) or, without a GPU, ml.m5.xlarge"

# Families with disks of their own: they are encrypted in hardware, and a request that names a key is refused. A d after
# the generation says so (m5d, c6id, r5dn, g4dn, p4de); the names of these families do not.
_OWN_DISKS = ("g5", "g6", "g6e", "g6f", "gr6", "gr6f", "g7", "g7e", "p5", "p5e", "p5en", "p6-b200", "p6-b300")
NO_VOLUME_KEY = "{} has disks of its own, encrypted in hardware: --volume-kms-key is left out"
_NAMED_DISKS = re.compile(r"[a-z]+\d+[a-ce-z]*d")

# On-demand USD an hour in PRICE_REGION. From tables of public repositories that name AWS's Price List API (service
# AmazonSageMaker) as their source; each figure stands in at least two of them (that of c7g rounded to cents). Other
# regions differ, mostly upwards.
PRICE_REGION = "us-west-2"
PRICE_MONTH = "2026-09"
PRICE_PAGE = "https://aws.amazon.com/sagemaker/ai/pricing/"
_PRICES = """
    m5.large=0.115 m5.xlarge=0.23 m5.2xlarge=0.461 m5.4xlarge=0.922
    c5.large=0.102 c5.xlarge=0.204 c5.2xlarge=0.408 c7g.large=0.09
    g4dn.xlarge=0.7364 g4dn.2xlarge=0.94 g4dn.4xlarge=1.505 g4dn.8xlarge=2.72 g4dn.12xlarge=4.89 g4dn.16xlarge=5.44
    g5.xlarge=1.408 g5.2xlarge=1.515 g5.4xlarge=2.03 g5.8xlarge=3.06 g5.12xlarge=7.09 g5.16xlarge=5.12
    g5.24xlarge=10.18 g5.48xlarge=20.36
    g6.xlarge=1.127 g6.2xlarge=1.222 g6.4xlarge=1.654 g6.12xlarge=5.752 g6.24xlarge=8.344 g6.48xlarge=16.688
"""
PRICES = {f"ml.{kind}": float(usd) for kind, _, usd in (item.partition("=") for item in _PRICES.split())}
ELSEWHERE = 1.5  # prices of other regions at most, against those that are known
SPOT = "spot costs up to 90 % less"


@dataclass(frozen=True)
class Price:
    """USD an hour of one instance, where that is known; `exact` in the region it was looked up for."""

    hourly: float | None
    exact: bool

    def cost(self, seconds: float, count: int = 1) -> float | None:
        """USD of `count` instances; billed by the second."""
        return None if self.hourly is None else self.hourly * count * seconds / 3600

    def limit(self, seconds: float, count: int = 1) -> float | None:
        """USD that it costs at most, for limits: in another region than the prices' half as much again."""
        usd = self.cost(seconds, count)
        return usd if usd is None or self.exact else usd * ELSEWHERE


def family(instance_type: str) -> str:
    """ml.g4dn.xlarge -> g4dn."""
    return instance_type.removeprefix("ml.").partition(".")[0]


def kinds(instance_type: str) -> list[str]:
    """Return the types of A,B in their order. Raises CloudError for one that is empty, or named twice."""
    found = [kind.strip() for kind in instance_type.split(",")]
    if not all(found):
        raise CloudError(f"--instance-type has value {instance_type!r}: expected TYPE, or TYPE,TYPE", 2)
    if len(set(found)) < len(found):
        raise CloudError(f"--instance-type {instance_type} names a type twice", 2)
    return found


def architecture(instance_type: str) -> str:
    """Return amd64 or arm64."""
    return "arm64" if _ARM_FAMILIES.match(family(instance_type)) else "amd64"


def check(instance_type: str, flag: str = "--instance-type") -> None:
    """Raises CloudError for an instance that cannot train."""
    kind = family(instance_type)
    reason = REFUSED.get(kind) or (_ARM if architecture(instance_type) == "arm64" else None)
    if reason:
        raise CloudError(f"{flag} {instance_type} has {reason}: take {INSTEAD}", 2)
    if not instance_type.startswith("ml.") or instance_type.count(".") != 2:
        raise CloudError(f"{flag} has value {instance_type!r}: expected one such as ml.g4dn.xlarge", 2)


def takes_volume_key(instance_type: str) -> bool:
    """Tell whether a KMS key can be named for its volume."""
    families = map(family, kinds(instance_type))
    return all(kind not in _OWN_DISKS and not _NAMED_DISKS.match(kind) for kind in families)


def price(instance_type: str, region: str) -> Price:
    """The price of the dearest of several types."""
    found = [PRICES.get(kind) for kind in kinds(instance_type)]
    known = [usd for usd in found if usd is not None]
    return Price(max(known) if len(known) == len(found) else None, region == PRICE_REGION)


def describe(instance_type: str, count: int, region: str, *, spot: bool = False) -> str:
    """Return its price per hour in one line, or that it is not known."""
    known = price(instance_type, region)
    what = f"{count} x {' or '.join(kinds(instance_type))}"
    if known.hourly is None:
        return f"{what}: the price an hour is not known here; see {PRICE_PAGE}"
    where = PRICE_REGION if known.exact else f"{PRICE_REGION}; {region} may differ"
    line = f"{what}: {known.hourly * count:.2f} USD an hour on demand ({where}, {PRICE_MONTH}, {PRICE_PAGE})"
    return f"{line}; {SPOT}" if spot else line
