"""Batches that can be repeated: random numbers, order and augmentation follow from the seed; kept images."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from drawn import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from training_runs import DRAWN

from crispseg.data import Augment, eval_transform, train_transform
from crispseg.data.dataset import FileDataset
from crispseg.data.loading import Shuffled, eval_loader, train_loader

AUGMENT = Augment(crop=(64, 96), turn=False, photometric=True, repeat=1)


def batches(workers: int, epochs: range, custom: Any = None, **options: Any) -> list[torch.Tensor]:
    transform = train_transform(AUGMENT, (0.5,) * 3, (0.5,) * 3, custom=custom)
    loader = train_loader(DRAWN.dataset("train"), transform, 3, workers, seed=7, **options)
    images = []
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        torch.rand(epoch + workers)  # what else draws numbers does not matter
        images += [torch.cat([image.flatten(1), labels.flatten(1)], 1) for image, labels in loader]
    return images


def test_augmentation_is_the_same_for_any_number_of_workers() -> None:
    expected = batches(0, range(2))
    assert len(expected) == 4
    assert not torch.equal(expected[0], expected[2]), "every epoch is augmented anew"
    assert all(map(torch.equal, batches(2, range(2)), expected))
    assert all(map(torch.equal, batches(0, range(1, 2)), expected[2:])), "an epoch does not depend on the one before"


class Noise:
    """A transform that keeps its generator, as those of albumentations do."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def set_random_seed(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": image ^ np.uint8(self.generator.integers(256)), "mask": mask}


def compose() -> Any:
    albumentations = pytest.importorskip("albumentations")
    return albumentations.Compose([albumentations.RandomBrightnessContrast(p=1)])


def drawn_by(draw: Callable[[], int]) -> Callable[..., dict[str, np.ndarray]]:
    return lambda image, mask: {"image": image ^ np.uint8(draw()), "mask": mask}


CUSTOM: dict[str, Callable[[], Any]] = {
    "random": lambda: drawn_by(lambda: random.randrange(256)),
    "numpy": lambda: drawn_by(lambda: np.random.randint(256)),  # noqa: NPY002
    "torch": lambda: drawn_by(lambda: int(torch.randint(256, ()))),
    "a generator of its own": Noise,
    "albumentations": compose,
}


@pytest.mark.parametrize("kind", CUSTOM)
def test_custom_transforms_draw_the_same_for_any_number_of_workers(kind: str) -> None:
    random_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    expected = batches(0, range(2), CUSTOM[kind]())
    random.setstate(random_state)
    np.random.set_state(numpy_state)  # noqa: NPY002
    assert all(map(torch.equal, batches(2, range(2), CUSTOM[kind]()), expected))
    assert len({row.numpy().tobytes() for batch in expected for row in batch}) == 12  # each sample draws anew


def test_batches_can_start_within_an_epoch() -> None:
    assert all(map(torch.equal, batches(0, range(1, 3), start=(1, 1)), batches(0, range(1, 3))[1:]))


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=50)
def test_processes_share_an_epoch(samples: int, devices: int, epoch: int) -> None:
    shares = []
    with pytest.MonkeyPatch.context() as patch:
        for rank in range(devices):
            patch.setattr("crispseg.data.loading._rank", lambda rank=rank: rank)
            order = Shuffled(samples, devices, seed=5)
            order.set_epoch(epoch)
            shares.append(list(order))
            assert len(shares[-1]) == len(order)
    indices = [index for share in shares for _, index in share]
    assert {at for share in shares for at, _ in share} == {epoch}
    assert len({len(share) for share in shares}) == 1
    if samples >= devices:
        assert len(set(indices)) == len(indices) > samples - devices
    assert set(indices) <= set(range(samples))


def test_each_sample_counts_once_with_several_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    data = drawn(train=1, val=5, test=1, height=64, width=96).dataset("val")
    transform = eval_transform((0.5,) * 3, (0.5,) * 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr("crispseg.data.loading._rank", lambda rank=rank: rank)
        shares.append(list(eval_loader(data, transform, 0, 3)))
        assert len(shares[-1]) == 2
    batches = [batch for together in zip(*shares, strict=True) for batch in together]
    assert [bool((labels != 255).any()) for _, labels in batches] == [True] * 5 + [False]
    for index in range(5):
        assert torch.equal(batches[index][0][0], transform(data[index])[0])


def test_kept_images_are_read_once_and_batches_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    read, original = list[int](), FileDataset.__getitem__
    monkeypatch.setattr(FileDataset, "__getitem__", lambda self, index: read.append(index) or original(self, index))
    kept = batches(0, range(2), keep=True)
    assert len({*read}) == len(read) <= 8
    read.clear()
    assert all(map(torch.equal, kept, batches(0, range(2)))) and len(read) == 12
