"""Each file is opened once, and not at all while it is unchanged."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from opened import start_counting, times_opened
from PIL import Image

from crispseg.errors import CrispsegError
from crispseg.folders.cache import cache_file, forget
from crispseg.folders.survey import Pair, Survey


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRISPSEG_CACHE", str(tmp_path / "cache"))


def pairs(root: Path, count: int = 4) -> list[Pair]:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    files = [Pair(f"{index}", root / f"images/{index}.png", root / f"masks/{index}.png") for index in range(count)]
    for pair in files:
        Image.fromarray(rng.integers(256, size=(40, 50, 3), dtype=np.uint8)).save(pair.image)
        Image.fromarray(rng.integers(3, size=(40, 50), dtype=np.uint8)).save(pair.mask)
    return files


def test_every_file_is_opened_once_and_unchanged_files_never(tmp_path: Path) -> None:
    data = pairs(tmp_path)
    splits = {"train": data, "val": data[:2]}
    files = [file for pair in data for file in pair[1:]]
    start_counting()
    first = Survey.of(splits)
    assert {times_opened(file) for file in files} == {1}
    start_counting()
    second = Survey.of(splits)
    assert {times_opened(file) for file in files} == {0}
    assert len(first.pairs) == len(second.pairs) == 6
    assert len(second.images) == len(second.masks) == 4
    for one, other in zip(first.readable, second.readable, strict=True):
        assert one.image.digest == other.image.digest
        assert one.mask.counts.tolist() == other.mask.counts.tolist()


def test_errors_are_kept_and_not_cached(tmp_path: Path) -> None:
    data = pairs(tmp_path)
    content = data[0].mask.read_bytes()
    data[0].mask.write_bytes(content[:40])
    survey = Survey.of({"train": data})
    assert isinstance(survey.errors[data[0].mask], CrispsegError)
    assert len(survey.readable) == 3
    data[0].mask.write_bytes(content)
    assert not Survey.of({"train": data}).errors


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    data = pairs(tmp_path)
    before = Survey.of({"train": data}).masks[0]
    Image.fromarray(np.full((40, 50), 7, np.uint8)).save(data[0].mask)
    after = Survey.of({"train": data}).masks[0]
    assert before.held == {0, 1, 2}
    assert after.held == {7}


def test_other_content_of_equal_size_and_time_needs_refresh(tmp_path: Path) -> None:
    """The cache trusts path, size and time; whoever restores all three has to ask for another reading."""
    (pair,) = pairs(tmp_path, 1)
    Image.fromarray(np.full((8, 8), 1, np.uint8)).save(pair.mask, compress_level=0)
    state = pair.mask.stat()
    assert Survey.of({"train": [pair]}).masks[0].held == {1}
    Image.fromarray(np.full((8, 8), 2, np.uint8)).save(pair.mask, compress_level=0)
    os.utime(pair.mask, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert pair.mask.stat().st_size == state.st_size
    assert Survey.of({"train": [pair]}).masks[0].held == {1}
    forget()
    assert Survey.of({"train": [pair]}).masks[0].held == {2}


@pytest.mark.parametrize("content", [b"", b"no database"])
def test_a_damaged_cache_is_not_used(tmp_path: Path, content: bytes) -> None:
    data = pairs(tmp_path)
    cache_file().parent.mkdir(parents=True, exist_ok=True)
    cache_file().write_bytes(content)
    assert len(Survey.of({"train": data}).readable) == 4


def test_no_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CRISPSEG_CACHE", str(tmp_path / "file"))
    assert len(Survey.of({"train": pairs(tmp_path / "data")}).readable) == 4
