"""Annotations: COCO's and labelme's JSON, imported."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from crispseg.data.importing import Imported, import_annotations
from crispseg.io.images import write_image
from fuzz.kinds import Case, Kind, Lost
from fuzz.mutations import damaged_json
from fuzz.pictures import encoded

HEIGHT, WIDTH = 24, 32


class Annotations(Kind):
    """A JSON file beside the images that it names."""

    images: Sequence[str]

    def __init__(self, place: Path) -> None:
        values = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        for name in self.images:
            write_image(place / name, values)
        self.pictures = {name: (place / name).read_bytes() for name in self.images}
        self.seeds = self.sound_trees()
        for number, tree in enumerate(self.seeds):
            path = place / f"{number}.json"
            path.write_text(json.dumps(tree))
            self._imported(path, place / f"out{number}")

    def sound_trees(self) -> list[dict[str, Any]]:
        """What files of the kind hold."""
        raise NotImplementedError

    def case(self, random: Random, folder: Path) -> Case:
        at = random.randrange(len(self.seeds))
        path = folder / "in/annotations.json"
        path.parent.mkdir()
        for name, content in self.pictures.items():
            (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
            (path.parent / name).write_bytes(content)
        path.write_bytes(damaged_json(random, self.seeds[at]))
        return Case(f"annotations {at}", {"import": lambda: self._imported(path, folder / "out")}, {})

    @staticmethod
    def _imported(path: Path, out: Path) -> int:
        done: Imported = import_annotations([path], out, workers=1)
        written = [[*(out / part).rglob("*.*")] for part in ("images", "masks")]
        if not (out / "classes.txt").is_file() or any(len(files) != done.images for files in written):
            raise Lost(f"{done.images} images were said to be written, but there are {list(map(len, written))}")
        return done.images


class Coco(Annotations):
    name = "COCO"
    images = ("a.png", "b.png", "below/c.png")

    def sound_trees(self) -> list[dict[str, Any]]:
        entries = [
            {"id": 10 + index, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for index, name in enumerate(self.images)
        ]
        found: list[dict[str, Any]] = [
            {"segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]], "category_id": 3, "image_id": 10},
            {"segmentation": [[2.5, 2, 30, 4, 8, 20], [1, 1, 2, 1, 2, 2]], "category_id": 7, "image_id": 11},
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [100, 50, HEIGHT * WIDTH - 150]}, "category_id": 7,
             "image_id": 12, "iscrowd": 1},
            {"segmentation": {"size": [10, 104], "counts": "Xo08X1K"}, "category_id": 7, "image_id": 12},
        ]  # fmt: skip
        tree = {
            "images": entries,
            "annotations": [{"id": 100 + index, **entry} for index, entry in enumerate(found[:3])],
            "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog", "supercategory": "animal"}],
        }
        return [tree, {**tree, "info": {"year": 2026}, "annotations": tree["annotations"][:1]}]


class Labelme(Annotations):
    name = "labelme"
    images = ("a.png",)

    def sound_trees(self) -> list[dict[str, Any]]:
        mask = base64.b64encode(encoded(Image.fromarray(np.ones((4, 5), np.uint8) * 255), "png")).decode()
        shapes = [
            {"label": "tree", "points": [[1, 1], [9, 2], [5, 9]], "shape_type": "polygon", "group_id": None},
            {"label": "pole", "points": [[2, 2], [20, 20]], "shape_type": "rectangle"},
            {"label": "pole", "points": [[9, 9], [12, 12]], "shape_type": "circle"},
            {"label": "leaf", "points": [[3, 3], [7, 6]], "shape_type": "mask", "mask": mask},
            {"label": "leaf", "points": [[3, 3], [7, 6], [8, 8], [4, 4]], "shape_type": "oriented_rectangle"},
        ]
        tree = {"version": "5.4", "imagePath": "a.png", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": shapes}
        return [tree, {"imagePath": "a.png", "imageData": None, "shapes": shapes[:1]}]
