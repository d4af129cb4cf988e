"""CVAT for images 1.1: https://docs.cvat.ai/docs/dataset_management/formats/format-xml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from crispseg.data.annotations import Annotations, MarkedImage, Outlined, Pixels, Shape, draw_mask, draw_outlines
from crispseg.errors import CrispsegError, one_line
from crispseg.labels import LabelSet

EXPORT = "export 'CVAT for images 1.1'"


def read_cvat(path: Path) -> Annotations:
    """Read polygons, masks and boxes of images."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # or an unknown encoding
        raise CrispsegError(f"{path} is not XML ({one_line(error)}); export it again") from None
    others = {"annotation": "has boxes of PASCAL VOC", "annotations": "has tracks of a video"}
    if root.tag != "annotations" or root.find("track") is not None:
        raise CrispsegError(f"{path} {others.get(root.tag, 'is not an annotation file of CVAT')}; {EXPORT}")
    labels = [each for each in root.iterfind(".//labels/label") if each.find("parent") is None]
    names = dict.fromkeys(each.findtext("name", "") for each in labels)
    marked = []
    for element in root.iterfind("image"):
        what = f"{path}: image {element.get('name')}"
        try:
            size = int(element.attrib["height"]), int(element.attrib["width"])
            shapes = [_shape(f"{what}: {one.tag}", one.tag, one.attrib) for one in element if one.tag != "tag"]
            marked.append(MarkedImage(element.attrib["name"], path, size, shapes, split=element.get("subset", "")))
        except (LookupError, ValueError) as error:
            raise CrispsegError(f"{what} is incomplete or wrong ({one_line(error)}); export it again") from None
        names |= dict.fromkeys(shape.label for shape in shapes)
    return Annotations(tuple(marked), tuple(names))


def write_cvat(folder: Path, images: Iterable[Outlined], classes: LabelSet) -> None:
    """Write annotations.xml, with polygons."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for name in classes.foreground:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    for number, image in enumerate(images):
        height, width = map(str, image.labels.shape)
        head = {"id": str(number), "name": image.file_name, "width": width, "height": height}
        element = ElementTree.SubElement(root, "image", head)
        for name, ring in image.polygons():
            shape = {"label": name, "source": "auto", "occluded": "0", "z_order": "0"}
            ElementTree.SubElement(element, "polygon", {**shape, "points": ";".join(f"{x},{y}" for x, y in ring)})
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(folder / "annotations.xml", encoding="utf-8", xml_declaration=True)


def _shape(what: str, kind: str, at: Mapping[str, str]) -> Shape:
    what = f"{what} '{at['label']}'"
    if kind == "polygon":
        points = [[float(value) for value in point.split(",")] for point in at["points"].split(";")]
        draw = partial(draw_outlines, kind, [points])
    elif kind == "box" and not float(at.get("rotation", 0)):
        box = [(float(at["xtl"]), float(at["ytl"])), (float(at["xbr"]), float(at["ybr"]))]
        draw = partial(draw_outlines, "rectangle", [box])
    elif kind == "mask":
        runs = [int(count) for count in at["rle"].split(",")]
        left, top, width, height = (int(at[key]) for key in ("left", "top", "width", "height"))
        draw = partial(_draw_runs, runs, (height, width), left, top)
    else:
        raise CrispsegError(f"{what} is not a polygon, mask or upright box; draw it as one of them, or remove it")
    return Shape(what, at["label"], draw, z_order=int(at.get("z_order", 0)))


def _draw_runs(runs: list[int], box: tuple[int, int], left: int, top: int, height: int, width: int) -> Pixels:
    """Return the pixels of run lengths in a box, which alternate between 0 and 1, row by row."""
    if sum(runs) != box[0] * box[1] or min(runs) < 0:
        raise ValueError(f"its rle covers {sum(runs)} pixels, but its width and height {box[0] * box[1]}")
    return draw_mask(np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(box), left, top, height, width)
