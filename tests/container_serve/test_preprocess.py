"""The tensors are compared with torchvision's own."""

from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image
from torchvision import transforms

from container_serve import preprocess as module
from container_serve.image import decode
from container_serve.preprocess import Preprocessing, preprocess, to_tensor
from tests.conftest import need
from tests.container_serve.images import encode, noise

ROOT = Path(__file__).parents[2]
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SPEC = Preprocessing(256, 224, **IMAGENET, interpolation="bilinear")
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def photographs() -> list[Path]:
    wheel = Path(skimage.__file__).parent / "data"
    return [wheel / name for name in ("coffee.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg")]


def more_photographs() -> list[Path]:
    return sorted((ROOT / "../shared/data/photos").glob("*.jpg"))


def torchvision_transform(spec: Preprocessing) -> transforms.Compose:
    interpolation = transforms.InterpolationMode(spec.interpolation)
    return transforms.Compose(
        [
            transforms.Resize(spec.resize, interpolation=interpolation, antialias=True),
            transforms.CenterCrop(spec.crop),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )


# --- the tensor ---


SIZES = [(500, 375), (375, 500), (224, 224), (256, 256), (255, 257), (1, 1), (3, 2), (37, 91), (223, 600), (641, 225)]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (232, 224), (64, 63), (100, 224), (33, 64), (7, 1)])
def test_tensors_equal_torchvisions(resize: int, crop: int, interpolation: str) -> None:
    spec = Preprocessing(resize, crop, **IMAGENET, interpolation=interpolation)
    theirs = torchvision_transform(spec)
    for seed, (width, height) in enumerate(SIZES):
        image = noise(width, height, seed)
        tensor = to_tensor(image, spec)
        assert tensor.dtype == np.float32
        assert tensor.flags.c_contiguous
        np.testing.assert_array_equal(tensor, theirs(image).numpy(), err_msg=f"{width} x {height}")


def test_tensors_equal_torchvisions_for_random_sizes() -> None:
    sizes = np.random.default_rng(1).integers(10, 700, (60, 2)).tolist()
    theirs = torchvision_transform(SPEC)
    for width, height in sizes:
        image = noise(width, height, width)
        np.testing.assert_array_equal(to_tensor(image, SPEC), theirs(image).numpy())


@pytest.mark.parametrize("path", photographs(), ids=lambda path: path.stem)
def test_a_photographs_bytes_become_torchvisions_tensor(path: Path) -> None:
    need(path.exists(), f"scikit-image's {path.name}")
    with Image.open(path) as image:
        expected = torchvision_transform(SPEC)(image.convert("RGB")).numpy()
    np.testing.assert_array_equal(preprocess(path.read_bytes(), SPEC), expected)


@pytest.mark.skipif(not more_photographs(), reason="no photographs beside the checkout")
def test_photographs_beside_the_checkout_become_torchvisions_tensors() -> None:
    for path in more_photographs():
        with Image.open(path) as image:
            expected = torchvision_transform(SPEC)(image.convert("RGB")).numpy()
        np.testing.assert_array_equal(preprocess(path.read_bytes(), SPEC), expected, err_msg=path.name)


def test_the_resize_of_the_crop_alone_differs_by_rounding_only(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [noise(width, height) for width, height in ((500, 375), (90, 400), (31, 700), (700, 31))]
    for crop in (224, 300):
        spec = Preprocessing(256, crop, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear")
        whole = [to_tensor(image, spec) for image in images]
        with monkeypatch.context() as patched:
            patched.setattr(module, "MAX_RESIZED_PIXELS", 0)
            parts = [to_tensor(image, spec) for image in images]
        for one, other in zip(whole, parts, strict=True):
            np.testing.assert_allclose(one, other, atol=2.01 / 255)


@pytest.mark.parametrize("size", [(2, 3_000_000), (3_000_000, 2)])
def test_a_very_long_picture_does_not_grow(size: tuple[int, int]) -> None:
    tensor = to_tensor(Image.new("RGB", size, RED), SPEC)  # 256 times 384 million pixels if resized as a whole
    expected = (np.array([1, 0, 0], dtype=np.float32) - SPEC.mean) / SPEC.std
    np.testing.assert_allclose(tensor, np.broadcast_to(expected[:, None, None], (3, 224, 224)), atol=1e-5)


# --- the description of the tensor ---


def test_a_preprocessing_survives_its_dict() -> None:
    assert Preprocessing.from_dict(SPEC.to_dict()) == SPEC


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("resize", 0),
        ("resize", 5000),
        ("resize", True),
        ("crop", "224"),
        ("crop", 224.0),
        ("mean", [0.5, 0.5]),
        ("mean", 0.5),
        ("mean", [0.5, 0.5, float("nan")]),
        ("mean", [0.5, 0.5, "0.5"]),
        ("std", [0.2, 0.2, 0.0]),
        ("std", [0.2, 0.2, -1]),
        ("std", [0.2, 0.2, 1e-60]),
        ("std", [0.2, 0.2, 10**400]),
        ("interpolation", "lanczos"),
        ("interpolation", ["bilinear"]),
        ("channels", 3),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{key}: "):
        Preprocessing.from_dict({**SPEC.to_dict(), key: value})


@pytest.mark.parametrize("key", list(SPEC.to_dict()))
def test_a_missing_key_is_named(key: str) -> None:
    document = SPEC.to_dict()
    del document[key]
    with pytest.raises(ValueError, match=f"^{key}: is missing"):
        Preprocessing.from_dict(document)


def test_a_preprocessing_that_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an object, got an empty list"):
        Preprocessing.from_dict([])  # type: ignore[arg-type]


# --- scaled while it is decoded ---


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_scaled_while_it_is_decoded(orientation: int) -> None:
    with Image.open(photographs()[0]) as photograph:
        large = photograph.convert("RGB").resize((2400, 1600), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = encode(large, "JPEG", quality=90, exif=exif)
    # By 2: by 4 the shorter side would be 400, less than twice the 256 that are needed.
    size = (1200, 800) if orientation == 1 else (800, 1200)
    assert decode(body, least=512).size == size
    assert decode(body).size == tuple(2 * side for side in size)
    fast, plain = preprocess(body, SPEC), to_tensor(decode(body), SPEC)
    assert np.abs(fast - plain).mean() < 0.01  # a 450th of the range
    assert np.abs(fast - plain).max() < 0.2


def test_what_is_not_a_large_jpeg_is_decoded_in_full() -> None:
    with Image.open(photographs()[0]) as photograph:
        large = photograph.convert("RGB").resize((1300, 1100))
    png, just_too_small = encode(large, "PNG"), encode(large.resize((1200, 1023)), "JPEG")
    for body in (png, just_too_small):
        np.testing.assert_array_equal(preprocess(body, SPEC), to_tensor(decode(body), SPEC))
