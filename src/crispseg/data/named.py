"""Data sources by name, with their settings; images and masks from memory as files of such a source."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image
from torch import Tensor

from crispseg.config.settings import Field, construct, fields_of
from crispseg.data import DATA_SOURCES, DataSource, Folder
from crispseg.data.catalogue import catalogue
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.io.arrays import image_array, mask_array
from crispseg.io.files import LITTER, writable_folder
from crispseg.io.opening import faults, from_pillow, opened


def write_pairs(images: Iterable[Any], masks: Iterable[Any], folder: Path) -> tuple[Path, Path]:
    """Write images and their masks into a sub-folder that is named after all that they hold.

    Args:
        images: paths, PIL images, or what `image_array` takes.
        masks: as many, in the same order: paths, PIL images, or what `mask_array` takes.
        folder: where that sub-folder is made; if it is there, with the same content, it stays.

    Returns:
        Its folders of images and of masks. Files are numbered; those that were files keep their name behind the number.

    Raises:
        CrispsegError: not as many masks as images, or none; or one is refused, and named by its index.
    """
    images, masks = list(images), list(masks)
    if len(images) != len(masks) or not images:
        raise CrispsegError(f"there are {len(images)} images and {len(masks)} masks; give a mask for each image")
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(prefix=LITTER, dir=writable_folder(folder)) as temporary:
        for kind, sources in (("images", images), ("masks", masks)):
            target = Path(temporary, "pairs", kind)
            target.mkdir(parents=True)
            for index, (image, source) in enumerate(zip(images, sources, strict=True)):
                try:
                    content, suffix = _encoded(source, kind == "masks")
                except CrispsegError as error:
                    raise CrispsegError(f"{kind}[{index}]: {error}") from None
                name = f"{index:05}_{Path(image).stem}" if isinstance(image, str | Path) else f"{index:05}"
                (target / f"{name}{suffix}").write_bytes(content)
                digest.update(f"{name}{suffix} {len(content)} ".encode() + content)
        place = folder / f"pairs-{digest.hexdigest()[:12]}"
        if not place.is_dir():
            Path(temporary, "pairs").rename(place)
    return place / "images", place / "masks"


def _encoded(source: Any, is_mask: bool) -> tuple[bytes, str]:
    """Return the content of a file that is read as the image or mask is, and its suffix."""
    if isinstance(source, str | Path):
        with opened(source):  # what is wrong with it is said in one line
            return Path(source).read_bytes(), Path(source).suffix
    if isinstance(source, Image.Image):
        with faults("the PIL image"):
            raster = from_pillow(source, "the PIL image")
            values, is_color = raster.labels() if is_mask else raster.plain(), raster.color != "bands"
    elif isinstance(source, np.ndarray | Tensor):
        values, is_color = mask_array(source) if is_mask else image_array(source), True
    else:
        raise CrispsegError(f"cannot read a {type(source).__name__}; give paths, PIL images, arrays or tensors")
    values = np.array(values[..., 0] if values.shape[2:] == (1,) else values, order="C")
    if values.ndim == 2 or (values.shape[2] <= 4 and is_color):
        return bytes(imagecodecs.png_encode(values, level=1)), ".png"
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric="minisblack", planarconfig="contig", compression="deflate")
    return file.getvalue(), ".tif"


OWN = ("images", "masks", "instances")
"""Settings that mean own data unless the data that are named have them too."""


def data_source(name: str) -> type[DataSource]:
    """Return the data source of this name.

    Raises:
        CrispsegError: there is none.
    """
    if name in DATA_SOURCES:
        return DATA_SOURCES[name]
    if Path(name).is_dir():
        raise CrispsegError(f"is the folder {name}; give it first, without a key, or as data.root", "data")
    own = "; if it is your own, name its file in plugins"
    raise CrispsegError(f"unknown data '{name}'{did_you_mean(name, DATA_SOURCES)}{own}")


def data_fields(name: str) -> dict[str, Field]:
    """Return the settings of a data source; one of its fields may be called as its name is."""
    return fields_of(data_source(name))


def build_data(settings: Mapping[str, Any]) -> DataSource:
    """Return the data source that settings describe.

    Args:
        settings: its `name` and its fields; "folder" where there is no name.

    Raises:
        CrispsegError: no such data, an unknown or missing field, or a value that it cannot have.
    """
    name, values = str(settings.get("name", Folder.name)), {key: settings[key] for key in settings if key != "name"}
    kind, entry = data_source(name), catalogue().get(name)
    root = fields_of(kind).get("root")
    known = values.keys() <= fields_of(kind).keys()
    if root and root.default is MISSING and "root" not in values and known and entry:
        raise CrispsegError(f"is missing; {entry.layout.hint}", "data.root")
    return construct(kind, values, "data.")


def own_data_meant(keys: Iterable[str], name: str | None) -> bool:
    """Return whether keys without a name mean own data: one of `OWN` is among them that the data of this name lack."""
    return bool({*OWN} & {*keys} - (data_fields(name).keys() if name else set()))
