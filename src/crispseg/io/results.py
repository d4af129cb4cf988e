"""Recognition of results among other files, by their metadata."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from PIL import Image

from crispseg.errors import CrispsegError
from crispseg.io.images import MADE_OF
from crispseg.io.tiff import open_dataset


def made_of_result(result: Path) -> str | None:
    """Return `made_of` from the metadata of a result, or None; it is empty if the pixels are damaged."""
    with suppress(Exception):  # damaged files raise almost anything
        if result.suffix == ".tif":
            with open_dataset(result) as dataset:
                return str(dataset.tags()[MADE_OF])
        with Image.open(result) as picture:
            made_of = str(picture.info[MADE_OF])
            try:
                picture.load()
            except Exception:  # damaged data raise almost anything
                return ""
            return made_of
    return None


def check_results(*pictures: Path) -> None:
    """Raise a CrispsegError for an existing picture that is not a result and would be overwritten."""
    for picture in pictures:
        if picture.exists() and made_of_result(picture) is None:
            raise foreign_file(picture)


def check_text(file: Path, start: str) -> None:
    """Raise a CrispsegError for an existing text that begins unlike a result and would be overwritten."""
    if file.exists() and not file.read_text("utf-8", "replace").startswith(start):
        raise foreign_file(file)


def foreign_file(file: Path) -> CrispsegError:
    """Return the error for a file of the user with the name of a result."""
    return CrispsegError(f"{file} is not a result of crispseg and would be overwritten; choose another folder")
