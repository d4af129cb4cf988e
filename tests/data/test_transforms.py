"""Augmentation keeps image and mask together, and invents no label."""

import colorsys
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors

from crispseg.data.dataset import Sample
from crispseg.data.transforms import (
    Augment,
    PhotometricDistortion,
    around_label,
    eval_transform,
    largest_share,
    train_transform,
)
from crispseg.errors import CrispsegError
from crispseg.labels import IGNORE

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEVELS = np.array([20, 70, 120, 170, 220], np.uint8)

upright = partial(Augment, turn=False, photometric=False)
"""Augmentations that are the same for every kind of image."""


def blocks(height: int, width: int, cell: int = 12, seed: int = 0) -> Sample:
    """Cells of random classes, painted in the class's grey level."""
    coarse = np.random.default_rng(seed).integers(0, 5, (-(-height // cell), -(-width // cell)))
    labels = np.kron(coarse, np.ones((cell, cell), int))[:height, :width].astype(np.uint8)
    return Sample(np.repeat(LEVELS[labels][..., None], 3, axis=2), labels, "blocks")


def shown(image: Tensor) -> Tensor:
    """How far each pixel is from the level of each class."""
    levels = image[0] * STD[0] * 255 + MEAN[0] * 255
    return (levels[..., None] - torch.from_numpy(LEVELS).float()).abs()  # (H, W, 5)


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(20, 120), st.integers(20, 120)),
    crop=st.none() | st.tuples(st.integers(16, 140), st.integers(16, 140)),
    scale=st.tuples(st.floats(0.5, 1.0), st.floats(1.0, 2.5)),
    turn=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_image_and_labels_stay_together(
    size: tuple[int, int], crop: tuple[int, int] | None, scale: tuple[float, float], turn: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    sample = blocks(*size, seed=seed)
    image, labels = train_transform(Augment(crop, scale, turn=turn, photometric=False), MEAN, STD)(sample)

    assert image.dtype == torch.float32 and labels.dtype == torch.int64
    assert type(image) is type(labels) is Tensor and image.is_contiguous()
    assert image.shape[1:] == labels.shape and (crop is None or labels.shape == crop)
    assert set(labels.unique().tolist()) <= {*np.unique(sample.labels).tolist(), 255}

    padded = labels == 255
    assert (image[:, padded] == 0).all()
    rows, columns = (~padded).any(1).nonzero().flatten(), (~padded).any(0).nonzero().flatten()
    inside = ~padded[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert inside.all()  # the picture is one rectangle

    # Where the levels are not blended, at cell borders, they must say the label.
    distance = shown(image)
    pure = (distance.min(-1).values < 1) & ~padded
    flat = torch.nn.functional.max_pool2d(labels[None].float(), 5, 1, 2)[0] == labels
    flat &= -torch.nn.functional.max_pool2d(-labels[None].float(), 5, 1, 2)[0] == labels
    assert (pure | ~flat | padded).all()
    assert torch.equal(distance.argmin(-1)[flat & ~padded], labels[flat & ~padded])


def test_the_mask_is_not_shifted_against_the_image() -> None:
    """On a ramp that is its own labels, both shrink to the same values: nearest takes the middle one of three."""
    ramp = np.repeat(np.arange(210, dtype=np.uint8)[None], 60, axis=0)
    sample = Sample(np.repeat(ramp[..., None], 3, axis=2), ramp, "ramp")
    image, labels = train_transform(upright(crop=None, scale=(1 / 3, 1 / 3), flip=0), MEAN, STD)(sample)
    columns = image[0, 10] * STD[0] * 255 + MEAN[0] * 255
    assert labels.shape == (20, 70)
    assert (labels[10] - columns)[2:-2].abs().max() < 0.1


@pytest.mark.parametrize(
    ("size", "sides", "factor"),
    [
        ((60, 100), (50, None), 0.5),
        ((30, 20), (120, None), 4),
        ((60, 100), (None, 30), 0.5),
        ((100, 60), (2048, 30), 0.5),
        ((60, 100), (40, 30), 0.4),
    ],
)
def test_scale_is_relative_to_a_side(
    size: tuple[int, int], sides: tuple[int | None, int | None], factor: float
) -> None:
    """With both no side is longer than it says, as in MMSegmentation, whose sizes are a pair."""
    sample, given = blocks(*size), dict(zip(("longer_side", "shorter_side"), sides, strict=True))
    whole = train_transform(upright(crop=None, scale=(1, 1), **given), MEAN, STD)
    assert whole(sample)[1].shape == tuple(round(factor * side) for side in size)

    results = []
    for scale, more in ((1.5, given), (1.5 * factor, {})):
        torch.manual_seed(5)
        results.append(train_transform(upright((32, 48), (scale, scale), **more), MEAN, STD)(sample))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


def test_one_class_does_not_fill_a_crop() -> None:
    """Half of the image has one class alone; crops of it are drawn again, up to ten times."""
    labels = np.random.default_rng(0).integers(0, 5, (40, 80)).astype(np.uint8)
    labels[:, 40:], labels[:5] = 7, 255
    sample = Sample(np.repeat(labels[..., None], 3, axis=2), labels, "half")
    shares = {}
    for limit in (1.0, 0.75):
        transform = train_transform(upright((10, 10), (1, 1), 0, max_share=limit), MEAN, STD)
        shares[limit] = [largest_share(transform(sample)[1].numpy().astype(np.uint8)) for _ in range(200)]
    assert sum(share > 0.75 for share in shares[1.0]) > 60
    assert sum(share > 0.75 for share in shares[0.75]) <= 1  # eleven times in the wrong half
    whole = np.full((20, 20), 3, np.uint8)
    full = Sample(np.repeat(whole[..., None], 3, axis=2), whole, "full")
    assert transform(full)[1].shape == (10, 10)  # nowhere is better


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.8, 1.25)])
def test_crops_have_labelled_pixels(scale: tuple[float, float]) -> None:
    """Crops are around each of two strokes in the corners of a large image, which random ones would rarely meet."""
    labels = np.full((500, 700), IGNORE, np.uint8)
    labels[3:6, 2:40] = 0
    labels[400:480, -3:] = 1
    sample = Sample(np.zeros((500, 700, 3), np.uint8), labels, "strokes")
    transform = train_transform(Augment(64, scale, turn=False, photometric=False), (0,) * 3, (1,) * 3)
    counts = [torch.bincount(transform(sample)[1].flatten(), minlength=256)[:2] for _ in range(100)]
    assert min(int(count.sum()) for count in counts) > 0
    classes = torch.stack(counts).bool().sum(0)
    assert classes.min() > 20  # about 32 % and 68 %, as their pixels


def test_windows_around_a_label_reach_every_place() -> None:
    labels = np.full((9, 7), IGNORE, np.uint8)
    labels[1, 5] = 0
    image = np.arange(63, dtype=np.uint8).reshape(9, 7, 1)
    windows = {around_label(Sample(image, labels, ""), (3, 3)).image[0, 0, 0].item() for _ in range(200)}
    assert windows == {7 * top + left for top in (0, 1) for left in (3, 4)}
    unknown = Sample(image, np.full_like(labels, IGNORE), "")
    assert around_label(unknown, (9, 7)).size == (9, 7)


@pytest.mark.parametrize("flip", [0, 1])
def test_flip(flip: int) -> None:
    sample = blocks(48, 60)
    transform = train_transform(upright(crop=None, scale=(1, 1), flip=flip), MEAN, STD)
    assert all(np.array_equal(transform(sample)[1], sample.labels[:, :: 1 - 2 * flip]) for _ in range(20))


@pytest.mark.parametrize(("crop", "quarters"), [(None, [0, 2]), ((12, 14), [0, 2]), ((12, 12), [0, 1, 2, 3])])
def test_turns_are_all_as_often(crop: tuple[int, int] | None, quarters: list[int]) -> None:
    labels = np.arange(96, dtype=np.uint8).reshape(8, 12)
    sample = Sample(np.repeat(labels[..., None], 3, axis=2), labels, "places")
    transform = train_transform(Augment(crop, (1, 1), flip=0, turn=True, photometric=False), MEAN, STD)
    counts = [0] * 4
    for _ in range(400):
        image, mask = transform(sample)
        rows, columns = (mask != 255).any(1), (mask != 255).any(0)
        inside = mask[rows][:, columns].numpy()
        (turns,) = (k for k in range(4) if np.array_equal(inside, np.rot90(labels, k)))
        counts[turns] += 1
        grey = (image[0] * STD[0] + MEAN[0]) * 255
        assert torch.equal(grey.round().long()[mask != 255], mask[mask != 255])
    assert [turns for turns in range(4) if counts[turns]] == quarters
    assert min(counts[turns] for turns in quarters) > 70


def test_what_is_auto_needs_the_data() -> None:
    for undecided in (Augment(), Augment(crop=(9, 9)), upright()):
        with pytest.raises(CrispsegError, match=r"only crispseg.train resolves; give (a size|true or false)"):
            train_transform(undecided, MEAN, STD)


def test_crops_reach_every_place() -> None:
    sample = Sample(np.zeros((8, 8, 3), np.uint8), np.arange(64, dtype=np.uint8).reshape(8, 8), "places")
    transform = train_transform(upright((2, 2), scale=(1, 1)), MEAN, STD)
    seen = {int(value) for _ in range(450) for value in transform(sample)[1].flatten()}
    assert seen == set(range(64))


def distorted(pixel: list[int], params: dict[str, float]) -> list[float]:
    """MMSegmentation's distortion of one RGB pixel, by the standard library's HSV."""
    rgb = [float(value) for value in pixel]
    for name, value in params.items():
        if name == "brightness":
            rgb = [min(max(channel + value, 0), 255) // 1 for channel in rgb]
        elif name == "contrast":
            rgb = [min(channel * value, 255) // 1 for channel in rgb]
        else:
            hue, saturation, brightest = colorsys.rgb_to_hsv(*(channel / 255 for channel in rgb))
            if name == "saturation":
                saturation = min(saturation * value, 1)
            else:
                hue = (hue + value) % 1
            rgb = [round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, brightest)]
    return rgb


def test_photometric_of_mmsegmentation_is_its_formulas() -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 6, 7), np.uint8))
    image[:, 0] = image[:1, 0]  # grey
    image[:, 1, 0], image[:, 1, 1] = 0, 255
    given: list[dict[str, float]] = [
        {"brightness": -31.7},
        {"contrast": 1.4},
        {"saturation": 0.55},
        {"saturation": 1.5},
    ]
    given += [{"hue": -0.09}, {"hue": 0.1}, {}]
    given += [{"brightness": 20.0, "contrast": 0.6, "saturation": 1.3, "hue": 0.05}]
    for params in given:
        result = PhotometricDistortion().transform(tv_tensors.Image(image), params)
        assert result.dtype == torch.uint8
        expected = [[distorted(image[:, y, x].tolist(), params) for x in range(7)] for y in range(6)]
        difference = result.as_subclass(Tensor).float() - torch.tensor(expected).permute(2, 0, 1)
        assert difference.abs().max() <= (0 if not {"hue", "saturation"} & params.keys() else 2), params


def test_photometric_of_mmsegmentation_draws_each_part_for_half_of_the_images() -> None:
    limits = {"brightness": (-32, 32), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5), "hue": (-18 / 180, 18 / 180)}
    drawn: list[dict[str, Any]] = [PhotometricDistortion().make_params([]) for _ in range(600)]
    for name, (least, most) in limits.items():
        values = [params[name] for params in drawn if name in params]
        assert 240 < len(values) < 360
        assert least <= min(values) < least + 0.1 * (most - least) and most >= max(values) > most - 0.1 * (most - least)
    both = [list(params) for params in drawn if {"contrast", "hue"} <= params.keys()]
    assert 0.3 < sum(names[-1] == "contrast" for names in both) / len(both) < 0.7
    assert all(names.index("brightness") == 0 for names in map(list, drawn) if "brightness" in names)


@pytest.mark.parametrize("photometric", [True, "mmseg"])
def test_photometric_is_of_the_image_alone(photometric: Any) -> None:
    sample = blocks(60, 60)
    torch.manual_seed(1)
    image, labels = train_transform(upright((80, 80), (1, 1), 0, photometric=photometric), MEAN, STD)(sample)
    assert torch.equal((image == 0).all(0), labels == 255)
    assert sorted(labels[labels != 255].tolist()) == sorted(sample.labels.flatten().tolist())
    assert not torch.allclose(image, train_transform(upright((80, 80), (1, 1), 0), MEAN, STD)(sample)[0], atol=0.05)


def test_eval_only_normalises() -> None:
    sample = blocks(37, 53)
    image, labels = eval_transform(MEAN, STD)(sample)
    expected = (sample.image / 255 - MEAN) / STD
    np.testing.assert_allclose(image.permute(1, 2, 0), expected, atol=1e-5)
    np.testing.assert_array_equal(labels, sample.labels)
    assert image.dtype == torch.float32 and labels.dtype == torch.int64


def test_a_fourth_channel_is_kept() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    sample = Sample(image, image[..., 3], "x")
    mean, std = (*MEAN, 0.3), (*STD, 0.2)
    four, _ = eval_transform(mean, std, in_chans=4)(sample)
    np.testing.assert_allclose(four.permute(1, 2, 0), (image / 255 - mean) / std, atol=1e-5)
    four, labels = train_transform(upright((9, 9), (1, 1)), mean, std, in_chans=4)(sample)
    assert four.shape == (4, 9, 9)
    fourth = ((four[3] * 0.2 + 0.3) * 255).round().long()
    assert torch.equal(fourth[labels != 255], labels[labels != 255])  # moved as the mask was


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"crop": (0, 5)}, "augment.crop"),
        ({"scale": (2.0, 1.0)}, "augment.scale"),
        ({"scale": (0.0, 1.0)}, "augment.scale"),
        ({"flip": 1.5}, "augment.flip"),
        ({"longer_side": 0}, "augment.longer_side is 0"),
        ({"shorter_side": -1}, "augment.shorter_side is -1"),
        ({"max_share": 0.0}, "augment.max_share is 0.0"),
        ({"max_share": 0.5, "crop": None}, "augment.max_share is 0.5, but nothing is cropped"),
        ({"photometric": "mmsg"}, "augment.photometric"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(CrispsegError, match=reason):
        Augment(**wrong)
