"""Training on large images: only a window is read, and an epoch sees several of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Refuses
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from training_runs import quietly, rows, state, tiny

from crispseg.data import Augment, Folder, train_transform
from crispseg.data.dataset import FileDataset, Sample
from crispseg.data.loading import Augmented, large_pair, times_an_epoch, train_loader
from crispseg.inference import tiling as memory
from crispseg.io.tiff import mask_window
from crispseg.training import Run, train

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")

SIDE = 400
BLOCKS = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}


def write(path: Path, image: np.ndarray, **options: object) -> None:
    """A TIFF of `(H, W)` or `(H, W, 3)`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    photometric = {"photometric": "rgb", "interleave": "pixel"} if image.ndim == 3 else {}
    size = {"height": image.shape[0], "width": image.shape[1], "count": len(bands), "dtype": image.dtype}
    with rasterio.open(path, "w", driver="GTiff", **{**photometric, **options, **size}) as file:
        file.write(bands)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, (SIDE // 20, SIDE // 20)).astype(np.uint8).repeat(20, 0).repeat(20, 1)
    return (labels[..., None] * 80 + random.integers(0, 60, (SIDE, SIDE, 3))).astype(np.uint8), labels


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """TIFFs in blocks, three of whose masks are too, one with a palette, and one a PNG."""
    folder = tmp_path_factory.mktemp("large")
    for index in range(4):
        image, labels = scene(index)
        write(folder / f"images/{index}.tif", image, **BLOCKS)
        if index == 3:
            (folder / "masks").mkdir(exist_ok=True)
            Image.fromarray(labels).save(folder / "masks/3.png")
            continue
        write(folder / f"masks/{index}.tif", labels, **BLOCKS, **({"photometric": "palette"} if index == 1 else {}))
        if index == 1:
            with rasterio.open(folder / "masks/1.tif", "r+") as file:
                file.write_colormap(1, {0: (0, 0, 0), 1: (9, 9, 9), 2: (200, 0, 0)})
    return Folder(folder / "images", folder / "masks", num_classes=3)


@pytest.fixture
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of the size of these count as large."""
    monkeypatch.setattr("crispseg.data.loading.LARGE", SIDE * SIDE)


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the index of each pair that is decoded whole."""
    seen: list[int] = []
    whole = FileDataset.__getitem__

    def counted(self: FileDataset, index: int) -> Sample:
        seen.append(index)
        return whole(self, index)

    monkeypatch.setattr(FileDataset, "__getitem__", counted)
    return seen


# Windows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop", [(64, 96), (500, 300), None])
def test_a_window_is_what_is_cut_from_the_whole(
    crop: tuple[int, int] | None, data: Folder, _large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, whole = data.dataset("train"), decoded(monkeypatch)
    transform = train_transform(Augment(crop, (0.5, 2.0), turn=False, photometric=True), (0.5,) * 3, (0.5,) * 3)
    keys = [(epoch, index) for epoch in range(2) for index in range(len(dataset))]
    windows = Augmented(dataset, transform, 0, [1] * len(dataset))
    found = [windows[key] for key in keys]
    assert whole == []
    monkeypatch.setattr("crispseg.data.loading.large_pair", lambda dataset, index: None)
    expected = Augmented(dataset, transform, 0, [1] * len(dataset))
    for key, (image, labels) in zip(keys, found, strict=True):
        assert torch.equal(image, expected[key][0]) and torch.equal(labels, expected[key][1])
    assert len(whole) == 2 * len(keys)


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_window_of_an_instance_mask_knows_the_objects_around_it(suffix: str, tmp_path: Path, _large: None) -> None:
    image, labels = scene(0)
    ids = (np.arange(labels.size).reshape(labels.shape) // 7000 * 9 + labels).astype(np.uint16)
    for name in ("a", "b"):
        write(tmp_path / f"images/{name}.tif", image, **BLOCKS)
        write(tmp_path / f"ids/{name}.tif", ids, **BLOCKS)
        if suffix == "png":
            (tmp_path / f"ids/{name}.tif").unlink()
            Image.fromarray(ids).save(tmp_path / f"ids/{name}.png")
    dataset = Folder(tmp_path / "images", instances=tmp_path / "ids").dataset("train")
    pair = large_pair(dataset, 0)
    assert pair is not None and {0, 2} < {*np.unique(dataset[0].labels)}
    for window in ((0, 0, 61, 60), (100, 139, 1, 80), (339, 380, 61, 20), (0, 0, SIDE, SIDE)):
        seen, cut = pair.window(*window), dataset[0].window(*window)
        assert np.array_equal(seen.labels, cut.labels) and np.array_equal(seen.image, cut.image)


def test_what_is_decoded_whole(data: Folder, tmp_path: Path, _large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = FileDataset([data.pairs(split)[0] for split in ("train", "val")], data.label_set(), lambda mask: mask)
    assert large_pair(dataset, 0)
    image, labels = scene(0)
    kinds = {
        "strip.tif": {"blockysize": SIDE, "compress": "deflate"},
        "small.tif": BLOCKS,
        "bands.tif": {**BLOCKS, "photometric": "minisblack"},
    }
    for name, options in kinds.items():
        write(tmp_path / name, image[:100] if name == "small.tif" else image, **options)
    Image.fromarray(image).save(tmp_path / "a.png")
    pairs = [dataset.pairs[0]._replace(image=tmp_path / name) for name in (*kinds, "a.png", "missing.tif")]
    others = FileDataset(pairs, data.label_set(), dataset.lookup)
    assert [large_pair(others, index) for index in range(len(pairs))] == [None] * 5
    write(tmp_path / "mask.tif", labels, **kinds["strip.tif"])
    Image.fromarray(labels).save(tmp_path / "mask.png")
    assert mask_window(tmp_path / "mask.tif", 0, 9, 0, 9) is mask_window(tmp_path / "mask.png", 0, 9, 0, 9) is None
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    assert large_pair(dataset, 0) is None


def test_a_value_without_a_class_is_named(data: Folder, _large: None, refuses: Refuses) -> None:
    two = Folder(data.images, data.masks, num_classes=2).dataset("train")
    large = large_pair(two, 0)
    assert large is not None
    with refuses(str(two.pairs[0].mask), "value 2 is out of range 0 to 1"):
        large.window(0, 0, SIDE, SIDE)


# How often -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 20000), st.integers(1, 20000)), min_size=1, max_size=30), st.integers(1, 64))
def test_an_epoch_takes_large_images_more_often(sizes: list[tuple[int, int]], step: int) -> None:
    times = times_an_epoch(Augment(crop=(512, 512)), sizes, step)
    assert sum(times) >= 2 * step and min(times) >= 1
    by_area = sorted(zip((height * width for height, width in sizes), times, strict=True))
    assert [number for _, number in by_area] == sorted(times)  # larger ones at least as often
    few = max(1, -(-2 * step // len(sizes)))
    assert max(times) <= 64 * few
    if max(area for area, _ in by_area) < 32 * 512 * 512 and len(sizes) >= 2 * step:
        assert set(times) == {1}
    assert times_an_epoch(Augment(repeat=3), sizes, step) == [3] * len(sizes)
    assert set(times_an_epoch(Augment(crop=None), sizes * (2 * step), step)) == {1}


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


# Runs ----------------------------------------------------------------------------------------------------------------


def trained(out: Path, data: Folder, **options: object) -> tuple[Run, str]:
    """Two epochs, in crops of which each image holds 39: two windows a sample, doubled for two steps."""
    printed = io.StringIO()
    config = tiny(out, data=data, augment=Augment((64, 64)), deterministic=True)
    return train(config, console=Console(file=printed, width=200), **options), printed.getvalue()  # type: ignore[arg-type]


def test_a_run_on_large_images(data: Folder, tmp_path: Path, _large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    run, printed = trained(tmp_path / "run", data)
    assert "12 in all" in printed
    assert [row["step"] for row in rows(run.folder)] == ["3", "6"]
    monkeypatch.setattr("crispseg.data.loading.large_pair", lambda dataset, index: None)
    again, _ = trained(tmp_path / "whole", data)
    first, second = state(run.model), state(again.model)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_val_images_that_memory_would_not_do_for(data: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LARGE", 1000)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1)
    config = tiny(tmp_path / "run", data=data, augment=Augment((64, 64)), epochs=1)
    with pytest.warns(UserWarning, match=f"a val image of {SIDE}×{SIDE} pixels needs about .* tiles of 128 pixels"):
        tiled = quietly(config)
    monkeypatch.undo()
    whole = quietly(tiny(tmp_path / "whole", data=data, augment=Augment((64, 64)), epochs=1))
    assert tiled.miou == pytest.approx(whole.miou, abs=5) and tiled.miou > 0
