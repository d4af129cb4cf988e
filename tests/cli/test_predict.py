"""`crispseg predict`: what is read, what is written and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import Capture, error_of, output_of
from training_runs import files


def test_predict_files_and_patterns(run: Path, pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    (pictures / "one.png").rename(pictures / "one[1].png")  # the signs of a pattern
    images = [pictures / name for name in ("sub/three.png", "*.jpg", "one[1].png", "*.png")]
    shown = output_of(capsys, "predict", run / "model", *images, "--out", tmp_path / "out", "--precision", "bf16")
    assert "3 of 3 images" in shown  # one[1].png is named twice
    names = ("one[1]", "three", "two.v2")
    assert files(tmp_path / "out") == {f"{name}{ending}.png" for name in names for ending in ("", "_overlay")}


def test_predict_writes_beside_the_images(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """And never into a folder that holds anything."""
    monkeypatch.chdir(tmp_path)
    assert output_of(capsys, "predict", run, "in") == "3 of 3 images segmented into in_predictions\n"
    names = ("one", "two.v2", "sub/three")
    assert files(Path("in_predictions")) == {f"{name}{ending}.png" for name in names for ending in ("", "_overlay")}
    before = {path: path.stat().st_mtime_ns for path in Path("in_predictions").rglob("*")}
    assert "into in_predictions_2\n" in output_of(capsys, "predict", run, "in/")
    assert {path: path.stat().st_mtime_ns for path in Path("in_predictions").rglob("*")} == before
    Path("one_predictions").write_text("of the user")
    assert "into one_predictions_2\n" in output_of(capsys, "predict", run, "in/one.png")
    assert files(Path("one_predictions_2")) == {"one.png", "one_overlay.png"}


@pytest.mark.parametrize("twin", ["one.jpg", "one_overlay.png"])
def test_two_results_of_one_name_are_refused(
    twin: str, run: Path, pictures: Path, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copy(pictures / "one.png", pictures / twin)
    line = error_of(capsys, "predict", run, pictures, "--out", tmp_path / "out")
    assert str(pictures / "one.png") in line and str(pictures / twin) in line and "one by one" in line
    assert not (tmp_path / "out").exists()


def test_an_image_is_never_overwritten(run: Path, pictures: Path, capsys: Capture) -> None:
    before = (pictures / "one.png").read_bytes()
    line = error_of(capsys, "predict", run, pictures / "one.png", "--out", pictures)
    assert str(pictures) in line and "choose another" in line
    assert (pictures / "one.png").read_bytes() == before


def test_nothing_to_predict(run: Path, tmp_path: Path, capsys: Capture) -> None:
    cases = (
        ("missing.png", "missing.png does not exist; give"),
        ("*.gif", "contains no images"),
        (".", "contains no images"),
    )
    for source, phrase in cases:
        assert phrase in error_of(capsys, "predict", run, tmp_path / source, "--out", tmp_path / "out")
    assert files(tmp_path) == set()
