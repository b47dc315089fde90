"""The settings of the steps from image to tensor, as model.json holds them; see preprocess.py."""

from collections.abc import Mapping
from ctypes import c_float
from dataclasses import asdict, dataclass, fields
from typing import Any

from container_serve.errors import shown

MAX_SIDE = 4096  # of resize and crop
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


@dataclass(frozen=True)
class Preprocessing:
    """The settings of the steps from image to tensor.

    `resize` is the length of the shorter side and `crop` the side of the centred square, in pixels; `mean`
    and `std` are per channel (R, G, B) on a scale of 0 to 1; `interpolation` is "nearest", "bilinear" or
    "bicubic".
    """

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str

    def __post_init__(self) -> None:
        for key, side in (("resize", self.resize), ("crop", self.crop)):
            if type(side) is not int or not 1 <= side <= MAX_SIDE:
                raise ValueError(f"{key}: expected a whole number from 1 to {MAX_SIDE}, got {shown(side)}")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if not isinstance(values, tuple) or len(values) != 3 or not all(map(_is_finite, values)):
                raise ValueError(f"{key}: expected three numbers, got {shown(values)}")
        # Checked as float32, which is what the division is done in.
        if not all(c_float(value).value > 0 for value in self.std):
            raise ValueError(f"std: expected three numbers above 0, got {shown(self.std)}")
        if not isinstance(self.interpolation, str) or self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation: expected one of {', '.join(INTERPOLATIONS)}, got {shown(self.interpolation)}"
            )

    def to_dict(self) -> dict[str, object]:
        """The same as JSON values; `from_dict` is the inverse."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> "Preprocessing":
        """From JSON values; ValueError names the key that is missing, unknown or wrong."""
        if not isinstance(d, Mapping):
            raise ValueError(f"expected an object, got {shown(d)}")
        keys = [field.name for field in fields(cls)]
        if missing := [key for key in keys if key not in d]:
            raise ValueError(f"{missing[0]}: is missing")
        # An unknown key is a step that this program would silently leave out.
        if unknown := [key for key in d if key not in keys]:
            raise ValueError(f"{unknown[0]}: is not known here, expected {', '.join(keys)}")
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in d.items()}
        return cls(**values)


def _is_finite(value: object) -> bool:
    # Compared, not converted: a whole number may be too large for a float. Not-a-number compares false.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30
