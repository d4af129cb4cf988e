"""The built-in street scenes: exact masks, thin things, overlapping colours, disjoint splits."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crispseg.data.scenes import LABELS, Scenes, render_scene
from crispseg.data.scenes.painter import Brush, Camera, Kind, Light
from crispseg.data.scenes.things import pole
from crispseg.errors import CrispsegError

COUNT = 24
LIGHT = Light(sun=(0.0, 1.0, 0.0), direct=0.5, ambient=0.5, haze=(200.0, 200.0, 200.0), visibility=200.0)


@pytest.fixture(scope="module")
def scenes() -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, 3) and class ids (N, H, W) of the default size."""
    images, labels = zip(*(render_scene((0, 0, i)) for i in range(COUNT)), strict=True)
    return np.stack(images), np.stack(labels)


def runs(mask: np.ndarray) -> np.ndarray:
    """Lengths of the horizontal runs in (H, W) boolean rows."""
    steps = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    return np.nonzero(steps == -1)[1] - np.nonzero(steps == 1)[1]


def test_every_class_occurs_and_three_are_rare(scenes):
    images, labels = scenes
    assert images.dtype == labels.dtype == np.uint8
    assert images.shape == (COUNT, 192, 256, 3) and labels.shape == (COUNT, 192, 256)
    assert len(LABELS) == len(Kind) == 12 and len(set(LABELS.palette)) == 12
    assert set(np.unique(labels)) == set(Kind)
    shares = [(labels == kind).any(axis=(1, 2)).mean() for kind in Kind]
    assert min(shares) > 0.6, "each class is in most scenes"
    shares = np.bincount(labels.ravel(), minlength=len(LABELS)) / labels.size
    assert (shares < 0.01).sum() >= 3
    assert shares[[Kind.POLE, Kind.SIGN, Kind.PEDESTRIAN]].max() < 0.012
    assert shares.min() > 0.002, "but none is out of reach"


def test_poles_are_thin(scenes):
    _, labels = scenes
    poles = labels == Kind.POLE
    lengths = np.concatenate([runs(pole) for pole in poles])
    assert 2 <= np.median(lengths) <= 4
    assert np.isin(lengths, (2, 3, 4)).mean() > 0.85, "the rest are lamp arms and posts partly hidden"
    fat = [cv2.erode(pole.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0).any() for pole in poles]
    assert not any(fat), "nothing of a pole, not even an arm, is 5 pixels thick"
    assert poles.any(axis=(1, 2)).mean() > 0.9


@pytest.mark.parametrize("height", [64, 480, 1080])
@pytest.mark.parametrize("z", [3.0, 8.0, 50.0])
def test_a_plain_post_is_2_to_4_pixels_wide_at_every_size(height, z):
    camera = Camera(focal=float(height), centre=height / 2, horizon=height / 2, eye=1.6, bend=0.0)
    canvas = np.zeros((height, height, 4), np.uint8)
    pole(x=0.0, z=z, height=5.0, color=(90.0, 90.0, 90.0)).draw(Brush(canvas, camera, LIGHT, np.random.default_rng(0)))
    lengths = runs(canvas[..., 3] == Kind.POLE)
    assert len(set(lengths)) == 1 and 2 <= lengths[0] <= 4
    assert len(lengths) == pytest.approx(min(5.0 / z, 0.5 + 1.6 / z, 1.0) * height, abs=2)


def test_a_stroke_sets_color_and_class_of_the_same_pixels():
    camera = Camera(focal=100.0, centre=50.0, horizon=50.0, eye=1.5, bend=0.0)
    canvas = np.zeros((100, 100, 4), np.uint8)
    brush = Brush(canvas, camera, LIGHT, np.random.default_rng(0))
    brush.face(np.array([(-1.0, 0.2, 5.0), (1.3, 0.0, 6.0), (0.4, 2.6, 5.0)]), Kind.CAR, (90.0, 120.0, 150.0))
    painted = canvas[..., 3] == Kind.CAR
    assert 500 < painted.sum() < 3000
    assert len(np.unique(canvas[painted], axis=0)) == 1, "no anti-aliasing"
    assert not canvas[~painted].any()


def test_color_alone_does_not_tell_the_class(scenes):
    images, labels = scenes
    half = COUNT // 2
    means = np.stack([images[:half][labels[:half] == kind].mean(axis=0) for kind in Kind])  # (classes, 3)
    pixels = images[half:, ::3, ::3, None, :].astype(np.float32)
    guess = ((pixels - means) ** 2).sum(axis=-1).argmin(axis=-1)
    truth = labels[half:, ::3, ::3]
    iou = np.array([((truth == k) & (guess == k)).sum() / ((truth == k) | (guess == k)).sum() for k in Kind])
    assert 0.05 < iou.mean() < 0.3
    assert iou[Kind.POLE] < 0.1


def test_context_is_informative(scenes):
    """What a network can learn: sky is above road, cars stand on the road, lane markings lie in it."""
    _, labels = scenes
    rows = np.arange(192)[:, None]
    mean_row = {
        kind: (rows * (labels == kind).mean(axis=0)).sum() / (labels == kind).mean(axis=0).sum() for kind in Kind
    }
    assert mean_row[Kind.SKY] < mean_row[Kind.BUILDING] < mean_row[Kind.CAR] < mean_row[Kind.ROAD]
    below = labels[:, 1:][labels[:, :-1] == Kind.MARKING]
    assert np.isin(below, (Kind.ROAD, Kind.MARKING)).mean() > 0.9
    assert (labels[:, -1] != Kind.SKY).all() and (labels[:, 0] != Kind.ROAD).all()


@given(seed=st.integers(0, 2**40), height=st.integers(64, 150), width=st.integers(64, 220))
@settings(max_examples=6, deadline=None)
def test_any_size_and_seed_draws_the_same_scene_twice(seed, height, width):
    image, labels = render_scene(seed, (height, width))
    assert image.shape == (height, width, 3) and labels.shape == (height, width)
    assert labels.max() < len(LABELS)
    again = render_scene(seed, (height, width))
    assert np.array_equal(image, again[0]) and np.array_equal(labels, again[1])


def test_threads_do_not_matter():
    before, drawn = cv2.getNumThreads(), []
    for threads in (1, 4):
        cv2.setNumThreads(threads)
        drawn.append(render_scene(5, (480, 640)))
    cv2.setNumThreads(before)
    assert np.array_equal(drawn[0][0], drawn[1][0]) and np.array_equal(drawn[0][1], drawn[1][1])


def test_seeds_and_sizes_differ(scenes):
    images, labels = scenes
    assert len({image.tobytes() for image in images}) == len({mask.tobytes() for mask in labels}) == COUNT
    small, large = render_scene(3, (64, 96))[1], render_scene(3, (128, 192))[1]
    assert (small == large[::2, ::2]).mean() > 0.5, "the same street, larger"


def test_splits_are_disjoint_and_of_the_asked_size():
    source = Scenes(train=5, val=4, test=3, height=64, width=80)
    assert source.splits() == ("train", "val", "test")
    splits = [source.dataset(split) for split in source.splits()]
    assert [len(split) for split in splits] == [5, 4, 3]
    samples = [split[i] for split in splits for i in range(len(split))]
    assert len({sample.image.tobytes() for sample in samples}) == len({sample.name for sample in samples}) == 12
    assert samples[0].name == "train_0000" and samples[-1].name == "test_0002"
    assert all(sample.image.shape == (64, 80, 3) for sample in samples)
    assert all(split.labels is source.label_set() for split in splits)


def test_the_dataset_draws_its_own_seed_once_and_keeps_it():
    source = Scenes(train=3, height=64, width=64)
    data = source.dataset("train")
    assert data[1] is data[1] is data[-2]
    assert np.array_equal(data[1].image, source.dataset("train")[1].image)
    assert np.array_equal(data[1].image, render_scene((0, 0, 1), (64, 64))[0])
    assert not np.array_equal(data[1].image, Scenes(height=64, width=64, seed=1).dataset("train")[1].image)
    more = Scenes(train=5, height=64, width=64).dataset("train")  # leave the others alone
    assert np.array_equal(data[1].labels, more[1].labels)
    assert len(list(data)) == 3  # iteration ends
    with pytest.raises(IndexError):
        data[3]


@pytest.mark.parametrize(
    ("options", "split", "message"),
    [
        ({}, "trian", "no split 'trian'; did you mean 'train'?"),
        ({}, "zzz", "known: train, val, test"),
        ({"val": -1}, "train", "data.val is -1"),
        ({"height": 63}, "train", "data.height is 63.*at least 64"),
        ({"seed": -3}, "val", "data.seed is -3.*at least 0"),
    ],
)
def test_bad_input(options, split, message):
    with pytest.raises(CrispsegError, match=message) as error:
        Scenes(**options).dataset(split)
    assert "\n" not in str(error.value)
