"""Sound text files that people write by hand or export, and how crispseg reads them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from crispseg.config.yaml_files import read_yaml
from crispseg.data.importing import import_annotations
from crispseg.folders.names import read_names
from crispseg.folders.palettes import read_palette
from fuzz.readers import Reader

SQUARE = [[1, 1], [9, 1], [9, 9], [1, 9], [1, 1]]
FEATURE = {
    "type": "Feature",
    "properties": {"classification": {"name": "Tumor", "color": [200, 0, 0]}},
    "geometry": {"type": "Polygon", "coordinates": [SQUARE]},
}
YOLO_DATA = b"path: .\ntrain: images\nnames:\n  0: dog\n  1: cat\n"
YOLO_LABELS = b"0 0.1 0.1 0.9 0.1 0.9 0.9\n1 0.2 0.2 0.4 0.2 0.4 0.4\n"
SETTINGS = (
    b"model: {name: fpn, width: 8}\ndata: {name: folder, images: a, masks: b}\nepochs: 3\nloss: {ce: 1, dice: 1}\n"
)
PALETTES = {
    "palette.csv": b"name,r,g,b\nroad,128,64,128\ncar,0,0,142\n",
    "palette.txt": b"128 64 128 road\n0 0 142 car\n",
    "palette.json": json.dumps({"road": [128, 64, 128], "car": [0, 0, 142]}).encode(),
    "palette.yaml": b"road: [128, 64, 128]\ncar: [0, 0, 142]\n",
}


def text_readers() -> dict[str, Reader]:
    """Return the readers by kind."""
    kinds: dict[str, tuple[dict[str, bytes], Callable[[Path], Any]]] = {
        "GeoJSON": (
            {"a.geojson": json.dumps({"type": "FeatureCollection", "features": [FEATURE]}).encode()},
            import_one,
        ),
        "YOLO": ({"data.yaml": YOLO_DATA, "a.txt": YOLO_LABELS}, import_yolo),
        "settings": ({"config.yaml": SETTINGS}, read_yaml),
        "palettes": (PALETTES, read_palette),
        "names": ({"names.txt": b"0 road\n1 car\n2 sky\n"}, read_names),
    }
    return {kind: Reader(seeds, read, text=True) for kind, (seeds, read) in kinds.items()}


def import_one(path: Path) -> None:
    Image.new("RGB", (32, 24)).save(path.with_name("a.png"))
    import_annotations([path], path.parent / "out")


def import_yolo(path: Path) -> None:
    """Import a folder with the file at its place, among sound ones."""
    folder = path.parent / f"{path.stem} of YOLO"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    Image.new("RGB", (32, 24)).save(folder / "images/a.png")
    files = {"data.yaml": YOLO_DATA, "a.txt": YOLO_LABELS, path.name: path.read_bytes()}
    (folder / "data.yaml").write_bytes(files["data.yaml"])
    (folder / "labels/a.txt").write_bytes(files["a.txt"])
    import_annotations([folder], folder / "masks")
