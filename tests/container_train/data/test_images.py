"""Images as training sees them: the server's pixels and bits, views that depend on nothing but their numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from container_serve.image import decode
from container_serve.preprocess import Preprocessing, preprocess, to_tensor
from container_train.data import dataset, images, loading
from container_train.data.augmentation import Augment
from container_train.data.files import Split
from container_train.data.images import ImageDataset, Item, Normalisation
from container_train.paths import SageMakerPaths
from tests import trees

SPEC = Preprocessing(resize=64, crop=56, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.7), interpolation="bilinear")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Split]:
    base = tmp_path_factory.mktemp("tree")
    trees.fill(base / "input" / "data")
    return dataset.read(SageMakerPaths(base)).splits


def seen(of: ImageDataset, *items: Item, spec: Preprocessing = SPEC) -> torch.Tensor:
    """The network's input: float32 (N, 3, side, side)."""
    ((pixels, _, _),) = loading.load(of, [list(items)], 0, CPU)
    return Normalisation(spec, CPU)(pixels)


def body(split: Split, image: int) -> bytes:
    return split.paths[image].read_bytes()


def test_training_evaluates_the_tensor_that_the_server_computes(splits: dict[str, Split]) -> None:
    split = splits["valid"]
    items = [Item("valid", image) for image in range(12)]
    ((pixels, targets, _),) = loading.load(ImageDataset(splits, SPEC, Augment("crop")), [items], 0, CPU)
    assert (pixels.dtype, tuple(pixels.shape)) == (torch.uint8, (12, 3, 56, 56))
    assert targets.tolist() == list(split.targets)
    for layout in (torch.channels_last, torch.contiguous_format):
        ours = Normalisation(SPEC, CPU)(pixels, layout)
        assert ours.is_contiguous(memory_format=layout)
        for image in range(12):
            np.testing.assert_array_equal(ours[image].numpy(), preprocess(body(split, image), SPEC))
    assert torch.equal(pixels[:4], images.first_images({"train": split}, SPEC, 4))
    reference = v2.Compose(
        [
            v2.Resize(SPEC.resize, antialias=True),
            v2.CenterCrop(SPEC.crop),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(SPEC.mean, SPEC.std),
        ]
    )(decode(body(split, 5)))
    assert torch.allclose(ours[5], reference, atol=1e-6)


def test_an_augmented_view_depends_on_seed_view_and_image_only(splits: dict[str, Split]) -> None:
    crops = ImageDataset(splits, SPEC, Augment("crop"), seed=3)
    before = torch.get_rng_state()
    first = crops[Item("train", 4)][0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(10)  # the state of the global generator must not matter
    assert torch.equal(crops[Item("train", 4)][0], first)
    assert not torch.equal(crops[Item("train", 4, (1,))][0], first)
    assert not torch.equal(ImageDataset(splits, SPEC, Augment("crop"), seed=4)[Item("train", 4)][0], first)


def test_the_views_of_an_image_are_the_same_from_one_decoding(
    splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = ImageDataset(splits, SPEC, Augment("crop"), seed=3)
    alone = [crops[Item("train", 4, (view,))][0] for view in (0, 2, 5)]
    decoded: list[bytes] = []

    def decode_once(content: bytes) -> Image.Image:
        decoded.append(content)
        return decode(content)

    monkeypatch.setattr(images, "decode", decode_once)
    together = crops[Item("train", 4, (0, 2, 5))][0]
    assert torch.equal(together, torch.cat(alone))
    assert decoded == [body(splits["train"], 4)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_random_crop_is_resized_once(splits: dict[str, Split], interpolation: str) -> None:
    spec = replace(SPEC, interpolation=interpolation)
    ours = seen(ImageDataset(splits, spec, Augment("crop"), seed=3), Item("train", 5, (2,)), spec=spec)[0]
    mode = v2.InterpolationMode(interpolation)
    reference = v2.Compose(
        [
            v2.RandomResizedCrop(spec.crop, interpolation=mode, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(spec.mean, spec.std),
        ]
    )
    torch.manual_seed(hash((3, 2, 5)))
    assert torch.allclose(ours, reference(decode(body(splits["train"], 5))), atol=1e-6)


def test_a_mirrored_image_is_the_one_that_the_server_computes(splits: dict[str, Split]) -> None:
    flips = ImageDataset(splits, SPEC, Augment("flip"), seed=3)
    views = seen(flips, *(Item("train", 5, (view,)) for view in range(8)))
    image = decode(body(splits["train"], 5))
    plain, mirrored = (torch.from_numpy(to_tensor(each, SPEC)) for each in (image, ImageOps.mirror(image)))
    assert {torch.equal(view, plain) for view in views} == {True, False}
    assert all(torch.equal(view, plain) or torch.equal(view, mirrored) for view in views)


def test_a_trivial_view_is_torchvision_s_after_crop_and_mirror(splits: dict[str, Split]) -> None:
    trivial = ImageDataset(splits, SPEC, Augment("trivial", crop_scale=0.35), seed=3)
    ours = seen(trivial, *(Item("train", 5, (view,)) for view in range(4)))
    crop = v2.RandomResizedCrop(SPEC.crop, scale=(0.35, 1.0), antialias=True)
    reference = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.TrivialAugmentWide()])
    for view, image in enumerate(ours):
        torch.manual_seed(hash((3, view, 5)))
        changed = reference(decode(body(splits["train"], 5)))
        expected = torch.from_numpy(to_tensor(changed, replace(SPEC, resize=SPEC.crop)))
        assert torch.equal(image, expected)


def test_an_erased_rectangle_is_zero_for_the_network(splits: dict[str, Split]) -> None:
    erased = ImageDataset(splits, SPEC, Augment(erasing=1.0), seed=3)
    ours, plain = (
        seen(of, Item("train", 5), spec=SPEC)[0] for of in (erased, ImageDataset(splits, SPEC))
    )  # fmt: skip
    changed = (ours != plain).any(0)
    rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
    inside = ours[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert 0 < changed.float().mean() < 0.4
    assert float(inside.abs().max()) < 0.5 / 255 / min(SPEC.std) + 1e-6  # pixels are whole numbers
    assert torch.equal(seen(erased, Item("valid", 5))[0], seen(ImageDataset(splits, SPEC), Item("valid", 5))[0])
