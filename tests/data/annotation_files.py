"""Files as labelling tools write them; a shape has 24 pixels of an image of 12 × 16."""

import json
from collections.abc import Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from dataset_trees import picture
from numpy.typing import NDArray

HEIGHT, WIDTH = 12, 16
CORNERS = [(2, 1), (8, 1), (8, 5), (2, 5)]
SQUARE = np.zeros((HEIGHT, WIDTH), np.uint8)
SQUARE[1:5, 2:8] = 1
RING = [[*CORNERS, CORNERS[0]]]
PERCENT = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in CORNERS]
POLYGON = '<polygon label="car" source="manual" occluded="0" points="2.00,1.00;8.00,1.00;8.00,5.00;2.00,5.00" {}/>'
TUMOR = {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}, "isLocked": False}
NAMES = ((7, "cat"), (3, "dog"))


def written(root: Path, files: dict[str, str], images: Sequence[str]) -> Path:
    """Write annotations and pictures to a folder."""
    for image in images:
        picture(root / image, HEIGHT, WIDTH)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def box(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def coco(
    annotations: Sequence[dict[str, Any]] | None = None,
    images: Sequence[tuple[int, str]] = ((10, "a.jpg"),),
    categories: Sequence[tuple[int, str]] = NAMES,
) -> str:
    """COCO's file, by default with a shape in each image, of the categories in turn."""
    if annotations is None:
        pairs = zip(images, cycle(categories), strict=False)
        shape = [[coordinate for corner in CORNERS for coordinate in corner]]
        annotations = [{"image_id": image, "category_id": cat, "segmentation": shape} for (image, _), (cat, _) in pairs]
    entries = [{"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH} for number, name in images]
    shapes = [{"id": 100 + index, "image_id": 10, **entry} for index, entry in enumerate(annotations)]
    classes = [{"id": number, "name": name} for number, name in categories]
    return json.dumps({"images": entries, "annotations": shapes, "categories": classes})


def shape(label: str, points: list[Any], kind: str | None = "polygon", **more: Any) -> dict[str, Any]:
    """A shape of labelme."""
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


def labelme(shapes: list[dict[str, Any]], image: str = "a.jpg", **more: Any) -> str:
    tree = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None}
    return json.dumps({**tree, "imageHeight": HEIGHT, "imageWidth": WIDTH, **more})


CAR = shape("car", CORNERS)


def cvat(shapes: str = POLYGON.format(""), images: Sequence[str] = ("a.jpg",)) -> str:
    """CVAT for images 1.1, with these shapes in each image."""
    names = "".join(
        f'<image id="{index}" name="{name}" subset="Train" task_id="{index}" width="16" height="12">{shapes}</image>'
        for index, name in enumerate(images)
    )
    labels = "<label><name>wheel</name><color>#ff0000</color></label><label><name>car</name><type>any</type></label>"
    point = "<label><name>1</name><type>points</type><parent>s1</parent></label>"
    task = f"<task><id>4</id><mode>annotation</mode><labels>{labels}{point}</labels></task>"
    return f"<annotations><version>1.1</version><meta>{task}</meta>{names}</annotations>"


def region(kind: str = "polygonlabels", value: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A result of Label Studio, by default of a polygon that is a car."""
    head = {"id": "x", "type": kind, "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    value = {"points": PERCENT, "closed": True, "polygonlabels": ["car"]} if value is None else value
    return {**head, "from_name": "label", "to_name": "image", "value": value, **more}


def brush(mask: NDArray[Any]) -> list[int]:
    """Run lengths as in label_studio_converter: RGBA, sizes of 3, 4, 8 and 16 bits; a single value is no run."""
    values, bits = np.repeat(mask.ravel() * 255, 4), ""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    for start, end in pairwise(edges):
        size = next(size for size in (3, 4, 8, 16) if end - start <= 1 << size)
        bits += f"1{(3, 4, 8, 16).index(size):02b}{end - start - 1:0{size}b}{values[start]:08b}"
    bits = f"{len(values) + 4:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16)) + bits
    bits += f"0{0:02b}{3:03b}" + f"{255:08b}" * 4  # a fourth kind: values one by one
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def task(data: str | dict[str, Any], *results: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A task of Label Studio, of an image or of other data."""
    data = {"title": "x", "image": data} if isinstance(data, str) else data
    return {"id": 1, "data": data, "annotations": [{"result": result} for result in results], **more}


def feature(properties: Any = TUMOR, kind: str = "Polygon", coordinates: Any = RING) -> dict[str, Any]:
    """A feature of QuPath's GeoJSON."""
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


def relative(points: Sequence[tuple[float, float]], number: int = 0) -> str:
    """A line of YOLO's polygons."""
    return " ".join([str(number), *(f"{x / WIDTH:.9f} {y / HEIGHT:.9f}" for x, y in points)]) + "\n"


YOLO = relative(CORNERS)
