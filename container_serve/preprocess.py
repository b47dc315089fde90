"""From the bytes of an image to the tensor that the network was trained on.

The steps and their arithmetic are those of torchvision's evaluation transforms on PIL images (Resize of the
shorter side with antialiasing, CenterCrop, ToTensor, Normalize), done with Pillow and numpy alone.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from container_serve.image import decode
from container_serve.settings import MAX_PIXELS
from container_serve.spec import MAX_SIDE, Preprocessing

__all__ = ["MAX_SIDE", "Preprocessing", "normalise", "preprocess", "read", "to_pixels", "to_tensor"]

# A resize to more pixels than this is computed for the crop only: an image of 2 x 20,000,000 pixels would
# otherwise become one of 256 x 2,560,000,000.
MAX_RESIZED_PIXELS = 50_000_000
SCALED_MARGIN = 2  # 12 megapixels for a side of 232: 4 times as fast as decoding all; with 1, 6 times, but coarser


def to_tensor(image: Image.Image, spec: Preprocessing) -> npt.NDArray[np.float32]:
    """float32 (3, crop, crop), contiguous, equal to torchvision's evaluation transforms of an RGB image."""
    return normalise(to_pixels(image, spec), spec)


def to_pixels(image: Image.Image, spec: Preprocessing) -> npt.NDArray[np.uint8]:
    """The pixels of an RGB image, resized and cropped: uint8 (crop, crop, 3).

    An image that is smaller than the crop after resizing is padded with black, as torchvision does.
    """
    width, height = image.size
    long_side = int(spec.resize * max(width, height) / min(width, height))
    size = (spec.resize, long_side) if width <= height else (long_side, spec.resize)
    left, top = (_offset(side, spec.crop) for side in size)
    box = (left, top, left + spec.crop, top + spec.crop)
    resample = Image.Resampling[spec.interpolation.upper()]
    if spec.resize * long_side > MAX_RESIZED_PIXELS:
        cropped = _resize_crop_only(image, size, box, resample)
    else:
        resized = image if size == image.size else image.resize(size, resample)
        cropped = resized.crop(box)
    return np.array(cropped)


def normalise(pixels: npt.NDArray[np.uint8], spec: Preprocessing) -> npt.NDArray[np.float32]:
    """float32 (3, crop, crop) from uint8 (crop, crop, 3)."""
    # torchvision's own operations in its own order and precision: any shortcut would differ in the last bits.
    tensor = np.empty((3, spec.crop, spec.crop), dtype=np.float32)
    tensor[...] = pixels.transpose(2, 0, 1)
    tensor /= np.float32(255)
    tensor -= np.array(spec.mean, dtype=np.float32)[:, None, None]
    tensor /= np.array(spec.std, dtype=np.float32)[:, None, None]
    return tensor


def _offset(side: int, crop: int) -> int:
    """The first pixel of torchvision's CenterCrop on a side of that length; negative where it pads."""
    return -((crop - side) // 2) if side < crop else round((side - crop) / 2.0)


def _resize_crop_only(
    image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int], resample: Image.Resampling
) -> Image.Image:
    """Resize and crop at once; equal to one after the other, except for rounding."""
    scale_x, scale_y = image.width / size[0], image.height / size[1]
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], size[0]), min(box[3], size[1])
    source = (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
    part = image.resize((right - left, bottom - top), resample, box=source)
    return part.crop((box[0] - left, box[1] - top, box[2] - left, box[3] - top))


def preprocess(
    body: bytes, spec: Preprocessing, *, max_pixels: int = MAX_PIXELS, max_bytes: int | None = None
) -> npt.NDArray[np.float32]:
    """`read`, then `to_tensor`: float32 (3, crop, crop) from an image's bytes; errors as in `decode`."""
    return to_tensor(read(body, spec, max_pixels=max_pixels, max_bytes=max_bytes), spec)


def read(
    body: bytes, spec: Preprocessing, *, max_pixels: int = MAX_PIXELS, max_bytes: int | None = None
) -> Image.Image:
    """`decode` an image for `to_tensor`; errors as there.

    A JPEG much larger than needed is scaled in the decoder, to no less than SCALED_MARGIN times the size after it: what
    is left to the resize then hides how the decoder scaled. The export measures what this does to the accuracy.
    """
    return decode(body, max_pixels=max_pixels, max_bytes=max_bytes, least=SCALED_MARGIN * spec.resize)
