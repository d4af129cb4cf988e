"""Instance masks of one's own: their three classes, the numbers that are kept, and a run from the command line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import save
from numpy.typing import NDArray
from PIL import Image

from crispseg.data import FileDataset, Folder
from crispseg.data.examination import check_split, examine
from crispseg.folders.lookup import three_classes

NAMES = ["background", "nucleus", "border"]


def cells(seed: int, most: int = 900) -> NDArray[np.int32]:
    """Boxes that touch, `(64, 64)`, with numbers far between."""
    ids = np.kron(np.random.default_rng(seed).permutation(16).reshape(4, 4), np.ones((16, 16))).astype(np.int32)
    return np.where(ids > 9, 0, ids * (most // 9))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Images in `photos`, and instance masks of 16 bits in `numbered`."""
    for index in range(4):
        ids = cells(index)
        save(tmp_path / f"photos/{index}.png", np.repeat((ids > 0)[..., None] * np.uint8(150), 3, axis=2))
        save(tmp_path / f"numbered/{index}.png", ids.astype(np.uint16))
    return tmp_path


def of(folders: Path, **options: Any) -> Folder:
    return Folder(folders / "photos", instances=folders / "numbered", **options)


def test_masks_are_made_of_them(folders: Path, refuses: Any) -> None:
    source = of(folders)
    assert source.label_set().names == ("background", "object", "border")
    assert of(folders, classes=NAMES).label_set().names == tuple(NAMES)
    for data in (source, source.settled()):
        train = data.dataset("train").with_channels(3)
        assert isinstance(train, FileDataset) and len(train) + len(data.dataset("val")) == 4
        for index, pair in enumerate(train.pairs):
            ids = cells(int(pair.name))
            np.testing.assert_array_equal(train[index].labels, three_classes(ids))
            np.testing.assert_array_equal(train.instances(pair.name), ids)
    assert source.notes() == [] and source.settled().classes is None
    data = examine(source)
    assert data.meaning and data.meaning.labels == source.label_set() and {*data.sizes} == {"train", "val"}


def test_files_of_8_16_and_32_bits_and_of_equal_channels(folders: Path) -> None:
    """Numbers are read alike to train on and to score by."""
    many = np.arange(1, 70_001, dtype=np.int32).reshape(280, 250)
    photo = np.zeros((280, 250, 3), np.uint8)
    save(folders / "photos/4.png", photo)
    Image.fromarray(many).save(folders / "numbered/4.tif")
    grey = cells(1, most=252).astype(np.uint8)
    save(folders / "numbered/1.png", grey)
    save(folders / "numbered/2.png", np.repeat(grey[..., None], 3, axis=2))
    Image.fromarray(cells(3, most=9).astype(np.uint8)).save(folders / "numbered/3.png", bits=4)
    expected = dict(enumerate((cells(0), grey, grey, cells(3, most=9), many)))
    for index in expected:
        save(folders / f"masks/{index}.png", np.minimum(expected[index], 1).astype(np.uint8))
    masks = Folder(folders / "photos", folders / "masks", instances=folders / "numbered", num_classes=2)
    for data in (of(folders).dataset("all"), masks.dataset("all")):
        for index, ids in expected.items():
            numbers = data.instances(str(index))
            assert numbers is not None and numbers.dtype == np.int32
            np.testing.assert_array_equal(numbers, ids)
    for index, ids in expected.items():
        np.testing.assert_array_equal(of(folders).dataset("all")[index].labels, three_classes(ids))


def test_what_cannot_be_meant(folders: Path, refuses: Any) -> None:
    with refuses("data.classes 2, data.instances 3; make them agree"):
        of(folders, classes=["background", "nucleus"]).label_set()
    for options in ({"palette": [(0, 0, 0)] * 3}, {"ignore": (255,)}):
        with refuses("data.palette and data.ignore apply to data.masks; leave them out"):
            of(folders, **options)
    path = folders / "numbered/0.tif"
    (folders / "numbered/0.png").unlink()
    for values, reason in (
        (np.full((64, 64), 2**24 + 1, np.int32), "int32 values from 16777217 to 16777217, not whole numbers from 0 to"),
        (np.full((64, 64), 0.5, np.float32), "float32 values from 0.5 to 0.5, not whole numbers"),
    ):
        save(path, values)
        for read in (lambda: of(folders).dataset("all")[0], lambda: of(folders).dataset("all").instances("0")):
            with refuses(f"{path} contains {reason}"):
                read()
    save(path, np.arange(64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8))
    with refuses(f"{path}: an RGB mask", "give an instance mask, 0 and a number for each object"):
        of(folders).dataset("all").instances("0")
    with refuses("1 mask with colours", str(path)):
        check_split(of(folders).dataset("all"), "all")
