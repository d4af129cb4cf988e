"""What masks mean to a run: train, doctor, evaluate, inspect and compare read one mask in one way, or refuse it."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import Capture, error_of, output_of
from numpy.typing import NDArray
from PIL import Image
from training_runs import tiny

import crispseg
from crispseg import SegmentationModel
from crispseg.config.settings import Text
from crispseg.data import FileDataset, Folder
from crispseg.data.examination import examine
from crispseg.evaluation.checked import checked_splits
from crispseg.evaluation.recorded import data_to_score, read_truth
from crispseg.inspection import inspect_image
from crispseg.io.images import read_mask
from crispseg.models.saving import read_info
from crispseg.training.config import config_to_dict
from crispseg.training.initial_weights import starting_model
from crispseg.training.training_data import check_data
from tests.data.own_folders import BLACK, WHITE, ids, make_pair

COLORS = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (9, 8, 7)]


def in_color(*values: int) -> NDArray[np.uint8]:
    return np.array(COLORS, np.uint8)[ids(*values)]


def put(root: Path, *masks: NDArray[Any]) -> Path:
    """A folder of images and masks."""
    for index, mask in enumerate(masks):
        make_pair(root, str(index), mask)
    return root


def begun(data: Folder, out: Path) -> tuple[Path, dict[Path, NDArray[np.uint8]]]:
    """A run as training leaves it, whose model was not trained, and the labels that it would train on, by mask."""
    config = tiny(out, data=data.settled())
    model, _ = starting_model(config, config.data.label_set())
    splits = check_data(config)[1]
    model.save_pretrained(out / "model")
    (out / "config.yaml").write_text(yaml.safe_dump(config_to_dict(config)))
    return out, {path: labels for split in (splits.train, splits.val) for path, labels in labels_of(split).items()}


def labels_of(dataset: Any) -> dict[Path, NDArray[np.uint8]]:
    assert isinstance(dataset, FileDataset)
    return {pair.mask: dataset.read_labels(index) for index, pair in enumerate(dataset.pairs)}


@cache
def opened(run: Path) -> SegmentationModel:
    return SegmentationModel.from_pretrained(run)


def scored(run: Path, **said: object) -> dict[str, NDArray[np.uint8]]:
    """The labels that evaluate and compare score, by the name of the mask; `ablate` and `export` do likewise."""
    model = opened(run)
    data, split = data_to_score(str(run), {key: Text(str(value)) for key, value in said.items()}, "all")
    first, second = (labels_of(dataset) for dataset in checked_splits([model, model], data, split))
    assert all((first[path] == second[path]).all() for path in first)
    return {path.name: labels for path, labels in first.items()}


def truth(run: Path, mask: Path, **said: Any) -> NDArray[np.uint8] | None:
    """The truth that inspect shows."""
    image = np.zeros((*read_mask(mask).shape[:2], 3), np.uint8)
    return inspect_image(opened(run), image, mask, **said).truth


def soft(mask: NDArray[Any]) -> NDArray[np.uint8]:
    """Larger, with greys along the edges."""
    return np.asarray(Image.fromarray(np.kron(mask, np.ones((20, 20), np.uint8))).rotate(7, Image.Resampling.BILINEAR))


MEANINGS: list[tuple[Any, dict[str, Any]]] = [
    ([0, 1], {}),
    ([0, 1, 255], {"classes": ["no", "yes"]}),
    ([0, 1, 2, 3, 255], {"merge": {"both": ["class 1", "class 3"]}}),
    ([1, 2, 3], {"drop": ["class 0"]}),
    ([0, 1, 2, 11], {"ignore": (11,)}),
    ([0, 1, 2], {"num_classes": 4}),
    ([0, 255], {}),
    ([0, 255], {"palette": [WHITE, BLACK]}),
    ([0, 130], {"palette": [BLACK, (128,) * 3], "palette_tolerance": 5}),
    ([0, 38, 75, 255], {"palette": [BLACK, (75,) * 3], "ignore": (38, 255)}),
    (COLORS, {"palette": COLORS[::-1]}),
    (COLORS, {"palette": COLORS[1:], "ignore": ((0, 0, 0),)}),
]


@pytest.mark.parametrize(("values", "options"), MEANINGS)
def test_one_mapping(values: Any, options: dict[str, Any], tmp_path: Path) -> None:
    """Train, doctor, evaluate, compare and inspect read masks alike, by the run and by its model."""
    kind = np.uint16 if max(np.ravel(values)) > 255 else np.uint8
    put(tmp_path / "own", *[np.array(values, kind)[ids(*range(len(values)))]] * 3)
    own = Folder(tmp_path / "own/images", tmp_path / "own/masks", **options)
    run, trained = begun(own, tmp_path / "run")
    meaning = examine(own).meaning
    assert meaning and len(trained) == 3
    for path, expected in trained.items():
        np.testing.assert_array_equal(meaning.lookup(read_mask(path)), expected)
    for model in (run, run / "model"):
        labels = scored(model)
        for path, expected in trained.items():
            np.testing.assert_array_equal(labels[path.name], expected)
        np.testing.assert_array_equal(truth(model, path), expected)


SOFT_RED = soft(ids(0, 1, 1) * 128)
SOFT_RED = np.dstack([SOFT_RED, 0 * SOFT_RED, 0 * SOFT_RED])
RED = {"palette": COLORS[:2]}
ELSEWHERE = {
    "white in a run of ids": (
        [ids(0, 1)] * 3,
        {},
        [ids(0, 255)] * 2,
        ["black and white", "data.palette"],
    ),
    "white in a run of three": ([ids(0, 1, 2)] * 3, {}, [ids(0, 255)] * 2, ["0 (50.00%), 255", "data.ignore [255]"]),
    "colours in a run of ids": ([ids(0, 1)] * 3, {}, [in_color(0, 1)] * 2, ["2 colours", "data.palette"]),
    "colours in a run of three": ([ids(0, 1, 2)] * 3, {}, [in_color(0, 1, 2)] * 2, ["3 colours", "data.palette"]),
    "ids in a black and white run": (
        [ids(0, 255)] * 3,
        {},
        [ids(0, 1)] * 2,
        ["0.png", "[1, 1, 1]"],
    ),
    "another colour": ([in_color(0, 1)] * 3, RED, [in_color(0, 2)] * 2, ["0.png", "[0, 128, 0]"]),
    "soft colours": ([in_color(0, 1)] * 3, RED, [SOFT_RED] * 2, ["0.png", "data.palette"]),
    "more ids": ([ids(0, 1, 2)] * 3, {}, [ids(0, 1, 3), ids(0, 1, 2)], ["0.png", "out of range 0 to 2"]),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_masks_that_do_not_fit_are_refused(name: str, tmp_path: Path, refuses: Any) -> None:
    own, options, masks, phrases = ELSEWHERE[name]
    put(tmp_path / "own", *own), put(tmp_path / "other", *masks)
    run, _ = begun(Folder(tmp_path / "own/images", tmp_path / "own/masks", **options), tmp_path / "run")
    for place in (run, run / "model"):
        with refuses(*phrases):
            scored(place, images=tmp_path / "other/images", masks=tmp_path / "other/masks")
        with refuses(*phrases):
            truth(place, tmp_path / "other/masks/0.png")


def test_what_the_command_declares_wins(tmp_path: Path, capsys: Capture) -> None:
    put(tmp_path / "own", *[ids(0, 1)] * 3), put(tmp_path / "other", ids(0, 255))
    own = Folder(tmp_path / "own/images", tmp_path / "own/masks")
    (run, _), (second, _) = (begun(own, tmp_path / name) for name in ("run", "second"))
    mask, white = tmp_path / "other/masks/0.png", {"palette": [BLACK, WHITE]}
    np.testing.assert_array_equal(truth(run, mask, **white), ids(0, 1))
    np.testing.assert_array_equal(truth(run, mask, ignore=[255]), ids(0, 255))
    argv = ["inspect", run, tmp_path / "other/images/0.png", "--truth", mask, "--out", tmp_path / "page.html"]
    assert "data.palette" in error_of(capsys, *argv)
    output_of(capsys, *argv, "--data.palette", "[[0,0,0],[255,255,255]]")
    other = [f"--data.images={tmp_path / 'other/images'}", f"--data.masks={tmp_path / 'other/masks'}", "--workers=0"]
    assert "data.palette" in error_of(capsys, "compare", run, second, *other)
    for command in (["evaluate", run], ["compare", run, second]):
        output_of(capsys, *command, *other, "--data.palette", "[[0,0,0],[255,255,255]]", "--bootstrap=0")
    put(tmp_path / "red", *[in_color(0, 1)] * 3)
    run, _ = begun(Folder(tmp_path / "red/images", tmp_path / "red/masks", **RED), tmp_path / "colors")
    put(tmp_path / "soft_red", SOFT_RED)
    there = {"images": tmp_path / "soft_red/images", "masks": tmp_path / "soft_red/masks"}
    np.testing.assert_array_equal(scored(run, **there, palette_tolerance=64)["0.png"], SOFT_RED[..., 0] > 64)


def test_masks_in_the_ids_of_a_merged_model(tmp_path: Path, capsys: Capture, refuses: Any) -> None:
    put(tmp_path / "own", *[ids(0, 1, 2, 3)] * 3), put(tmp_path / "merged", *[ids(0, 1)] * 2)
    options = {"classes": ["ground", "void", "car", "bus"], "merge": {"vehicle": ["car", "bus"]}, "drop": ["void"]}
    run, _ = begun(Folder(tmp_path / "own/images", tmp_path / "own/masks", **options), tmp_path / "run")
    scored(run)
    assert "data.merge" not in capsys.readouterr().err
    there = {"root": tmp_path / "merged"}
    scored(run, **there)
    error = capsys.readouterr().err
    assert "data.classes '[ground,vehicle]', data.merge '{}' and data.drop '[]'" in error
    labels = scored(run, **there, classes="[ground,vehicle]", merge="{}", drop="[]")
    np.testing.assert_array_equal(labels["0.png"], ids(0, 1))
    assert "data.merge" not in capsys.readouterr().err
    (tmp_path / "merged/classes.txt").write_text("ground\nvehicle\n")
    with refuses("there is no class"):
        scored(run, **there)
    assert "data.merge '{}'" in capsys.readouterr().err


def test_classes_in_another_order_are_refused(
    tmp_path: Path, refuses: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, classes in {"own": "sky road tree", "turned": "sky tree road", "renamed": "sky street tree"}.items():
        put(tmp_path / name, *[ids(0, 1, 2)] * 3)
        (tmp_path / name / "classes.txt").write_text(classes.replace(" ", "\n"))
    run, _ = begun(Folder(root=tmp_path / "own"), tmp_path / "run")
    (tmp_path / "own/classes.txt").unlink()  # the run knows them
    for model in (run, run / "model"):
        with refuses("'road'", "1 and 2", "data.classes"):
            crispseg.evaluate(model, tmp_path / "turned", bootstrap=0, workers=0)
    monkeypatch.chdir(tmp_path / "renamed")  # its classes.txt is not that of other folders
    scored(run / "model", images=tmp_path / "turned/images", masks=tmp_path / "turned/masks")  # names are the run's
    assert "different names" not in capsys.readouterr().err
    scored(run, root=tmp_path / "renamed")
    assert "different names" in capsys.readouterr().err


@pytest.mark.parametrize(("model", "values"), [("aerial", [0, 1, 4, 15]), ("leaf", [0, 1, 2]), ("nuclei", [0, 7])])
def test_masks_for_bundled_models(model: str, values: list[int], tmp_path: Path) -> None:
    """They record no folder; masks are those of their data, which are instance masks for nuclei."""
    file = tmp_path / "mask.png"
    Image.fromarray(np.repeat(np.array(values, np.uint8), 20)[None].repeat(20, 0)).save(file)
    expected = {"nuclei": [0, 1], "aerial": [0, 1, 4, 255]}.get(model, values)
    np.testing.assert_array_equal(read_truth(read_info(model), file, {})[0, ::20], expected)
