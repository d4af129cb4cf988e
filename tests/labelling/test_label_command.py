"""`crispseg label next` and `crispseg label errors`, of a small run."""

import csv
from pathlib import Path

import numpy as np
import pytest
from commands import error_of, hints, output_of
from dataset_trees import save
from PIL import Image
from training_runs import quietly, tiny

from crispseg.cli.main import main
from crispseg.data import Folder
from crispseg.data.folder import ALL
from crispseg.data.hints import after_training
from crispseg.inference import Segmenter
from crispseg.inference.protocols import Protocol
from crispseg.models.saving import FOLDS
from crispseg.training import Run, train_folds


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of ten images in a folder, of which the last two have no mask."""
    root, random = tmp_path_factory.mktemp("label") / "data", np.random.default_rng(0)
    for index in range(10):
        mask = np.kron(random.integers(0, 3, (4, 6)), np.ones((16, 16))).astype(np.uint8)
        shades = np.array([(30, 30, 30), (200, 60, 60), (60, 60, 200)], np.uint8)
        save(root / f"images/{index}.png", shades[mask] + random.integers(0, 20, (*mask.shape, 3), np.uint8))
        if index < 8:
            save(root / f"masks/{index}.png", mask)
    return quietly(tiny(root.parent / "run", data=Folder(root=root)))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_errors_are_listed_and_can_be_left_out(
    folder_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "errors"
    printed = output_of(capsys, "label", "errors", folder_run.folder, "--out", out, "--count", 3)
    rows = table(out / "errors.csv")
    assert sorted(row["image"] for row in rows) == [str(index) for index in range(8)]
    assert {row["split"] for row in rows} == {"train", "val"}
    assert [row["quality"] for row in rows] == sorted(row["quality"] for row in rows)
    first = (out / "errors.txt").read_text().split()
    assert first == [row["image"] for row in rows[:3]] and str(out / "errors.txt") in printed
    page = (out / "index.html").read_text()
    assert page.count("<figure>") == 9 and "http" not in page.replace("http://www.w3.org", "")
    rest = Folder(root=folder_run.folder.parent / "data", exclude=[str(out / "errors.txt")])
    names = {pair.name for split in ("train", "val") for pair in rest.pairs(split)}
    assert names == {str(index) for index in range(8)} - {*first}
    (again,) = hints(printed)
    assert main(again) == 0
    output_of(capsys, "label", "errors", folder_run.folder, "--out", tmp_path / "few")
    assert len((tmp_path / "few/errors.txt").read_text().split()) == 1  # a fifth of eight masks, not all of them


def test_hints_after_a_training_run_as_they_are(folder_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for words in hints("\n".join(f"  {step}" for step in after_training(folder_run.folder, folder_run.data))):
        output_of(capsys, *words)
    assert {"scores.html", "predictions"} <= {path.name for path in folder_run.folder.iterdir()}


def test_images_without_labels_are_chosen(folder_run: Run, tmp_path: Path) -> None:
    root, out = folder_run.folder.parent / "data", tmp_path / "next"
    for _ in range(2):
        assert main(["label", "next", str(folder_run.folder), str(root / "images"), f"--out={out}", "--count=5"]) == 0
        rows = table(out / "next.csv")
        assert {Path(row["image"]).stem for row in rows} == {"8", "9"}
        assert (out / "next.txt").read_text().split() == [row["image"] for row in rows]
        assert {path.name for path in (out / "masks").iterdir()} == {"8.png", "9.png"}
        assert Image.open(out / "masks/8.png").size == (96, 64)
        assert (out / "index.html").read_text().count("<figure>") == 6
        out = tmp_path / "again"


def test_regions_for_strokes_are_chosen(folder_run: Run, tmp_path: Path) -> None:
    """The most uncertain one first, in training images too; the uncertainty is the mean entropy in the box."""
    root, out = folder_run.folder.parent / "data", tmp_path / "next"
    command = ["label", "next", str(folder_run.folder), str(root / "images"), f"--out={out}", "--strokes"]
    assert main([*command, "--count=9"]) == 0
    rows = table(out / "next.csv")
    scored = {pair.name for pair in Folder(root=root).pairs("val")}
    assert {row["image"] for row in rows}.isdisjoint(str(root / f"images/{name}.png") for name in scored)
    assert (out / "next.txt").read_text().split() == list(dict.fromkeys(row["image"] for row in rows))
    boxes = [tuple(int(row[key]) for key in ("left", "top", "width", "height")) for row in rows]
    assert len({(row["image"], box) for row, box in zip(rows, boxes, strict=True)}) == 9
    for row, (left, top, width, height) in zip(rows, boxes, strict=True):
        assert (width, height) == (16, 16) and 0 <= left <= 80 and 0 <= top <= 48
        probabilities = Segmenter(folder_run.model, protocol=Protocol(flip=True))(row["image"]).probabilities()
        entropy = -(probabilities * np.log(probabilities)).sum(0) / np.log(len(probabilities))
        part = entropy[top : top + height, left : left + width]
        assert float(row["uncertainty"]) == pytest.approx(part.mean(), abs=2e-3)
    assert not (out / "masks").exists() and (out / "index.html").read_text().count("<figure>") == 27


@pytest.mark.slow
def test_each_fold_judges_the_masks_that_it_was_not_trained_on(folder_run: Run, tmp_path: Path) -> None:
    data = Folder(root=folder_run.folder.parent / "data", num_classes=3)
    train_folds(tiny(tmp_path / "folds", data=data), 2)
    assert main(["label", "errors", str(tmp_path / "folds"), f"--out={tmp_path / 'errors'}"]) == 0
    rows = table(tmp_path / "errors/errors.csv")
    assert sorted(row["image"] for row in rows) == sorted(pair.name for pair in data.pairs(ALL, strict=False))
    assert {row["split"] for row in rows} == {"val"}


def test_mistakes(folder_run: Run, tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    images, out = folder_run.folder.parent / "data/images", tmp_path / "out"
    for command in (["next", folder_run.folder, images], ["errors", folder_run.folder]):
        assert str(tmp_path / "full") in error_of(capsys, "label", *command, "--out", tmp_path / "full")
    labelled = images / "0.png"
    assert "trained on all images" in error_of(capsys, "label", "next", folder_run.folder, labelled, "--out", out)
    assert "none" in error_of(capsys, "label", "next", tmp_path / "none", images, "--out", out)
    (tmp_path / "folds").mkdir()
    (tmp_path / "folds" / FOLDS).write_text("{}")
    assert "fold_1" in error_of(capsys, "label", "errors", tmp_path / "folds", "--out", out)
    assert "label errrors" in error_of(capsys, "label", "errrors")
    broken = tmp_path / "photos/broken.png"
    save(broken, np.zeros((40, 40, 3), np.uint8))
    broken.write_bytes(broken.read_bytes()[:60])
    assert "broken.png" in error_of(capsys, "label", "next", tiny_run.folder, broken, "--out", out)
    with pytest.raises(Exception, match="missing"):
        Folder(root=folder_run.folder.parent / "data", exclude=[str(tmp_path / "none.txt")]).dataset("train")
    assert not out.exists()
