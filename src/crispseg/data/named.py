"""Data sources by name and settings, and files for images and masks in memory."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import MISSING
from itertools import zip_longest
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image
from torch import Tensor

from crispseg.config.settings import construct, fields_of
from crispseg.data import DATA_SOURCES, DataSource, Folder
from crispseg.data.catalogue import catalogue
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.io.arrays import image_array, mask_array
from crispseg.io.files import LITTER, writable_folder
from crispseg.io.opening import faults, from_pillow, opened


def write_pairs(images: Iterable[Any], masks: Iterable[Any], folder: Path) -> tuple[Path, Path]:
    """Write images and their masks to a sub-folder that is named by a hash of their content, or reuse it.

    They are paths, PIL images, or values for `image_array` and `mask_array`. Returned are the folders of images and of
    masks. File names start with a number, followed by the name of a given path.
    """
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(prefix=LITTER, dir=writable_folder(folder)) as temporary:
        written = Path(temporary, "pairs")
        for number, pair in enumerate(zip_longest(images, masks, fillvalue=MISSING)):  # generators may reuse memory
            if any(source is MISSING for source in pair):
                raise CrispsegError(
                    f"the numbers of images and masks differ after {number}; give a mask for each image"
                )
            name = f"{number:05}_{Path(pair[0]).stem}" if isinstance(pair[0], str | Path) else f"{number:05}"
            for kind, source in zip(("images", "masks"), pair, strict=True):
                digest.update(_write(source, written / kind, name, f"{kind}[{number}]"))
        if not written.is_dir():
            raise CrispsegError("there are no images; give images and masks")
        place = folder / f"pairs-{digest.hexdigest()[:12]}"
        if not place.is_dir():
            written.rename(place)
    return place / "images", place / "masks"


def _write(source: Any, folder: Path, name: str, title: str) -> bytes:
    """Write an image or a mask into its folder; return its name and content, for a hash."""
    try:
        content, suffix = _encoded(source, folder.name == "masks")
    except CrispsegError as error:
        raise CrispsegError(f"{title}: {error}") from None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}{suffix}").write_bytes(content)
    return f"{name}{suffix} {len(content)} ".encode() + content


def _encoded(source: Any, is_mask: bool) -> tuple[bytes, str]:
    """Return file content that is read as the same image or mask, and its suffix."""
    if isinstance(source, str | Path):
        with opened(source):  # reports problems in one line
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


def settings_of(root: Path) -> dict[str, Any]:
    """Return the `data.*` settings for a folder: those of a public data set if the folder has its marks, else custom.

    A missing folder raises a `CrispsegError`.
    """
    if not root.is_dir():
        problem = "not a folder" if root.exists() else "missing"
        raise CrispsegError(
            f"{root} is {problem}; give a folder of data, a run, a YAML file or data.name with its keys"
        )
    for entry in catalogue().values():
        for mark in entry.marks:
            excluded = any(any(root.glob(path)) for path in mark.get("lacks", ()))
            if not excluded and all(any(root.glob(path)) for path in mark["holds"]):
                return {"name": entry.name, "root": str(root), **mark.get("keys", {})}
    return {"name": Folder.name, "root": str(root)}


OWN_FILES = ("images", "masks", "instances")  # settings that imply custom data unless the named data have them too


def data_source(name: str) -> type[DataSource]:
    """Return the data source of this name; an unknown name raises a `CrispsegError`."""
    if name in DATA_SOURCES:
        return DATA_SOURCES[name]
    if Path(name).is_dir():
        raise CrispsegError(f"is the folder {name}; give it first, without a key, or as data.root", "data")
    own = "; for a custom data source, list its file in plugins"
    raise CrispsegError(f"unknown data '{name}'{did_you_mean(name, DATA_SOURCES)}{own}")


def build_data(settings: Mapping[str, Any]) -> DataSource:
    """Return the data source that settings describe: its `name`, by default "folder", and its fields.

    Unknown or missing fields and invalid values raise a `CrispsegError`.
    """
    name, values = str(settings.get("name", Folder.name)), {key: settings[key] for key in settings if key != "name"}
    kind, entry = data_source(name), catalogue().get(name)
    known = fields_of(kind)
    if entry and "root" not in values and values.keys() <= known.keys() and known["root"].default is MISSING:
        raise CrispsegError(f"is missing; {entry.hint}", "data.root")
    return construct(kind, values, "data.")


def own_data_meant(keys: Iterable[str], name: str | None) -> bool:
    """Return whether keys imply custom data, because the named data lack one of them that is in `OWN_FILES`."""
    own = {*OWN_FILES}.intersection(keys)
    return bool(own - fields_of(data_source(name)).keys() if name else own)
