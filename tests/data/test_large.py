"""Training on large images: an epoch takes several crops of each."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Refuses
from dataset_trees import save
from hypothesis import given
from hypothesis import strategies as st
from training_runs import quietly, tiny

from crispseg.data import Augment, Folder, train_transform
from crispseg.data.loading import times_an_epoch, train_loader
from crispseg.inference import tiling as memory

SIDE = 400


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, (SIDE // 20, SIDE // 20)).astype(np.uint8).repeat(20, 0).repeat(20, 1)
    return (labels[..., None] * 80 + random.integers(0, 60, (SIDE, SIDE, 3))).astype(np.uint8), labels


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = tmp_path_factory.mktemp("large")
    for index in range(4):
        image, labels = scene(index)
        save(folder / f"images/{index}.tif", image)
        save(folder / f"masks/{index}.png", labels)
    return Folder(folder / "images", folder / "masks", num_classes=3)


@given(st.lists(st.tuples(st.integers(1, 20000), st.integers(1, 20000)), min_size=1, max_size=30), st.integers(1, 64))
def test_an_epoch_takes_large_images_more_often(sizes: list[tuple[int, int]], step: int) -> None:
    ones = [1] * len(sizes)
    times = times_an_epoch(Augment(crop=(512, 512)), sizes, step, ones)
    assert sum(times) >= 2 * step and min(times) >= 1
    by_area = sorted(zip((height * width for height, width in sizes), times, strict=True))
    assert [number for _, number in by_area] == sorted(times)  # larger ones at least as often
    few = max(1, -(-2 * step // len(sizes)))
    assert max(times) <= 64 * few
    if max(area for area, _ in by_area) < 32 * 512 * 512 and len(sizes) >= 2 * step:
        assert set(times) == {1}
    assert times_an_epoch(Augment(repeat=3), sizes, step, ones) == [3] * len(sizes)
    labelled = times_an_epoch(Augment(crop=(512, 512)), [*sizes, (900, 900)], step, [*range(1, len(sizes) + 1), 0])
    assert labelled == [*times, 0]
    assert set(times_an_epoch(Augment(crop=None), sizes * (2 * step), step, ones * (2 * step))) == {1}


def test_repeats_are_other_crops(data: Folder, refuses: Refuses) -> None:
    dataset = data.dataset("train")
    transform = train_transform(Augment((64, 64), turn=False, photometric=False), (0.5,) * 3, (0.5,) * 3)
    loader = train_loader(dataset, transform, 3, 0, seed=0, times=[2, 3, 1])
    assert len(loader) == 2 and sorted(index for _, index in loader.sampler) == list(range(6))
    assert loader.dataset.images == [0, 0, 1, 1, 1, 2]  # type: ignore[attr-defined]
    crops = [loader.dataset[0, index][0] for index in (0, 1)]
    assert not torch.equal(*crops)
    with refuses("augment.repeat is 0"):
        Augment(repeat=0)


@pytest.mark.usefixtures("without_pictures")
def test_val_images_that_memory_would_not_do_for(data: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LARGE", 1000)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1)
    config = tiny(tmp_path / "run", data=data, augment=Augment((64, 64)), epochs=1)
    with pytest.warns(UserWarning, match="million pixels needs about .* tiles of 128 pixels"):
        tiled = quietly(config)
    monkeypatch.undo()
    whole = quietly(tiny(tmp_path / "whole", data=data, augment=Augment((64, 64)), epochs=1))
    assert tiled.miou == pytest.approx(whole.miou, abs=5) and tiled.miou > 0
