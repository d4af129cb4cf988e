"""Annotations of labelling tools: masks go out and come back, and other tools read them.

datumaro and label-studio-sdk are not in the extra `dev`, since they restrict NumPy, pandas and OpenCV to old versions.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import picture
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from crispseg.data.annotations import Outlined
from crispseg.data.formats import FORMATS, write_annotations
from crispseg.data.importing import import_annotations
from crispseg.io.images import read_mask, write_image
from crispseg.io.polygons import coverage
from crispseg.labels import LabelSet

NAMES = ("background", "cell", "Gefäß & <rand>")
LABELS = LabelSet.colored(NAMES)
SQUARE = np.zeros((12, 16), np.uint8)
SQUARE[1:5, 2:8] = 1
HOLLOW = SQUARE.copy()
HOLLOW[6:12, 2:12], HOLLOW[7:9, 4:6] = 2, 0


def outlined(photo: Path, name: str, mask: NDArray[np.uint8], folder: Path, classes: LabelSet) -> Outlined:
    names = {classes.index(name): name for name in classes.foreground}
    return Outlined(photo, name, mask, folder, names, coverage(mask, 0))


def returned(kind: str, masks: dict[str, NDArray[np.uint8]], folder: Path) -> dict[str, NDArray[np.uint8]]:
    """What masks are after they were written and imported."""
    photos, out = folder / "photos", folder / "out"
    for name, mask in masks.items():
        write_image(photos / f"{name}.png", np.zeros((*mask.shape, 3), np.uint8))
    files = [(photos / f"{name}.png", name, mask) for name, mask in masks.items()]
    write_annotations(out / kind, [outlined(*file, out / kind, LABELS) for file in files], LABELS)
    import_annotations([out], folder / "in", images=photos, classes=[*NAMES])
    assert (folder / "in/classes.txt").read_text(encoding="utf-8").splitlines() == [*NAMES]
    return {name: read_mask(folder / f"in/masks/{name}.png") for name in masks}


def odd_mask() -> NDArray[np.uint8]:
    """A ring with an object inside, touching classes, single pixels, corners, the border, and a hole at a corner."""
    mask = np.zeros((19, 23), np.uint8)
    mask[:7, :7], mask[1:6, 1:6], mask[3, 3] = 1, 0, 2
    mask[8:12, 0:6], mask[8:12, 6:12] = 1, 2
    mask[18, 22], mask[0, 22], mask[15, 15], mask[16, 16] = 1, 2, 1, 1
    mask[8:12, 15:19], mask[9, 16], mask[10, 17], mask[8, 15], mask[9:11, 19:] = 1, 0, 0, 0, 2
    mask[14:17, 3:12:2], mask[16, 3:12] = 1, 1
    return mask


any_mask = st_numpy.arrays(
    np.uint8, st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2)
)


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=10)
@given(mask=any_mask, factor=st.integers(1, 3))
@example(mask=odd_mask(), factor=1)
def test_any_mask_returns(
    kind: str, mask: NDArray[np.uint8], factor: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    masks = {"a #1+2%20ü": mask.repeat(factor, 0).repeat(factor, 1)}
    masks |= {"deep/b": np.full((5, 4), 2, np.uint8), "none": np.zeros((4, 5), np.uint8)}
    for name, result in returned(kind, masks, tmp_path_factory.mktemp("any")).items():
        np.testing.assert_array_equal(result, masks[name])


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Write two masks, one with a hole, in a format, with copies of the images where the format expects them."""
    masks = {"a": SQUARE, "b": HOLLOW}
    for name in masks:
        picture(tmp_path / f"photos/{name}.png", *SQUARE.shape)

    def write(kind: str) -> Path:
        files = [(tmp_path / f"photos/{name}.png", name, mask) for name, mask in masks.items()]
        classes = LabelSet.colored(["background", "car", "wheel"])
        write_annotations(tmp_path / kind, [outlined(*file, tmp_path / kind, classes) for file in files], classes)
        shutil.copytree(tmp_path / "photos", tmp_path / kind / "images")
        return tmp_path / kind

    return write


def test_pycocotools_reads_ours(written: Callable[[str], Path]) -> None:
    from pycocotools.coco import COCO

    coco = COCO(str(written("coco") / "annotations/instances_default.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["car", "wheel"]
    areas = [(shape["area"], int(coco.annToMask(shape).sum()), shape["bbox"]) for shape in coco.anns.values()]
    assert areas == [(24, 24, [2, 1, 6, 4])] * 2 + [(56, 56, [2, 6, 10, 6])]


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_supervision_reads_ours(kind: str, written: Callable[[str], Path]) -> None:
    supervision = pytest.importorskip("supervision")
    root = written(kind)
    if kind == "coco":
        read = supervision.DetectionDataset.from_coco(
            str(root / "images"), str(root / "annotations/instances_default.json"), True
        )
    else:
        places = str(root / "images"), str(root / "labels"), str(root / "data.yaml")
        read = supervision.DetectionDataset.from_yolo(*places, force_masks=True)
    assert read.classes == ["car", "wheel"] and len(read) == 2
    by_image = {Path(path).stem: detections for path, _, detections in read}
    assert by_image["a"].class_id.tolist() == [0] and by_image["b"].class_id.tolist() == [0, 1]
    inner = np.zeros_like(SQUARE, bool)
    inner[2:4, 3:7] = True  # OpenCV also draws the pixels beyond right and lower edges
    assert (by_image["a"].mask[0] & inner).sum() == inner.sum() and by_image["a"].mask[0].sum() <= 35
