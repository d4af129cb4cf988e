"""Errors of the operating system end in one line that names the file, what was kept and what to do."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import error_of, small_files
from PIL import Image
from training_runs import files, quietly, tiny

from crispseg.cli.inspect import Inspect
from crispseg.io.images import write_image
from crispseg.training import Run

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("number", "remedy", "file"), [(errno.ENOSPC, "free some space", None), (errno.EDQUOT, "quota", "out/x.png")]
)
def test_a_command_ends_in_one_line(
    number: int, remedy: str, file: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: Inspect) -> None:
        raise OSError(number, os.strerror(number), file)

    monkeypatch.setattr(Inspect, "__call__", run)
    line = error_of(capsys, "inspect", "run", "image.png", "--out=page.html")
    assert all(phrase in line for phrase in (file or "", os.strerror(number), remedy))


@pytest.mark.parametrize(("share", "file"), [(0.6, ".ckpt"), (1e-4, "metrics.csv")])
def test_training_on_a_full_disk_keeps_what_there_was(
    share: float, file: str, tiny_run: Run, tmp_path: Path, refuses: Any
) -> None:
    config = tiny(Path(shutil.copytree(tiny_run.folder, tmp_path / "run")), epochs=3)
    kept = (config.out / "checkpoints/last.ckpt").read_bytes()
    size = int(share * len(kept))
    with refuses(file, os.strerror(errno.EFBIG), "resume the run", str(config.out)), full_after_start(size):
        quietly(config, resume=True)
    assert (config.out / "checkpoints/last.ckpt").read_bytes() == kept
    assert files(config.out) <= files(tiny_run.folder)


@contextmanager
def full_after_start(size: int) -> Iterator[None]:
    """The configuration can be written, what training writes cannot."""
    import lightning as L

    fit = L.Trainer.fit

    def limited(*args: Any, **options: Any) -> None:
        with small_files(size):
            fit(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(L.Trainer, "fit", limited)
        yield


def test_a_model_that_does_not_fit_on_the_disk(tiny_run: Run, tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, small_files(20_000):
        tiny_run.model.save_pretrained(tmp_path / "model")
    assert caught.value.filename == str(tmp_path / "model/model.safetensors")
    assert files(tmp_path) == set()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_image(tmp_path / "in/a.png", np.zeros((40, 40, 3), np.uint8))
    shutil.copy(tmp_path / "in/a.png", tmp_path / "in/c.png")
    return tmp_path / "in"


def test_predicting_on_a_full_disk_says_what_there_is(
    images: Path, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[Path] = []
    save = Image.Image.save

    def full(picture: Image.Image, path: Path, **options: Any) -> None:
        written.append(path)
        if len(written) > 2:
            raise OSError(*FULL.args)
        save(picture, path, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    line = error_of(capsys, "predict", tiny_run.folder, images, "--out", tmp_path / "out")
    assert "c.png: No space left on device; free some space; 1 of 2 images are segmented" in line
    assert files(tmp_path / "out") == {"a.png", "a_overlay.png"}
