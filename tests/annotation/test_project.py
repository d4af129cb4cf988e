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
from crispseg.annotation.project import HELD_BACK, SIDE, Labels, held_back
from crispseg.cli.main import main
from crispseg.data import Folder
from crispseg.io.images import image_size, read_mask
from crispseg.labels import IGNORE
from crispseg.models import SegmentationModel

SHADES = np.array([(30, 30, 30), (200, 60, 60)], np.uint8)


def photo(folder: Path, name: str, size: tuple[int, int] = (96, 128)) -> Path:
    """Write an image of two shades, the second one in its right half."""
    truth = np.zeros(size, np.uint8)
    truth[:, size[1] // 2 :] = 1
    noise = np.random.default_rng(ord(name[0])).integers(0, 20, (*size, 3), np.uint8)
    save(folder / f"{name}.png", SHADES[truth] + noise)
    return folder / f"{name}.png"


def strokes(size: tuple[int, int] = (96, 128)) -> Labels:
    labels = np.full(size, IGNORE, np.uint8)
    labels[20:24, 4:60], labels[70:74, 70:120] = 0, 1
    return labels


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Four images, of which two have strokes."""
    photos = tmp_path / "photos"
    project = Project(tmp_path / "project", [photo(photos, name) for name in "abcd"], ["left", "right"])
    for name in "ab":
        project.write(name, strokes())
    return project


def test_images_are_added_once(tmp_path: Path) -> None:
    first, second = photo(tmp_path / "one", "a"), photo(tmp_path / "two", "a", (64, 64))
    stack = tmp_path / "stack.tif"
    tifffile.imwrite(stack, np.arange(2 * 40 * 50, dtype=np.uint16).reshape(2, 40, 50))
    for _ in range(2):
        project = Project(tmp_path / "project", [first, second, stack])
    names = [*Project(tmp_path / "project").images]
    assert names == ["a", "a_2", "stack_001", "stack_002"] == sorted(project.images)
    assert np.array_equal(tifffile.imread(project.images["stack_002"]), tifffile.imread(stack)[1])
    assert project.images["a_2"].resolve() == second.resolve()
    assert project.classes.names == ("background", "object")
    with tifffile.TiffWriter(tmp_path / "sizes.tif") as file:
        for side in (40, 50, 50):
            file.write(np.zeros((side, 60), np.uint8))
    project.add([tmp_path / "sizes.tif"])
    assert [image_size(project.images[f"sizes_00{page}"]) for page in (1, 2, 3)] == [(40, 60), (50, 60), (50, 60)]
    page = np.zeros((40, 50), np.uint8)
    project.write("stack_002", page)
    assert np.array_equal(Project(tmp_path / "project").labels("stack_002"), page)


def test_labels_stay_and_accepted_ones_are_marked(project: Project, refuses: Refuses) -> None:
    assert project.painted == ["a", "b"] and (project.labels("c") == IGNORE).all()
    project.accepted.add("b")
    project.write("b", np.ones((96, 128), np.uint8))
    again = Project(project.folder)
    assert again.accepted == {"b"} and np.array_equal(again.labels("a"), strokes())
    again.write("a", np.full((96, 128), IGNORE, np.uint8))
    assert again.painted == ["b"]
    save(again.mask("a"), np.full((96, 128), 2, np.uint8))
    with refuses("a.png", "value 2", "classes.txt"):
        again.labels("a")
    save(again.mask("a"), np.zeros((96, 127), np.uint8))
    with refuses("a.png", "(96, 127)", "(96, 128)"):
        again.labels("a")
    again.write("b", strokes())  # undone
    assert not again.accepted and not Project(project.folder).accepted


@pytest.mark.slow
def test_other_commands_read_the_folder(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images without strokes are unlabelled, runs are no data, and the words of classes.txt are the classes."""
    for run in ("001", "002"):
        for name in ("data", "val"):
            photo(project.folder / "runs" / run, name)
        (project.folder / "runs" / run / "config.yaml").touch()
        (project.folder / "runs" / run / "checkpoints").mkdir()
    assert main(["doctor", str(project.folder)]) == 0
    data = Folder(root=project.folder)
    assert {pair.name for pair in data.pairs("all")} == {"a", "b"} and data.label_set().names == ("left", "right")
    output_of(capsys, "label", "next", "nuclei", project.folder / "images", "--out", tmp_path / "next")
    assert len([*(tmp_path / "next" / "masks").iterdir()]) == 4


def test_a_fifth_of_the_labels_is_held_back(project: Project) -> None:
    full = np.indices((10 * SIDE, 10 * SIDE)).sum(0).astype(np.uint8) % 2
    assert held_back(full).mean() == 1 / HELD_BACK
    place = project._divided("001")
    train, val = (read_mask(place / split / "masks" / "a.png") for split in ("train", "val"))
    assert {*np.unique(train)} == {*np.unique(val)} == {0, 1, IGNORE}
    assert np.array_equal(np.where(train == IGNORE, val, train), strokes())
    single = np.full((96, 128), IGNORE, np.uint8)
    single[40:43, 40:43], single[40:43, 90:93] = 0, 1
    for name in "ab":
        project.write(name, single)
    place = project._divided("002")  # too little of both classes to divide it: both splits have them
    train, val = (read_mask(place / split / "masks" / "a.png") for split in ("train", "val"))
    assert {*np.unique(train)} == {*np.unique(val)} == {0, 1, IGNORE}


def test_suggestions_are_unpainted(project: Project) -> None:
    assert project.suggest() == ("c", (0, 0, 128, 96))
    project.model = "nuclei"
    labels = strokes()
    labels[:, :64] = 0
    for name in "abc":
        project.write(name, labels)
    project.accepted.add("d")
    name, (left, top, width, height) = project.suggest()
    assert name in "abc" and 64 <= left <= 128 - width and 0 <= top <= 96 - height  # the left half is painted
    assert len(project.measure("a")) >= 0 and project.measure("a").categories == ("nucleus",)


def test_what_is_missing_is_named(tmp_path: Path, project: Project, refuses: Refuses) -> None:
    with refuses("no image to label"):
        Project(tmp_path / "empty").suggest()
    with refuses("no model yet"):
        project.predict("a")
    for name in "ab":
        project.write(name, np.full((96, 128), IGNORE, np.uint8))
    with refuses("no labels"):
        project.train()
    assert not [*(project.folder / "runs").iterdir()]


@pytest.mark.slow
def test_a_training_ends_with_its_window(project: Project, refuses: Refuses) -> None:
    stop = Event()
    stop.set()
    with refuses("stopped before its first evaluation"):
        project.train(10, stop=stop)
    script = f"from crispseg import Project; Project({str(project.folder)!r}).train(10)"
    log = project.folder / "runs" / "002" / "log.txt"
    with subprocess.Popen([sys.executable, "-c", script]) as window:
        wait_for(lambda: log.exists() and "mIoU" in log.read_text())
        window.kill()
    wait_for(lambda: "interrupted at step" in log.read_text())


def wait_for(is_so: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.slow
def test_training_starts_from_the_last_model(project: Project, refuses: Refuses) -> None:
    progress: list[float] = []
    run = project.train(0.1, lambda state: progress.append(state.share))
    assert progress == sorted(progress) and progress[-1] == 1
    assert project.predict("c").label_set.names == ("left", "right")
    again = Project(project.folder)
    assert again.model == str(run) and str(run.parent / "002") == str(again.train(0.1))
    assert SegmentationModel.from_pretrained(again.model).info.recipe["init_from"] == str(run)
    stop = Event()
    assert again.train(1, lambda state: state.miou is not None and stop.set(), stop) == Path(again.runs[-1])
    (project.folder / "classes.txt").write_text("left\nright\nthird\n")
    for name in "ab":
        again.write(name, np.where(strokes() == 1, IGNORE, strokes()))
    with refuses("ended early", "class"):
        again.train(0.1)
