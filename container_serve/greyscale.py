"""Greyscale of more than 8 bits: 16-bit PNG, TIFF of integers and floating point numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

BLOCK = 1_000_000  # pixels scaled at a time
TIFF_BITS_PER_SAMPLE, TIFF_PHOTOMETRIC = 258, 262
MIN_IS_WHITE = 0


def greyscale(image: Image.Image) -> Image.Image:
    """Greyscale of more than 8 bits, in mode L.

    Unsigned integers of up to 16 bits are scaled from their full range. Nothing says what the range of 32-bit
    integers and floating point numbers is: 0..255 (or 0..1, floating point only) is assumed where all values lie in
    it, then 0..65535, else the range found. Not-a-number counts as black.
    """
    values = np.array(image)
    low, high = 0.0, 65535.0
    if image.mode.startswith("I;16"):
        tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
        bits = tags.get(TIFF_BITS_PER_SAMPLE)
        if isinstance(bits, tuple) and bits[0] in range(9, 16):
            high = float(2 ** bits[0] - 1)
        if tags.get(TIFF_PHOTOMETRIC) == MIN_IS_WHITE:
            low, high = high, low
        key = image.info.get("transparency")
        if isinstance(key, int):
            values[values == key] = 65535
    else:
        if image.mode == "F":
            np.nan_to_num(values, copy=False, nan=0.0)
        least, most = float(values.min()), float(values.max())
        if least < 0 or most > 65535:
            low, high = least, most
        elif most <= 255:
            high = 1.0 if image.mode == "F" and most <= 1 else 255.0
    scaled = np.empty(values.size, dtype=np.uint8)
    flat = values.ravel()
    for at in range(0, values.size, BLOCK):  # the whole in float64 would be eight times the picture
        fractions = (flat[at : at + BLOCK].astype(np.float64) - low) / ((high - low) or 1.0)
        scaled[at : at + BLOCK] = np.rint(np.clip(fractions, 0.0, 1.0) * 255.0)
    return Image.fromarray(scaled.reshape(values.shape))
