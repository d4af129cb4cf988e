"""A project without a window: its folder, its strokes, training and what is suggested."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import tifffile
from commands import output_of
from conftest import Refuses
from dataset_trees import save

from crispseg import Project
from crispseg.annotation.project import HELD_BACK, SIDE, Labels, held_back, segmenter_of
from crispseg.cli.main import main
from crispseg.data import Folder
from crispseg.io.images import image_size, read_image, read_mask
from crispseg.labels import IGNORE
from crispseg.models import SegmentationModel

SIZE = (96, 128)


def photo(folder: Path, name: str, size: tuple[int, int] = SIZE) -> Path:
    """Write a noisy image whose right half is bright."""
    image = np.random.default_rng(ord(name[0])).integers(0, 20, (*size, 3), np.uint8)
    image[:, size[1] // 2 :] += 100
    save(folder / f"{name}.png", image)
    return folder / f"{name}.png"


def strokes() -> Labels:
    labels = np.full(SIZE, IGNORE, np.uint8)
    labels[20:24, 4:60], labels[70:74, 70:120] = 0, 1
    return labels


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Four images, of which two have strokes."""
    project = Project(tmp_path / "project", [photo(tmp_path / "photos", name) for name in "abcd"], ["left", "right"])
    for name in "ab":
        project.write(name, strokes())
    return project


def test_images_are_added_once(tmp_path: Path, refuses: Refuses) -> None:
    images = [photo(tmp_path / "one", "a"), photo(tmp_path / "two", "a", (64, 64)), tmp_path / "stack.tif"]
    with tifffile.TiffWriter(images[2]) as file:
        for side in (40, 50, 50):
            file.write(np.full((side, 60), 1000 * side, np.uint16))
    tifffile.imwrite(tmp_path / "clear.tif", np.zeros((2, 40, 60, 4), np.uint8), photometric="rgb")
    clear = Project(tmp_path / "clear", [tmp_path / "clear.tif"])
    assert [read_image(page).shape for page in clear.images.values()] == [(40, 60, 3), (40, 60, 3)]
    for _ in range(2):
        project = Project(tmp_path / "project", images)
    assert [*Project(tmp_path / "project").images] == ["a", "a_2", "stack_001", "stack_002", "stack_003"]
    assert project.images["a_2"].resolve() == images[1]
    assert [image_size(project.images[f"stack_00{page}"]) for page in (1, 2, 3)] == [(40, 60), (50, 60), (50, 60)]
    assert (tifffile.imread(project.images["stack_002"]) == 50000).all()
    assert project.classes.names == ("background", "object")
    photo(project.folder / "images", "a").rename(project.folder / "images/a_2.tif")
    with refuses("a_2.png", "a_2.tif", "rename"):
        Project(project.folder)


def test_stacks_of_one_stem_and_moved_images(tmp_path: Path) -> None:
    """No page or image takes the place of another one, which may have labels."""
    for value, place in enumerate(("one", "two")):
        (tmp_path / place).mkdir()
        pages = np.full((2, 40, 60), value, np.uint16)
        tifffile.imwrite(tmp_path / place / "stack.tif", pages, photometric="minisblack")
    for place in ("one", "two", "one", "two"):
        project = Project(tmp_path / "project", [tmp_path / place / "stack.tif"])
    assert [*project.images] == ["stack_001", "stack_002", "stack_2_001", "stack_2_002"]
    assert [tifffile.imread(page).max() for page in project.images.values()] == [0, 0, 1, 1]
    first, moved = photo(tmp_path / "photos", "a"), tmp_path / "moved/a.png"
    Project(tmp_path / "project", [first])
    moved.parent.mkdir()
    first.rename(moved)
    project = Project(tmp_path / "project", [moved])
    assert project.images["a"].resolve() == moved and not first.exists() and len(project.images) == 5


def test_labels_stay_and_accepted_ones_are_marked(project: Project, refuses: Refuses) -> None:
    assert project.painted == ["a", "b"] and (project.labels("c") == IGNORE).all()
    project.accepted.add("b")
    project.write("b", np.ones(SIZE, np.uint8))
    again = Project(project.folder)
    assert again.accepted == {"b"} and np.array_equal(again.labels("a"), strokes())
    again.write("a", np.full(SIZE, IGNORE, np.uint8))
    assert again.painted == ["b"]
    again.write("b", strokes())  # undone
    assert not again.accepted and not Project(project.folder).accepted
    for mask, phrases in ((np.full(SIZE, 2), ("value 2", "classes.txt")), (np.zeros((96, 127)), ("127", "(96, 128)"))):
        save(again.mask("a"), mask.astype(np.uint8))
        with refuses("a.png", *phrases):
            again.labels("a")


@pytest.mark.slow
def test_other_commands_read_the_folder(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images without strokes are unlabelled, runs are no data, and the words of classes.txt are the classes."""
    for run in (project.folder / "runs/001", project.folder / "runs/002"):
        photo(run, "val")
        (run / "config.yaml").touch()
        (run / "checkpoints").mkdir()
    assert main(["doctor", str(project.folder)]) == 0
    data = Folder(root=project.folder)
    assert {pair.name for pair in data.pairs("all")} == {"a", "b"} and data.label_set().names == ("left", "right")
    output_of(capsys, "label", "next", "nuclei", project.folder / "images", "--out", tmp_path / "next")
    assert len([*(tmp_path / "next" / "masks").iterdir()]) == 4


def test_a_fifth_of_the_labels_is_held_back(project: Project) -> None:
    assert held_back(np.zeros((10 * SIDE, 10 * SIDE), np.uint8)).mean() == 1 / HELD_BACK
    few = np.full(SIZE, IGNORE, np.uint8)
    few[40:43, 40:43], few[40:43, 90:93] = 0, 1  # too little of both classes to divide it: both splits have them
    project.write("c", strokes())
    project._divided("001")  # of a run that did not start
    project.write("c", np.full(SIZE, IGNORE, np.uint8))
    for run, labels in (("001", strokes()), ("002", few)):
        for name in "ab":
            project.write(name, labels)
        place = project._divided(run)
        assert [mask.stem for mask in sorted((place / "train/masks").iterdir())] == ["a", "b"]
        train, val = (read_mask(place / file) for file in ("train/masks/a.png", "val/masks/a_0_0.png"))
        assert {*np.unique(train)} == {*np.unique(val)} == {0, 1, IGNORE}
        assert np.array_equal(np.where(train == IGNORE, val, train), labels)
        assert np.array_equal(read_image(place / "val/images/a_0_0.tif"), read_image(project.images["a"]))


def test_windows_of_held_back_labels_are_not_narrow(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", [photo(tmp_path / "photos", "a", (257, 513))])
    project.write("a", np.arange(513, dtype=np.uint8)[None].repeat(257, 0) % 2)
    place = project._divided("001") / "val"
    windows = sorted((place / "masks").iterdir())
    assert [read_mask(window).shape for window in windows] == [(257, 256), (257, 257)]
    whole = np.concatenate([read_image(place / f"images/{window.stem}.tif") for window in windows], axis=1)
    assert np.array_equal(whole, read_image(project.images["a"]))


def test_suggestions_are_unpainted(
    project: Project, tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.suggest()[1] == "c" and project.suggest().box == (0, 0, 128, 96)
    with refuses("no model yet"):
        project.predict("a")
    with refuses("no image to label"):
        Project(tmp_path / "empty").suggest()
    labels = strokes()
    labels[:, :64] = 0
    for name in "abc":
        project.write(name, labels)
    project.write("d", np.zeros(SIZE, np.uint8))
    for tile in (None, 64):
        project = Project(project.folder)
        project.model = "nuclei"
        monkeypatch.setattr(segmenter_of("nuclei"), "tile", tile)
        left, top, width, height = project.suggest().box
        assert 64 <= left <= 128 - width and 0 <= top <= 96 - height  # the left half is painted
    assert project.measure("a").categories == ("nucleus",)
    monkeypatch.setattr("crispseg.annotation.project.CANDIDATES", 1)  # a choice has one image
    project.accepted.clear()
    for _ in project.images:
        name = project.suggest().name
        assert name not in project.accepted
        project.accepted.add(name)


def wait_for(is_so: Callable[[], bool]) -> None:
    for _ in range(600):
        if is_so():
            return
        time.sleep(0.5)
    pytest.fail("nothing happened for five minutes")


def test_a_training_fails_after_its_last_model(
    project: Project, tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, run = SegmentationModel.from_pretrained("nuclei").folder, project.folder / "runs/001"
    copy = f"shutil.copytree({str(model)!r}, {str(run / 'model')!r})"
    (tmp_path / "child.py").write_text(f"import shutil, sys\n{copy}\nsys.exit('the disk is full')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("crispseg.annotation.project.CHILD", "child")
    progress: list[float] = []
    with refuses("failed after its last model", str(run), "the disk is full"):
        project.train(0.1, lambda state: progress.append(state.share))
    assert 1 not in progress
    assert project.model is None and Project(project.folder).model == str(run)


@pytest.mark.slow
def test_a_training_ends_with_its_window(project: Project) -> None:
    script = f"from crispseg import Project; Project({str(project.folder)!r}).train(10)"
    log = project.folder / "runs/001/log.txt"
    with subprocess.Popen([sys.executable, "-c", script]) as window:
        wait_for(lambda: log.exists() and "mIoU" in log.read_text())
        window.kill()
    wait_for(lambda: "interrupted at step" in log.read_text())


@pytest.mark.slow
def test_training_starts_from_the_last_model(project: Project, refuses: Refuses) -> None:
    progress: list[float] = []
    run = project.train(0.1, lambda state: progress.append(state.share))
    assert progress == sorted(progress) and progress[-1] == 1
    assert project.predict("c").label_set.names == ("left", "right")
    again, stop = Project(project.folder), Event()
    assert again.train(1, lambda state: state.miou is not None and stop.set(), stop) == run.parent / "002"
    assert again.model == str(run.parent / "002") == again.runs[-1]
    assert SegmentationModel.from_pretrained(again.model).info.recipe["init_from"] == str(run)
    with refuses("stopped before its first evaluation"):
        again.train(10, stop=stop)
    (project.folder / "classes.txt").write_text("left\nright\nthird\n")
    for name in "ab":
        again.write(name, np.zeros(SIZE, np.uint8))
    with refuses("no model", "class"):
        again.train(0.1)
    for name in "ab":
        again.write(name, np.full(SIZE, IGNORE, np.uint8))
    with refuses("no labels"):
        again.train()
