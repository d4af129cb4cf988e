"""A flipped bit is found: in masks and images, saved models, checkpoints, tables and files of settings."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from training_runs import equal

from crispseg import CrispsegError, from_pretrained
from crispseg.backbones import read_state_dict
from crispseg.data import check_split
from crispseg.data.dataset import FileDataset
from crispseg.folders.lookup import IdLookup
from crispseg.folders.survey import Pair
from crispseg.io.images import read_mask, write_image
from crispseg.labels import LabelSet
from crispseg.training import Run
from crispseg.training.checkpoints import read_checkpoint


def flips(path: Path, count: int, start: int = 0) -> Iterator[None]:
    """Flip one bit of a file after the other, anywhere from byte `start` on; at the end the file is as before."""
    content = path.read_bytes()
    for position in np.random.default_rng(0).integers(8 * start, 8 * len(content), count):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        yield
    path.write_bytes(content)


def unseen(
    path: Path, read: Callable[[Path], Any], same: Callable[[Any, Any], bool], count: int, start: int = 0
) -> int:
    """With how many of so many flips something else than before is read, and nothing said."""
    before, wrong = read(path), 0
    for _ in flips(path, count, start):
        try:
            wrong += not same(read(path), before)
        except CrispsegError as error:
            assert "\n" not in str(error)
    return wrong


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    random = np.random.default_rng(0)
    write_image(tmp_path / "mask.png", random.integers(0, 3, (64, 96), np.uint8))
    write_image(tmp_path / "image.png", random.integers(0, 256, (64, 96, 3), np.uint8))
    return Pair("x", tmp_path / "image.png", tmp_path / "mask.png")


def test_no_flipped_bit_of_a_mask_makes_other_labels(pair: Pair) -> None:
    assert not unseen(pair.mask, read_mask, np.array_equal, 300)
    pair.mask.write_bytes(pair.mask.read_bytes()[:-12])
    with pytest.raises(CrispsegError, match="is broken"):
        read_mask(pair.mask)


def test_images_are_compared_with_their_checksums_when_data_are_checked(pair: Pair, refuses: Any) -> None:
    dataset = FileDataset([pair], LabelSet.numbered(3), IdLookup(3))
    check_split(dataset, "val")
    for _ in flips(pair.image, 20, start=60):
        with refuses(str(pair.image), "is broken"):
            check_split(dataset, "val")


@pytest.fixture
def copied(tiny_run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run.folder, tmp_path / "run"))


@pytest.mark.parametrize("name", ["model/model.safetensors", "checkpoints/last.ckpt", "checkpoints/best.ckpt"])
def test_no_flipped_bit_makes_other_weights(name: str, copied: Path) -> None:
    read: Any = read_state_dict if name.endswith(".safetensors") else lambda path: read_checkpoint(path)[0]
    assert not unseen(copied / name, read, equal, 60)


@pytest.mark.parametrize(
    ("name", "read"), [("weights.pth", read_state_dict), ("last.ckpt", lambda path: read_checkpoint(path)[0])]
)
def test_records_of_pytorch_files(name: str, read: Any, tmp_path: Path, refuses: Any) -> None:
    """PyTorch compares no checksums, and leaves the memory of a tensor whose record is called a folder as it was."""
    path = tmp_path / name
    weights = {"model.a": torch.arange(1000.0), "model.b": torch.ones(3)}
    torch.save({"state_dict": weights, "global_step": 7}, path)
    content, entry = path.read_bytes(), path.read_bytes().index(b"PK\x01\x02")
    for at, bits in ((content.index(weights["model.a"].numpy().tobytes()) + 70, 1), (entry + 38, 0x10)):
        damaged = bytearray(content)
        damaged[at] ^= bits
        path.write_bytes(damaged)
        with refuses(str(path), "has changed since it was written"):
            read(path)


def test_a_damaged_tensor_is_named(copied: Path, refuses: Any) -> None:
    path = copied / "model/model.safetensors"
    for _ in flips(path, 1, start=path.stat().st_size - 100):
        with refuses(str(path), " does not match its checksum", "restore the file"):
            from_pretrained(copied)


def test_models_from_before_checksums_are_read(copied: Path) -> None:
    path = copied / "model/model.safetensors"
    weights = load_file(path)
    save_file(weights, path, {"format": "pt"})
    assert equal(from_pretrained(copied).state_dict(), weights)
