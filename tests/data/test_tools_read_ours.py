"""Annotations that we write, as tools of the registries read them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import picture
from numpy.typing import NDArray

from crispseg.data.formats import write_annotations
from crispseg.labels import LabelSet

from .test_labelling_tools import HEIGHT, SQUARE, WIDTH


def hollow() -> NDArray[np.uint8]:
    mask = SQUARE.copy()
    mask[6:12, 2:12], mask[7:9, 4:6] = 2, 0
    return mask


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Write two masks, one with a hole, in a format, with copies of the images where the format expects them."""
    masks = {"a": SQUARE, "b": hollow()}
    for name in masks:
        picture(tmp_path / f"photos/{name}.png", HEIGHT, WIDTH)

    def write(kind: str) -> Path:
        files = [(tmp_path / f"photos/{name}.png", name, mask) for name, mask in masks.items()]
        write_annotations(tmp_path / kind, files, LabelSet.colored(["background", "car", "wheel"]))
        shutil.copytree(tmp_path / "photos", tmp_path / kind / "images")
        return tmp_path / kind

    return write


def test_pycocotools_reads_ours(written: Callable[[str], Path]) -> None:
    from pycocotools.coco import COCO

    found = COCO(str(written("coco") / "annotations/instances_default.json"))
    assert [each["name"] for each in found.loadCats(found.getCatIds())] == ["car", "wheel"]
    areas = [(each["area"], int(found.annToMask(each).sum()), each["bbox"]) for each in found.anns.values()]
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
    found = {Path(path).stem: detections for path, _, detections in read}
    assert found["a"].class_id.tolist() == [0] and found["b"].class_id.tolist() == [0, 1]
    inner = np.zeros_like(SQUARE, bool)
    inner[2:4, 3:7] = True  # OpenCV also draws the pixels beyond right and lower edges
    assert (found["a"].mask[0] & inner).sum() == inner.sum() and found["a"].mask[0].sum() <= 35
