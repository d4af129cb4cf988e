"""Annotations that we write, as tools of the registries read them.

datumaro and label-studio-sdk are not in the extra `dev`, since they restrict NumPy, pandas and OpenCV to old versions.
"""

from __future__ import annotations

import json
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


def test_datumaro_reads_ours_of_cvat(written: Callable[[str], Path]) -> None:
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed: pip install datumaro")
    read = datumaro.Dataset.import_from(str(written("cvat")), "cvat")
    names = [each.name for each in read.categories()[datumaro.AnnotationType.label]]
    found = {item.id: [(names[each.label], *each.get_bbox()) for each in item.annotations] for item in read}
    assert found == {"a": [("car", 2, 1, 6, 4)], "b": [("car", 2, 1, 6, 4), ("wheel", 2, 6, 10, 6)]}


def test_label_studio_reads_ours(written: Callable[[str], Path], tmp_path: Path) -> None:
    """Our predictions, accepted as annotations, become COCO by Label Studio's own converter."""
    reason = "label-studio-sdk is not installed: pip install label-studio-sdk"
    converter = pytest.importorskip("label_studio_sdk.converter.converter", reason=reason)
    from pycocotools.coco import COCO

    tasks = json.loads((written("labelstudio") / "tasks.json").read_text())
    for number, task in enumerate(tasks):
        task |= {"id": number, "annotations": [{"id": number, **prediction} for prediction in task.pop("predictions")]}
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    labels = '<PolygonLabels name="label" toName="image"><Label value="car"/><Label value="wheel"/></PolygonLabels>'
    config = f'<View><Image name="image" value="$image"/>{labels}</View>'
    tool = converter.Converter(config, str(tmp_path), download_resources=False)
    tool.convert_to_coco(str(tmp_path / "export.json"), str(tmp_path / "read"), is_dir=False)
    found = COCO(str(tmp_path / "read/result.json"))
    names = {each["id"]: each["name"] for each in found.loadCats(found.getCatIds())}
    regions = found.anns.values()
    read = [(each["image_id"], names[each["category_id"]], int(found.annToMask(each).sum())) for each in regions]
    assert read == [(0, "car", 24), (1, "car", 24), (1, "wheel", 56)]
