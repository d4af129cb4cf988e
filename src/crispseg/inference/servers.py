"""Predictions in the formats of the evaluation servers of Cityscapes, ADE20K and PASCAL VOC."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError, CrispsegWarning
from crispseg.io.images import write_image, write_labels
from crispseg.labels import Color, voc_palette
from crispseg.models import ModelInfo


@dataclass(frozen=True)
class ServerFormat:
    """File names, values and colours that the evaluation server of a benchmark accepts.

    Args:
        source: name of the data source with the classes of the server.
        file: function from an image path to the path of its prediction in the submitted folder.
        palette: colours of the values for palette PNGs; None for grey PNGs.
    """

    source: str
    file: Callable[[Path], Path]
    palette: tuple[Color, ...] | None = None

    def classes(self) -> dict[str, int]:
        """Return the pixel value of each of the server's classes, in the order of the class ids."""
        from crispseg.data import official_classes  # imported here, because other predictions need no data sources

        return {entry.name: entry.value for entry in official_classes(self.source)}

    def check(self, info: ModelInfo) -> None:
        """Raise a CrispsegError if the number of classes differs, and warn if class names differ."""
        names = tuple(self.classes())
        if info.num_classes != len(names):
            has = f"the model has {info.num_classes} classes, but {self.source} has {len(names)}"
            raise CrispsegError(f"{has}; give a model that was trained on it")
        if info.class_names not in ((), names):
            given = ", ".join(info.class_names)
            note = f"the model's classes are {given}; they are assumed to be those of {self.source} in the same order"
            warnings.warn(note, CrispsegWarning, stacklevel=2)

    def save(self, folder: str | Path, image: Path, labels: NDArray[np.uint8], made_of: str = "") -> Path:
        """Write the class ids `(H, W)` of an image as values of the server, and return the path."""
        path = Path(folder) / self.file(image)
        values = np.array([*self.classes().values()], np.uint8).take(labels)
        if self.palette is None:
            write_image(path, values, made_of)
        else:
            write_labels(path, values, self.palette, made_of)
        return path


def _cityscapes_file(image: Path) -> Path:
    """Return the file name for the server, which expects one `CITY_SEQUENCE_FRAME*.png` in any folder."""
    parts = re.fullmatch(r"(.+_\d{6}_\d{6})(_leftImg8bit)?", image.stem)
    if parts is None:
        raise CrispsegError(f"{image} has no Cityscapes name, such as CITY_000000_000019_leftImg8bit.png")
    return Path(f"{parts[1]}_labelIds.png")


VOC_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
"""Folder for VOC; comp6 is for models with other training data, such as ImageNet weights, and comp5 for others."""
SERVERS: dict[str, ServerFormat] = {
    "cityscapes": ServerFormat("cityscapes", _cityscapes_file),
    "ade20k": ServerFormat("ade20k", lambda image: Path(f"{image.stem}.png")),
    "voc": ServerFormat("voc2012", lambda image: Path(VOC_FOLDER, f"{image.stem}.png"), voc_palette(255)),
}
