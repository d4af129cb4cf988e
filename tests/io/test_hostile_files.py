"""Files that would never end: pipes instead of files."""

import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crispseg.backbones.weights import MAX_HEADER, read_state_dict
from crispseg.io.files import digest
from crispseg.io.images import image_size, read_image, read_mask
from crispseg.io.tiff import open_dataset
from crispseg.training.checkpoints import read_checkpoint


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
@pytest.mark.parametrize(
    "read", [read_image, read_mask, image_size, lambda path: open_dataset(path).__enter__()], ids=range(4)
)
def test_pipes_are_refused(read: Callable[[Path], Any], tmp_path: Path, refuses: Any) -> None:
    os.mkfifo(tmp_path / "a.tif")
    with refuses("a.tif is a pipe", "give a file"):
        read(tmp_path / "a.tif")
    assert digest(tmp_path / "a.tif") == digest(tmp_path / "none")


NAME, HUGE = "conv.weight", (2**40, 3, 7, 7)


def archive(path: Path, records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in records.items():
            file.writestr(f"archive/{name}", content)


def many_tensors(path: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"{number:09}": empty for number in range(MAX_HEADER // 60)}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "records that unpack to more than the file.pth": (
        lambda path: archive(path, {"data.pkl": b"", "data/0": bytes(10**6)}, zipfile.ZIP_DEFLATED),
        "compressed or overlap",
    ),
    "very many tensors.pth": (lambda path: archive(path, {"data.pkl": bytes(MAX_HEADER + 1)}), "describe its tensors"),
    "very many tensors of an old file.pth": (
        lambda path: path.write_bytes(3 * pickle.dumps(0) + pickle.dumps([bytes(MAX_HEADER), 0])),
        "describe its tensors",
    ),
    "very many tensors.safetensors": (many_tensors, "describe its tensors"),
    "strides of 0.pth": (lambda path: torch.save({NAME: torch.zeros(1).expand(HUGE)}, path), f"lacks values of {NAME}"),
    "strides of 0 in an old file.pth": (
        lambda path: torch.save({NAME: torch.zeros(1).expand(HUGE)}, path, _use_new_zipfile_serialization=False),
        f"lacks values of {NAME}",
    ),
    "sparse values.pth": (
        lambda path: torch.save({NAME: torch.sparse_coo_tensor(size=HUGE, dtype=torch.float32)}, path),
        f"lacks values of {NAME}",
    ),
    "no values.pth": (lambda path: torch.save({NAME: torch.empty(HUGE, device="meta")}, path), "lacks values"),
}


@pytest.mark.filterwarnings("ignore:.*parse")  # of PyTorch, about sparse tensors
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_would_fill_the_memory(name: str, tmp_path: Path, refuses: Any) -> None:
    write, phrase = WEIGHTS[name]
    write(tmp_path / name)
    with refuses(f"weight file {tmp_path / name}", phrase, "save"):
        read_state_dict(tmp_path / name)
    if name.endswith("pth") and phrase != f"lacks values of {NAME}":
        with refuses(f"checkpoint {tmp_path / name}", "restore it"):
            read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("old", [False, True])
def test_weights_of_pytorch_of_any_time(old: bool, tmp_path: Path) -> None:
    weights = {"a": torch.ones(3), "b": torch.zeros(2, 1).expand(2, 3)[:, :1], "c": torch.zeros(0)}
    torch.save({"state_dict": weights}, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    assert read_state_dict(tmp_path / "a.pth").keys() == weights.keys()
