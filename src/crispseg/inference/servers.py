"""Predictions in the format of a benchmark's server, which keeps the masks of its test images to itself."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crispseg.data import official_classes
from crispseg.errors import CrispsegError, CrispsegWarning
from crispseg.io.images import write_image, write_labels
from crispseg.labels import Color, voc_palette
from crispseg.models import ModelInfo

VOC_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
"""comp6 is for models that saw more than VOC's own images, as ImageNet weights do; rename it to comp5 for others."""


@dataclass(frozen=True)
class ServerFormat:
    """Files as a server takes them.

    Args:
        data: what the server calls its data.
        names: names of its classes, in the order of the class ids.
        values: the pixel value of each class.
        file: from an image's path to that of its prediction, inside the folder to submit.
        palette: colours of the values, for palette PNGs; None for grey ones.
    """

    data: str
    names: tuple[str, ...]
    values: tuple[int, ...]
    file: Callable[[Path], Path]
    palette: tuple[Color, ...] | None = None

    def check(self, info: ModelInfo) -> None:
        """Make sure that a model has the server's number of classes, and warn if they have other names.

        Raises:
            CrispsegError: another number of classes.
        """
        if info.num_classes != len(self.names):
            raise CrispsegError(
                f"the model has {info.num_classes} classes, but {self.data} has {len(self.names)}; give a model that "
                "was trained on it"
            )
        if info.class_names not in ((), self.names):
            warnings.warn(
                f"the model's classes are {', '.join(info.class_names)}; those of {self.data} have other names, and "
                "are taken to come in the same order",
                CrispsegWarning,
                stacklevel=2,
            )

    def save(self, folder: str | Path, image: Path, labels: NDArray[np.uint8]) -> Path:
        """Write the class ids `(H, W)` of an image as the server's values. Returns the path.

        Raises:
            CrispsegError: the image's name is not one of the data, or the folder cannot be written.
        """
        path = Path(folder) / self.file(image)
        values = np.array(self.values, np.uint8).take(labels)
        if self.palette is None:
            write_image(path, values)
        else:
            write_labels(path, values, self.palette)
        return path


def _cityscapes_file(image: Path) -> Path:
    """The server and cityscapesscripts look for `CITY_SEQUENCE_FRAME*.png` in any folder, and for one file only."""
    found = re.fullmatch(r"(.+_\d{6}_\d{6})(_leftImg8bit)?", image.stem)
    if found is None:
        raise CrispsegError(f"{image} is not named as Cityscapes names images, CITY_000000_000019_leftImg8bit.png")
    return Path(f"{found[1]}_labelIds.png")


def _format(
    source: str, title: str, file: Callable[[Path], Path], palette: tuple[Color, ...] | None = None
) -> ServerFormat:
    """The format of a data source's server."""
    classes = official_classes(source)
    return ServerFormat(title, tuple(one.name for one in classes), tuple(one.value for one in classes), file, palette)


FORMATS: dict[str, ServerFormat] = {
    "cityscapes": _format("cityscapes", "Cityscapes", _cityscapes_file),
    "ade20k": _format("ade20k", "ADE20K", lambda image: Path(f"{image.stem}.png")),
    "voc": _format("voc2012", "PASCAL VOC 2012", lambda image: Path(VOC_FOLDER, f"{image.stem}.png"), voc_palette(255)),
}
