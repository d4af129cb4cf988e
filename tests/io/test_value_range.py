"""Images of 12 and 16 bits: the range of their values is measured or declared, and is part of the model."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import tifffile
from conftest import Refuses
from PIL import Image
from rich.console import Console
from training_runs import MODEL, tiny

from crispseg import SegmentationModel, Segmenter
from crispseg.cli.main import main
from crispseg.data import Folder
from crispseg.data.dataset import FileDataset
from crispseg.export.plan import describe
from crispseg.inference import tiled
from crispseg.io import value_range
from crispseg.io.images import read_image, read_mask, write_image
from crispseg.io.opening import from_array
from crispseg.io.value_range import percentile_range
from crispseg.training import Run, train
from crispseg.training.distillation import open_teacher
from crispseg.training.settings import training_config

pytestmark = pytest.mark.usefixtures("without_pictures")

LOW, HIGH = 103, 4021


@pytest.fixture(autouse=True)
def _untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has been warned of yet."""
    monkeypatch.setattr(value_range, "_warned", Event())


def sensor(seed: int, *channels: int) -> np.ndarray:
    """12 bits in uint16: dark left, bright right, and one dead and one glaring pixel."""
    image = np.random.default_rng(seed).integers(LOW, 900, (64, 96, *channels)).astype(np.uint16)
    image[:, 48:] += HIGH - 900
    image[0, 0], image[63, 95] = 0, 65535
    return image


def write_data(folder: Path, image: Callable[[int], np.ndarray] = sensor) -> Folder:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    mask = np.zeros((64, 96), np.uint8)
    mask[:, 48:] = 1
    for index in range(6):
        write_image(folder / f"images/{index}.png", image(index))
        Image.fromarray(mask).save(folder / f"masks/{index}.png")
    return Folder(folder / "images", folder / "masks")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return write_data(tmp_path_factory.mktemp("sensor"))


@pytest.fixture(scope="module")
def run(data: Folder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, str]]:
    """A run on these data, and what it printed."""
    printed = io.StringIO()
    config = tiny(tmp_path_factory.mktemp("runs") / "run", data=data, epochs=1)
    yield train(config, console=Console(file=printed, width=200)), printed.getvalue()


def by_hand(values: np.ndarray, low: float = LOW, high: float = HIGH) -> np.ndarray:
    scaled = np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return np.repeat(scaled[..., None], 3, 2) if scaled.ndim == 2 else scaled


def test_training_measures_the_range_and_says_so(run: tuple[Run, str], data: Folder) -> None:
    trained, printed = run
    low, high = trained.model.info.value_range or (0, 0)
    assert LOW <= low <= LOW + 5 and HIGH - 5 <= high <= HIGH
    assert json.loads((trained.folder / "model/config.json").read_text())["value_range"] == [low, high]
    assert data.dataset("train").known_range() == (low, high)
    assert f"images are 16-bit: values from {low:g} to {high:g} are scaled to 0 to 1" in printed
    assert percentile_range([np.full((4, 4), 7, np.uint16)]) == (7, 8)
    assert json.loads(describe(trained.model.info))["value_range"] == [low, high]
    assert SegmentationModel.from_pretrained(trained.folder).info.value_range == (low, high)


def test_every_way_in_scales_alike(run: tuple[Run, str], data: Folder, tmp_path: Path) -> None:
    segmenter = Segmenter(run[0].folder, "cpu")
    low, high = segmenter.info.value_range or (0, 0)
    values = sensor(0)
    pair = next(pair for split in ("train", "val") for pair in data.pairs(split) if pair.name == "0")
    expected = segmenter(by_hand(values, low, high))
    assert len(np.unique(expected.image)) > 100  # not the sixteen levels that are left of 12 bits in 16
    for source in (pair.image, np.stack([values] * 3, 2), Image.fromarray(values)):
        result = segmenter(source)
        assert np.array_equal(result.image, expected.image) and np.array_equal(result.labels, expected.labels)
    assert main(["predict", str(run[0].folder), str(pair.image), f"--out={tmp_path}"]) == 0
    with Image.open(tmp_path / "0.png") as written:
        assert np.array_equal(np.array(written), expected.labels)
    seen = data.dataset("train").with_channels(3, segmenter.info.value_range)
    assert isinstance(seen, FileDataset) and all((seen[index].image.max() == 255) for index in range(len(seen)))


def test_a_declared_range_counts(data: Folder, refuses: Refuses) -> None:
    declared = replace(data, value_range=(0, 4095)).dataset("train")
    assert declared.known_range() == (0, 4095)
    assert np.array_equal(declared[0].image, read_image(declared.pairs[0].image, value_range=(0, 4095)))
    values = sensor(0, 3)
    assert np.array_equal(
        Segmenter(MODEL.build(2, auxiliary=False), "cpu", value_range=(0, 4095))(values).image, by_hand(values, 0, 4095)
    )
    for wrong in ((5, 5), (-1, 4), (0, 70000)):
        with refuses("data.value_range is", "such as [0, 4095]"):
            replace(data, value_range=wrong)
        with refuses("value_range is"):
            Segmenter(MODEL.build(2, auxiliary=False), "cpu", value_range=wrong)


def in_bits(pixels: np.ndarray, bits: int) -> np.ndarray:
    """The same picture from a camera of so many bits."""
    return np.rint(pixels.astype(float) * (2**bits - 1) / 255).astype(np.uint16)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_a_model_of_8_bits_takes_the_bits_that_an_image_needs(bits: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    deep = in_bits(pixels, bits)
    deep[5, 5] = 65535  # a glaring pixel does not make it an image of 16 bits
    seen = from_array(deep, "an array").pixels()
    assert (seen == pixels).all(2).sum() == 64 * 96 - 1


def test_images_of_a_folder_are_scaled_alike_and_one_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MODEL.build(2, auxiliary=False).save_pretrained(tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96)).astype(np.uint8)
    pictures = {"bright": pixels, "dim": pixels // 20}
    for folder, bits in (("8", 8), ("12", 12)):
        (tmp_path / folder).mkdir()
        for name, picture in pictures.items():
            write_image(tmp_path / folder / f"{name}.png", picture if bits == 8 else in_bits(picture, bits))
        argv = ["predict", str(tmp_path / "model"), str(tmp_path / folder), "--shares"]
        assert main([*argv, f"--out={tmp_path}/out_{folder}"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"crispseg: {tmp_path}/12 has 16-bit values") and "0 to 4095" in line
    for name in pictures:
        assert np.array_equal(read_mask(tmp_path / f"out_8/{name}.png"), read_mask(tmp_path / f"out_12/{name}.png"))
    pages = []
    for bits in ("8", "12"):
        choice = ["label", "next", str(tmp_path / "model"), str(tmp_path / bits), f"--out={tmp_path}/next_{bits}"]
        assert main(choice) == 0
        pages.append((tmp_path / f"next_{bits}/index.html").read_text())
    assert pages[0] == pages[1]  # with their pictures
    capsys.readouterr()
    value_range._warned.clear()
    assert main([*argv, f"--out={tmp_path}/given", "--value_range=[103,4021]"]) == 0
    assert capsys.readouterr().err == ""


def test_tiles_of_a_map_are_scaled_alike(tmp_path: Path) -> None:
    MODEL.build(2, auxiliary=False).save_pretrained(tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (500, 300)).astype(np.uint8)
    pixels[:300] //= 20  # the first tiles are dim
    for bits, values in {8: pixels, 12: in_bits(pixels, 12)}.items():
        tifffile.imwrite(tmp_path / f"{bits}.tif", values, tile=(16, 16))
        argv = ["predict", str(tmp_path / "model"), str(tmp_path / f"{bits}.tif"), "--tiles=128"]
        assert main([*argv, f"--out={tmp_path}/out"]) == 0
    assert np.array_equal(read_mask(tmp_path / "out/8.tif"), read_mask(tmp_path / "out/12.tif"))


def dark(seed: int, dtype: str = "uint8") -> np.ndarray:
    """A seventh of the range of all images, at another place in each; rows have the same values in another order."""
    random, scale = np.random.default_rng(seed), np.iinfo(dtype).max // 255
    row = random.integers(0, 35, 96) + 30 * (seed % 7)
    return np.stack([random.permutation(row) for _ in range(64)]).astype(dtype) * np.array(scale, dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_images_are_read_by_their_own_ranges(dtype: str, tmp_path: Path) -> None:
    data = write_data(tmp_path, lambda seed: dark(seed, dtype))
    split = data.dataset("train")
    assert replace(data, value_range="image").dataset("val").known_range() == "image"
    for index, pair in enumerate(split.pairs):
        values = dark(int(pair.name), dtype)
        low, high = np.percentile(values, (1, 99.8))
        assert np.array_equal(
            split.with_channels(3, "image")[index].image, by_hand(values, np.floor(low), np.ceil(high))
        )


def test_an_image_of_one_value_is_read() -> None:
    values = np.full((40, 50), 255, np.uint8)
    assert (from_array(values, "an array").pixels(3, "image") == 0).all()


def test_a_run_reads_each_image_by_its_range(tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.StringIO()
    data = replace(write_data(tmp_path, dark), value_range="image")
    config = tiny(tmp_path / "run", data=data, epochs=1)
    run = train(config, console=Console(file=printed, width=200))
    assert run.model.info.value_range == "image" and "value_range image" in printed.getvalue()
    assert json.loads(describe(run.model.info))["value_range"] == "image"
    values = np.tile(dark(0), (5, 4))
    values[200:280, 150:250] += 90  # below the first band of rows
    low, high = np.percentile(values[::2, ::2], (1, 99.8))
    scaled = by_hand(values, np.floor(low), np.ceil(high))
    assert np.array_equal(Segmenter(run.folder, "cpu")(values).image, scaled)
    for name, image in {"own": values, "scaled": scaled}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", image, tile=(16, 16))
    common = ["predict", str(run.folder), "--tiles=128"]
    limits: list[tuple[float, float]] = []
    monkeypatch.setattr(tiled, "percentile_range", lambda *args: limits.append(percentile_range(*args)) or limits[-1])
    assert main([*common, str(tmp_path / "own.tif"), f"--out={tmp_path}/out"]) == 0
    assert limits == [(np.floor(low), np.ceil(high))]
    assert main([*common, str(tmp_path / "scaled.tif"), "--value_range=[0,255]", f"--out={tmp_path}/out"]) == 0
    assert np.array_equal(read_mask(tmp_path / "out/own.tif"), read_mask(tmp_path / "out/scaled.tif"))
    tree = {"data": {"root": str(tmp_path)}, "init_from": str(run.folder)}
    for declared, inherited in (({}, "image"), ({"data.value_range": "auto"}, "auto")):
        assert training_config(tree, declared).data.value_range == inherited
    for own, known, remedy in (("image", None, "data.value_range auto"), (None, "image", "data.value_range image")):
        teacher = SegmentationModel.from_pretrained(run.folder)
        teacher.info = replace(teacher.info, value_range=known)
        teacher.save_pretrained(tmp_path / f"teacher_{known}")
        with refuses("teacher", f"takes images of the value range {known}", remedy):
            open_teacher(str(tmp_path / f"teacher_{known}"), replace(teacher.info, value_range=own))
