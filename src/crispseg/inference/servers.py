"""Predictions as the evaluation servers of Cityscapes, ADE20K and PASCAL VOC take them."""

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
    """Names, values and colours of the files that the evaluation server of a benchmark accepts.

    Args:
        source: name of the data source whose classes are the server's.
        file: from an image's path to that of its prediction, inside the folder to submit.
        palette: colours of the values, for palette PNGs; None for grey ones.
    """

    source: str
    file: Callable[[Path], Path]
    palette: tuple[Color, ...] | None = None

    def classes(self) -> dict[str, int]:
        """Return the pixel value of each of the server's classes, in the order of the class ids."""
        from crispseg.data import official_classes  # other predictions need no data sources

        return {each.name: each.value for each in official_classes(self.source)}

    def check(self, info: ModelInfo) -> None:
        """Raise a CrispsegError if a model has another number of classes, and warn if they have other names."""
        names = tuple(self.classes())
        if info.num_classes != len(names):
            has = f"the model has {info.num_classes} classes, but {self.source} has {len(names)}"
            raise CrispsegError(f"{has}; give a model that was trained on it")
        if info.class_names not in ((), names):
            given = ", ".join(info.class_names)
            note = f"the model's classes are {given}; they are taken to be those of {self.source}, in the same order"
            warnings.warn(note, CrispsegWarning, stacklevel=2)

    def save(self, folder: str | Path, image: Path, labels: NDArray[np.uint8], made_of: str = "") -> Path:
        """Write the class ids `(H, W)` of an image as the server's values. Returns the path."""
        path = Path(folder) / self.file(image)
        values = np.array([*self.classes().values()], np.uint8).take(labels)
        if self.palette is None:
            write_image(path, values, made_of)
        else:
            write_labels(path, values, self.palette, made_of)
        return path


def _cityscapes_file(image: Path) -> Path:
    """The server and cityscapesscripts look for `CITY_SEQUENCE_FRAME*.png` in any folder, and for one file only."""
    found = re.fullmatch(r"(.+_\d{6}_\d{6})(_leftImg8bit)?", image.stem)
    if found is None:
        raise CrispsegError(f"{image} is not named as Cityscapes names images, CITY_000000_000019_leftImg8bit.png")
    return Path(f"{found[1]}_labelIds.png")


VOC_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
"""comp6 is for models that saw more than VOC's own images, as ImageNet weights do; rename it to comp5 for others."""
SERVERS: dict[str, ServerFormat] = {
    "cityscapes": ServerFormat("cityscapes", _cityscapes_file),
    "ade20k": ServerFormat("ade20k", lambda image: Path(f"{image.stem}.png")),
    "voc": ServerFormat("voc2012", lambda image: Path(VOC_FOLDER, f"{image.stem}.png"), voc_palette(255)),
}
