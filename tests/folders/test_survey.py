"""Each file is opened once, and not at all while it is unchanged."""

from pathlib import Path

import numpy as np
import pytest
from opened import start_counting, times_opened
from PIL import Image

from crispseg.errors import CrispsegError
from crispseg.folders.cache import cache_file, cache_folder
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
    for pair, other in zip(first.readable, second.readable, strict=True):
        assert pair.image.digest == other.image.digest
        assert pair.mask.counts.tolist() == other.mask.counts.tolist()


def test_errors_are_kept_and_not_cached(tmp_path: Path) -> None:
    data = pairs(tmp_path)
    content = data[0].mask.read_bytes()
    data[0].mask.write_bytes(content[:40])
    survey = Survey.of({"train": data})
    assert isinstance(survey.errors[data[0].mask], CrispsegError)
    assert len(survey.readable) == 3
    data[0].mask.write_bytes(content)
    assert not Survey.of({"train": data}).errors


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
    monkeypatch.setenv("CRISPSEG_CACHE", "~/cache")
    assert cache_folder() == Path.home() / "cache"
