"""CVAT for images 1.1: https://docs.cvat.ai/docs/dataset_management/formats/format-xml."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from crispseg.data.annotations import (
    Annotations,
    MarkedImage,
    Outlined,
    Shape,
    Spans,
    check_within,
    draw_mask,
    draw_outlines,
)
from crispseg.errors import CrispsegError
from crispseg.labels import LabelSet


def read_cvat(path: Path, root: ElementTree.Element) -> Annotations:
    """Read polygons, masks and boxes of images."""
    if root.tag != "annotations" or root.find("track") is not None:
        raise CrispsegError(f"{path} has tracks of a video, or boxes of PASCAL VOC; export 'CVAT for images 1.1'")
    labels = [label for label in root.iterfind(".//labels/label") if label.find("parent") is None]
    names = dict.fromkeys(label.findtext("name", "") for label in labels)
    marked = []
    for element in root.iterfind("image"):
        name, size = element.attrib["name"], (int(element.attrib["height"]), int(element.attrib["width"]))
        shapes = [_shape(f"{path}: image {name}", child) for child in element if child.tag != "tag"]
        entry = f"{path}: image {element.get('id')} (task {element.get('task_id', '0')})"
        marked.append(MarkedImage(name, path, size, shapes, split=element.get("subset", ""), entry=entry))
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


def _shape(image: str, element: ElementTree.Element) -> Shape:
    kind, attributes = element.tag, element.attrib
    name = f"{image}: {kind} '{attributes['label']}'"
    if kind == "polygon":
        points = [point.split(",") for point in attributes["points"].split(";")]
        draw = partial(draw_outlines, kind, [points])
    elif kind == "box" and not float(attributes.get("rotation", 0)):
        corners = [[attributes["xtl"], attributes["ytl"]], [attributes["xbr"], attributes["ybr"]]]
        draw = partial(draw_outlines, "rectangle", [corners])
    elif kind == "mask":
        runs = [int(count) for count in attributes["rle"].split(",")]
        left, top, width, height = (int(attributes[key]) for key in ("left", "top", "width", "height"))
        draw = partial(_draw_runs, runs, (height, width), left, top)
    else:
        raise CrispsegError(f"{name} is not a polygon, mask or upright box; draw it as one of them, or remove it")
    return Shape(name, attributes["label"], draw, z_order=int(attributes.get("z_order", 0)))


def _draw_runs(runs: list[int], box: tuple[int, int], left: int, top: int, height: int, width: int) -> Spans:
    """Return the pixels of run lengths in a box, which alternate between 0 and 1, row by row."""
    check_within(left, top, *box, height, width)
    return draw_mask(np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(box), left, top, height)
