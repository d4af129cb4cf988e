from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from crispseg.cli.parsing import read_yaml
from crispseg.io.files import atomic_path, read_text, writable_folder
from crispseg.models import ModelInfo


def test_a_finished_file_appears_with_its_suffix_and_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deeper" / "table.csv"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".csv"
        assert temporary.parent == path.parent  # the same file system: renaming is atomic
        temporary.write_text("done")
        assert not path.exists()
    assert path.read_text() == "done"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_crash_leaves_the_earlier_file(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("earlier")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_made_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file.txt") as temporary:
        temporary.unlink()
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with atomic_path(path) as one:
        one.write_text("one")
        with atomic_path(path) as other:
            other.write_text("other")
        assert path.read_text() == "other"
    assert path.read_text() == "one"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_finished_file_has_ordinary_permissions(umask: int, tmp_path: Path) -> None:
    earlier = os.umask(umask)
    try:
        with atomic_path(tmp_path / "file.txt"):
            pass
        assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o666 & ~umask
        assert os.umask(umask) == umask, "atomic_path changed the umask"
    finally:
        os.umask(earlier)


def test_threads_leave_the_umask_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = os.umask

    def slowly(mask: int) -> int:
        """So that threads would meet between setting and putting back."""
        before = change(mask)
        time.sleep(1e-3)
        return before

    def write(index: int) -> int:
        with atomic_path(tmp_path / f"{index}.txt") as temporary:
            temporary.write_text("done")
        return (tmp_path / f"{index}.txt").stat().st_mode & 0o777

    earlier = change(0o022)
    try:
        monkeypatch.setattr(os, "umask", slowly)
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(write, range(100))) == {0o644}
        assert change(0o022) == 0o022
    finally:
        change(earlier)


@pytest.mark.parametrize("below", ["", "sub", "sub/deeper"])
def test_a_file_where_a_folder_should_be_is_refused(below: str, tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "file").write_text("here")
    folder = tmp_path / "file" / below
    with refuses(str(folder), "a file is there", "choose another folder"):
        writable_folder(folder)
    with refuses(str(folder)), atomic_path(folder / "table.csv"):
        pass
    assert (tmp_path / "file").read_text() == "here"


def test_a_folder_where_a_file_should_be_is_refused(tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "table.csv").mkdir()
    with refuses(str(tmp_path / "table.csv")), atomic_path(tmp_path / "table.csv"):
        pass


def test_an_unwritable_folder_is_refused(tmp_path: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)  # the permissions of a folder do not stop root
    with refuses(str(tmp_path), "Permission denied"):
        writable_folder(tmp_path)


def test_writable_folder_makes_it_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert writable_folder(str(folder)) == folder
    assert list(folder.iterdir()) == []
    (folder / "kept").touch()
    assert writable_folder(folder) == folder
    assert [path.name for path in folder.iterdir()] == ["kept"]


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no device without end")
def test_text_is_read_up_to_a_bound(tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "a.txt").write_text("äbc", encoding="utf-8-sig")
    assert read_text(tmp_path / "a.txt", 7, "utf-8-sig") == "äbc"
    with pytest.raises(OSError, match="larger than"):
        read_text(tmp_path / "a.txt", 6)
    for read in (read_yaml, ModelInfo.read):
        with refuses("/dev/zero", "it is larger than"):
            read(Path("/dev/zero"))
