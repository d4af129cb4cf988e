"""`crispseg predict`: what is read, what is written and what is refused."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Capture, error_of, output_of
from training_runs import files

from crispseg.cli.main import main
from crispseg.errors import CrispsegError
from crispseg.prediction import fastest


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


def test_a_name_that_is_too_long_for_results(run: Path, pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copy(pictures / "one.png", pictures / f"{'a' * 244}.png")
    assert "give shorter names" in error_of(capsys, "predict", run, pictures, "--out", tmp_path / "out")


def test_profile_prints_each_stage(run: Path, pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    argv = ("predict", run, pictures, "--out", tmp_path / "out")
    first, *table = output_of(capsys, *argv, "--profile").splitlines()
    assert first.startswith("3 of 3 images")
    assert [line.split()[0] for line in table] == ["reading", "network", "writing"]
    assert sum(int(line.split()[-1].removesuffix("%")) for line in table) == pytest.approx(100, abs=1)
    assert all(float(line.split()[1]) > 0 for line in table)
    assert "network" not in output_of(capsys, *argv)
    (tmp_path / "film.mp4").touch()
    assert "profile is for images" in error_of(capsys, "predict", run, tmp_path / "film.mp4", "--profile")


@dataclass
class Way:
    """A job and its segmenter: labels of four pixels, and its seconds."""

    backend: str = "torch"
    precision: str = "fp32"
    fast: bool = True
    value_range: tuple[float, float] | None = None

    def segmenter(self) -> Any:
        if (self.backend, self.precision) not in SPEEDS:
            raise CrispsegError("is not supported")
        return self


SPEEDS: dict[tuple[str, str], tuple[float, int]] = {}  # seconds, and number of wrong pixels of 1000


@pytest.mark.parametrize(
    ("speeds", "chosen"),
    [
        (
            {("torch", "bf16"): (0.5, 5), ("openvino", "fp32"): (0.4, 0), ("openvino", "bf16"): (0.2, 6)},
            "openvino fp32",
        ),
        ({("torch", "bf16"): (0.5, 5), ("onnxruntime", "fp32"): (1.5, 0)}, "torch bf16"),
        ({("openvino", "fp32"): (1.1, 0)}, "torch fp32"),
    ],
)
def test_the_fastest_way_that_agrees_is_chosen(
    speeds: dict[tuple[str, str], tuple[float, int]], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(way: Way, images: Any) -> Any:
        seconds, wrong = SPEEDS[way.backend, way.precision]
        return [(np.arange(1000) < wrong).astype(np.uint8)], seconds

    monkeypatch.setitem(globals(), "SPEEDS", {("torch", "fp32"): (1.0, 0), **speeds})
    monkeypatch.setattr(fastest, "timed_labels", timed)
    monkeypatch.setattr(fastest, "is_usable", lambda *_: True)
    of_folder = Way(value_range=(0, 4095))
    way, line = fastest.fastest(Way(), of_folder, [])  # type: ignore[arg-type]
    assert way.value_range == (0, 4095)
    assert f"{way.backend} {way.precision}" == chosen
    assert chosen == "torch fp32" or f"backend {way.backend} in precision {way.precision}" in line


def test_fast_names_its_way_and_resumes(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (pictures / "first.png").write_text("broken")
    monkeypatch.setattr(fastest, "WAYS", (("torch", "bf16"),))
    monkeypatch.setattr(fastest, "cpu_has_bf16", lambda: True)
    argv = ["predict", str(run), str(pictures), "--out", str(tmp_path / "out"), "--fast"]
    assert main(argv) == 2  # because of the broken image
    assert "fast: " in capsys.readouterr().err
    assert len(files(tmp_path / "out")) == 6
    assert main([*argv, "--resume"]) == 2
    assert "3 of them earlier" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "is_shown"), [(11.0, True), (13.0, False)])
def test_bf16_is_proposed_if_that_is_cheap_to_measure(
    seconds: float,
    is_shown: bool,
    run: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    def timed(segmenter: Any, images: Any) -> Any:
        return [np.zeros(9)], 1.0 if segmenter.precision == "fp32" else 0.6

    monkeypatch.setattr("crispseg.prediction.files.HINT_IMAGES", 3)
    monkeypatch.setattr(fastest, "HINT_SECONDS", seconds)
    monkeypatch.setattr(fastest, "timed_labels", timed)
    monkeypatch.setattr(fastest, "cpu_has_bf16", lambda: True)
    argv = ["predict", str(run), str(pictures), "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    assert ("precision bf16 would save 40%" in capsys.readouterr().err) is is_shown
    assert main([*argv, "--precision", "fp32"]) == 0
    assert "bf16" not in capsys.readouterr().err
