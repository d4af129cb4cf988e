"""Files that are whole or not there, and folders that one process at a time writes to."""

import errno
import fcntl
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
from training_runs import files

import crispseg
from crispseg.errors import CrispsegWarning
from crispseg.io.files import LITTER, LOCK, atomic_folder, atomic_path, owned, writable_folder, write_file

FORK = multiprocessing.get_context("fork")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_crash_leaves_the_earlier_file(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("earlier")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


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


def test_an_unwritable_folder_is_refused(tmp_path: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)  # the permissions of a folder do not stop root
    with refuses(str(tmp_path), "Permission denied"):
        writable_folder(tmp_path)


def own(folder: Path, begun: Event) -> None:
    with owned(folder), atomic_path(folder / "half.ckpt") as temporary:
        temporary.write_text("half")
        begun.set()
        time.sleep(60)


@contextmanager
def another(folder: Path) -> Iterator[Any]:
    """Another process that has begun to work in a folder."""
    begun = FORK.Event()
    process = FORK.Process(target=own, args=(folder, begun))
    process.start()
    assert begun.wait(30)
    yield process
    process.kill()
    process.join()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_modes_and_locks(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of network mounts: what is complete is written, and a warning names the folder that is not guarded."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "chmod", refuse)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(CrispsegWarning, match=re.escape(str(tmp_path))), owned(tmp_path):
        write_file(tmp_path / "table.csv", "done")
    assert (tmp_path / "table.csv").read_text() == "done"


def test_a_folder_has_one_owner_until_it_is_killed(tmp_path: Path, refuses: Any) -> None:
    with another(tmp_path) as process:
        with refuses(str(tmp_path), "in use"), owned(tmp_path):
            pass
        process.kill()
        process.join()
        left = {path.name for path in tmp_path.iterdir()}
        assert LOCK in left and any(name.startswith(LITTER) for name in left)
        (tmp_path / "inside").mkdir()
        (tmp_path / f"inside/{LITTER}a").mkdir()
        with owned(tmp_path, tmp_path / "inside"):
            assert {path.name for path in tmp_path.rglob("*")} == {"inside", LOCK}
    assert files(tmp_path) == set()


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_appears_when_it_is_whole(exists: bool, tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "parent" / ("x" * 250)
    (path if exists else path.parent).mkdir(parents=True)
    with pytest.raises(ValueError), atomic_folder(path) as temporary:
        (temporary / "half").touch()
        raise ValueError
    assert not files(tmp_path)
    with atomic_folder(path) as temporary:
        (temporary / "whole").write_text("whole")
        assert not (path / "whole").exists()
    assert files(tmp_path) == {f"parent/{path.name}/whole"}
    assert not [*tmp_path.rglob(f"{LITTER}*")]
    for taken in (path, path / "whole"):
        with refuses(str(taken), "give a new folder"), atomic_folder(taken):
            pass


@pytest.mark.parametrize("name", ["a" * 5000, "a/" * 2500 + "a", "a\0b"], ids=["long", "deep", "nul"])
@pytest.mark.parametrize(
    "call",
    [
        crispseg.Segmenter,
        crispseg.load,
        crispseg.from_pretrained,
        crispseg.evaluate,
        lambda name: crispseg.train(name, minutes=1),
        lambda name: crispseg.train("nuclei", out=name, minutes=1),
        lambda name: crispseg.predict("nuclei", name),
        lambda name: crispseg.predict("nuclei", Path(__file__).parents[2] / "docs/assets", out=name),
        lambda name: crispseg.Segmenter("nuclei")(name),
    ],
    ids=range(9),
)
def test_names_that_no_file_has(call: Any, name: str) -> None:
    with pytest.raises(crispseg.CrispsegError, match=r"^(?!.*\n).*(the name of a file|null character)"):
        call(name)
