"""Folders that one process at a time writes to, and what a killed one leaves."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from test_cli import error_of
from training_runs import FLAGS, files

from crispseg.cli.main import main
from crispseg.data.archives import unpack
from crispseg.data.catalogue import catalogue
from crispseg.io import files as files_module
from crispseg.io.files import LITTER, LOCK, atomic_folder, atomic_path, check_new_folder, owned, owned_share, staging
from crispseg.io.images import write_image
from crispseg.training import Run

FORK = multiprocessing.get_context("fork")


def own(folder: Path, owns: Event) -> None:
    with owned(folder), atomic_path(folder / "half.ckpt") as temporary:
        temporary.write_text("half")
        owns.set()
        time.sleep(60)


@contextmanager
def another_owner(folder: Path) -> Iterator[Any]:
    owns = FORK.Event()
    process = FORK.Process(target=own, args=(folder, owns))
    process.start()
    assert owns.wait(30)
    yield process
    process.kill()
    process.join()


def test_a_folder_has_one_owner_until_it_is_killed(tmp_path: Path, refuses: Any) -> None:
    with another_owner(tmp_path) as process:
        with refuses(str(tmp_path), f"in use by process {process.pid} on {platform.node()}"), owned(tmp_path):
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
    with owned(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()


def own_share(folder: Path, owns: Event) -> None:
    with owned_share(folder, 1, 3), atomic_path(folder / "half.png") as temporary:
        temporary.write_text("half")
        owns.set()
        time.sleep(60)


def test_shares_of_a_folder_have_owners_of_their_own(tmp_path: Path, refuses: Any) -> None:
    """What a killed one leaves is removed when nobody else is there."""
    owns = FORK.Event()
    process = FORK.Process(target=own_share, args=(tmp_path, owns))
    process.start()
    assert owns.wait(30)
    half = {name for name in files(tmp_path) if name.startswith(LITTER)}
    with refuses(f"share 1/3 of {tmp_path} is in use by process {process.pid}"), owned_share(tmp_path, 1, 3):
        pass
    with refuses(f"process {process.pid}", "give all processes the same number"), owned_share(tmp_path, 1, 2):
        pass
    with refuses(f"{tmp_path} is in use by process {process.pid}"), owned(tmp_path):
        pass
    with owned_share(tmp_path, 2, 3):
        assert half < files(tmp_path)
    assert half < files(tmp_path)
    with owned_share(tmp_path, 3, 3):
        process.kill()
        process.join()
        assert half < files(tmp_path)
    assert files(tmp_path) == set()


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any, **__: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", no_locks)
    with pytest.warns(UserWarning, match="No locks available"), owned(tmp_path):
        pass
    with pytest.warns(UserWarning, match="No locks available"), owned_share(tmp_path, 1, 2):
        pass


def staged(folder: Path, begun: Event) -> None:
    with staging(folder / "page.html") as temporary:
        (temporary / "page.html").write_text("half")
        begun.set()
        time.sleep(60)


def test_an_owner_leaves_what_others_are_writing_beside_it(tmp_path: Path) -> None:
    begun = FORK.Event()
    process = FORK.Process(target=staged, args=(tmp_path, begun))
    process.start()
    assert begun.wait(30)
    (half,) = files(tmp_path)
    with owned(tmp_path):
        assert half in files(tmp_path)
    process.kill()
    process.join()
    with owned(tmp_path):
        assert half not in files(tmp_path)


def test_temporary_files_of_other_machines_stay_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("old", "new"):
        (tmp_path / f"{LITTER}1-01234567-{name}").write_text("half")
    os.utime(tmp_path / f"{LITTER}1-01234567-old", (0, 0))
    with owned(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {LOCK, f"{LITTER}1-01234567-new"}


def test_a_lock_of_another_user_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Any) -> None:
    def not_mine(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / LOCK).write_text("77\nanother\n")
    monkeypatch.setattr(FileLock, "acquire", not_mine)
    phrases = "in use by process 77 on another of another user", "choose another folder"
    with refuses(str(tmp_path), *phrases), owned(tmp_path):
        pass
    (tmp_path / f"{LITTER}{'0' * 16}.lock").touch()
    assert files_module._in_hands(tmp_path / f"{LITTER}{'0' * 16}.lock")


def test_a_folder_with_nothing_but_a_lock_is_empty(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / LOCK).touch()
    assert check_new_folder(tmp_path / "new") == tmp_path / "new"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    write_image(tmp_path / "in/image.png", np.zeros((40, 40, 3), np.uint8))
    return tmp_path / "in/image.png"


def test_commands_leave_a_folder_to_its_owner(
    tmp_path: Path, image: Path, tiny_run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    voc = catalogue()["voc2012"]
    monkeypatch.setattr("crispseg.cli.downloading.download", lambda *_: pytest.fail("it was downloaded"))
    out = tmp_path / "out"
    with another_owner(out) as process:
        for argv in (
            ["train", *FLAGS, "--out", out],
            ["train", "--data=folder", "--data.images=x", "--data.masks=y", "--folds=2", "--out", out],
            ["predict", tiny_run.folder, image, "--out", out],
            ["data", "download", voc.name, "--out", out],
        ):
            assert f"{out} is in use by process {process.pid}" in error_of(capsys, *argv)
    with another_owner(tiny_run.folder) as process:
        line = error_of(capsys, "train", "--resume", tiny_run.folder)
        assert f"{tiny_run.folder} is in use by process {process.pid}" in line
    (tiny_run.folder / LOCK).unlink()
    for left in tiny_run.folder.glob(f"{LITTER}*"):
        left.unlink()


@pytest.mark.slow
def test_of_two_trainings_in_one_folder_one_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "crispseg", "train", *FLAGS, "--epochs=6", f"--out={tmp_path / 'run'}"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=120)[1]: process.returncode for process in both}
    assert sorted(said.values()) == [0, 2]
    (refused,) = [text for text, status in said.items() if status]
    assert f"{tmp_path / 'run'} is in use by process" in refused and "Traceback" not in refused
    left = files(tmp_path / "run")
    assert "model/model.safetensors" in left and not [name for name in left if LITTER in name or LOCK in name]


@pytest.mark.slow
def test_of_two_predictions_into_one_folder_one_is_refused_or_both_complete(tmp_path: Path, tiny_run: Run) -> None:
    for index in range(40):
        write_image(tmp_path / f"in/{index:02}.png", np.full((256, 256, 3), 6 * index, np.uint8))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "crispseg", "predict", tiny_run.folder, tmp_path / "in", "--out", out]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0 or f"{out} is in use by process" in errors
        assert process.returncode in (0, 2) and "Traceback" not in errors
    assert 0 in [process.returncode for process in both]
    assert files(out) == {f"{index:02}{ending}" for index in range(40) for ending in (".png", "_overlay.png")}


def test_of_two_downloads_into_one_folder_one_is_refused(tmp_path: Path) -> None:
    both = [FORK.Process(target=downloading, args=(tmp_path, number)) for number in range(2)]
    for number, process in enumerate(both):
        (tmp_path / f"{number}.log").touch()
        process.start()
    for process in both:
        process.join(60)
    said = [(tmp_path / f"{number}.log").read_text() for number in range(2)]
    (refused,) = [number for number, text in enumerate(said) if "is in use by process" in text]
    assert both[refused].exitcode == 2 and "Traceback" not in "".join(said)
    assert (tmp_path / "out/VOC").read_text() == f"{1 - refused}"


def downloading(folder: Path, number: int) -> None:
    """`crispseg data download` from a slow server."""

    def slowly(entry: Any, out: Path, *_: Any) -> int:
        end = time.monotonic() + 30
        while "in use" not in (folder / f"{1 - number}.log").read_text() and time.monotonic() < end:
            time.sleep(0.01)
        (out / "VOC").write_text(f"{number}")
        return 1

    patch = pytest.MonkeyPatch()
    patch.setattr("crispseg.cli.downloading.download", slowly)
    os.dup2(os.open(folder / f"{number}.log", os.O_WRONLY | os.O_CREAT), 2)
    sys.stderr = os.fdopen(2, "w")
    status = main(["data", "download", "voc2012", "--out", str(folder / "out")])
    sys.stderr.flush()
    os._exit(status)


def test_a_download_that_is_killed_leaves_no_litter(tmp_path: Path, refuses: Any) -> None:
    """Its files are unpacked to a folder that the next owner removes."""
    process = FORK.Process(target=unpacking, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(LITTER)]
    with owned(tmp_path / "out"):
        pass
    assert not [*(tmp_path / "out").iterdir()]


def unpacking(folder: Path) -> None:
    import zipfile

    zipfile.ZipFile.extractall = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,misc]
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("a", "a")
    unpack(folder / "a.zip", folder / "out")


def make(path: Path, begun: Event) -> None:
    with atomic_folder(path) as temporary:
        (temporary / "half").write_text("half")
        begun.set()
        time.sleep(60)


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_whose_maker_is_killed_is_made_by_the_next_one(exists: bool, tmp_path: Path, refuses: Any) -> None:
    """As `doctor --fix` and `data import` make theirs, beside it or in it where it is there."""
    path = tmp_path / "parent" / ("x" * 250)
    (path if exists else path.parent).mkdir(parents=True)
    begun = FORK.Event()
    process = FORK.Process(target=make, args=(path, begun))
    process.start()
    assert begun.wait(30)
    with owned(path if exists else path.parent):  # which leaves alone what is in use
        pass
    with refuses(f"{path} is in use by process {process.pid}"), atomic_folder(path):
        pass
    process.kill()
    process.join()
    assert [left for left in path.parent.rglob(f"{LITTER}*") if left.is_dir()]
    with atomic_folder(path) as temporary:
        (temporary / "whole").write_text("whole")
    assert files(tmp_path) == {f"parent/{path.name}/whole"}
    assert not [*tmp_path.rglob(f"{LITTER}*")]
