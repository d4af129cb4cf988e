"""What values, colours and bits of masks mean: read, asked about or refused, by training and by the doctor alike."""

import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Refuses
from dataset_trees import save
from PIL import Image

from crispseg.cli.main import main
from crispseg.cli.train import Train
from crispseg.data import Folder, check_split
from crispseg.errors import Question
from tests.data.own_folders import BLACK, WHITE, folder, ids, make_pair

from .trees import findings_of

RED = np.array([BLACK, (128, 0, 0), (9, 8, 7)], np.uint8)
SOFT = np.asarray(
    Image.fromarray(np.kron(ids(0, 255, 255), np.ones((40, 40), np.uint8))).rotate(7, Image.Resampling.BILINEAR)
)


def checked(source: Folder) -> None:
    for split in ("train", "val"):
        check_split(source.dataset(split), split)


ASKED_ABOUT: dict[str, tuple[list[np.ndarray], int]] = {
    "far apart": ([ids(0, 128, 255)], 3),
    "ids and white": ([ids(0, 1), ids(0, 255)], 2),
    "many ids": ([np.arange(48, dtype=np.uint8).reshape(6, 8)], 1),
    "colours": ([RED[ids(0, 1, 2)]], 1),
    "soft edges": ([SOFT], 1),
    "photographs": ([np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)], 0),
}


@pytest.mark.parametrize("name", ASKED_ABOUT)
def test_a_question_has_ten_lines_and_commands_that_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, count = ASKED_ABOUT[name]
    for index in range(6):
        make_pair(tmp_path, str(index), masks[index % len(masks)])
    assert main(["train", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    lines = capsys.readouterr().err.splitlines()
    commands = [line.strip().removeprefix("crispseg ") for line in lines if line.startswith("  crispseg ")]
    assert len(lines) <= 10 and len(commands) == count
    for command in commands:
        data = Train.parsed(shlex.split(command)[1:]).config().data
        assert check_split(data.dataset("all"), "all").images == 6
    assert main(["doctor", str(tmp_path)]) == 3
    assert capsys.readouterr().out.count("or train with: crispseg train") == count


def test_masks_without_labelled_pixels_are_refused(tmp_path: Path, refuses: Refuses) -> None:
    for name in "abc":
        make_pair(tmp_path, name, ids(255))
    with refuses(str(tmp_path), "labelled", "data.ignore"):
        folder(tmp_path, ignore=[255]).label_set()


def test_a_single_different_mask_is_named(tmp_path: Path) -> None:
    for index in range(6):
        make_pair(tmp_path, str(index), ids(0, 1, 77) if index == 3 else ids(0, 255))
    with pytest.raises(Question) as asked:
        folder(tmp_path).label_set()
    assert "1 mask, such as 3.png, with 3 values" in str(asked.value) and "data.exclude" in str(asked.value)
    for name in ("3", "3.png"):
        assert folder(tmp_path, exclude=[name]).label_set().names == ("background", "class 1")
    unknown = folder(tmp_path, exclude=["3", "nonesuch"]).notes()
    assert any("nonesuch" in note for note in unknown)


@pytest.mark.parametrize(("mode", "quality"), [("L", 30), ("L", 95), ("RGB", 30)])
def test_black_and_white_jpegs_are_read_by_threshold(mode: str, quality: int, tmp_path: Path) -> None:
    drawn = np.kron(ids(0, 0, 255, 255, 255), np.ones((21, 21), np.uint8))
    for name in "abc":
        make_pair(tmp_path, name, drawn)
        (tmp_path / f"masks/{name}.png").unlink()
        save(tmp_path / f"masks/{name}.jpg", Image.fromarray(drawn).convert(mode), quality=quality)
    assert not findings_of(folder(tmp_path))
    source = folder(tmp_path).settled()
    assert source.label_set().names[0] == "background"
    inverse = folder(tmp_path, palette=[WHITE, BLACK], palette_tolerance=255).settled()
    for data, truth in ((source, drawn > 0), (inverse, drawn == 0)):
        assert all((sample.labels != truth).mean() < 0.01 for sample in data.dataset("all"))


def test_ids_in_jpegs_are_asked_about(tmp_path: Path) -> None:
    drawn = np.kron(ids(0, 60, 120), np.ones((21, 21), np.uint8))
    for name in "abc":
        make_pair(tmp_path, name, drawn)
        (tmp_path / f"masks/{name}.png").unlink()
        cv2.imwrite(str(tmp_path / f"masks/{name}.jpg"), drawn)
    with pytest.raises(Question, match="changed by lossy compression"):
        folder(tmp_path).label_set()
