"""Images larger than memory: a TIFF is read in bands, segmented in tiles and written as it goes."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError
from crispseg.inference.blending import OVERLAP, TILE, Progress, blended_rows, check_tile, spans
from crispseg.inference.manifest import Share
from crispseg.inference.memory import enough_memory
from crispseg.inference.segmenter import Segmenter
from crispseg.io.files import InUse, atomic_path, owned, writable_folder
from crispseg.io.images import image_channels
from crispseg.io.tiff import TiffImage, open_tiff


def segment_tiff(
    segmenter: Segmenter,
    source: str | Path,
    target: str | Path,
    tile: int | None = None,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Segment a TIFF of any size into a TIFF of class ids with their colours, which keeps the position on a map.

    A refinement, and the segmenter's protocol, act in each tile on its own.

    Args:
        segmenter: its model sees each tile.
        source: TIFF of grey, RGB or, for models of 4 channels, RGB and a fourth one, of 8 or 16 bits.
        target: uint8 cloud-optimised GeoTIFF with a palette, deflated, in tiles of 256 pixels, with overviews; replaced
            only when it is complete.
        tile: side of the tiles in pixels, by default the segmenter's, or 1024. Neighbours overlap by an eighth of it.
        progress: see `Progress`.

    Returns:
        Height and width.

    Raises:
        CrispsegError: rasterio is not installed; the TIFF is missing, broken, or neither grey nor RGB; a tile is too
            small, or too large for memory.
    """
    with _opened(segmenter, source, tile) as (image, side), atomic_path(target) as temporary:
        labels = segmenter.label_set
        rows = blended_rows(segmenter.logits, image.read, image.size, len(labels), side, segmenter.device, progress)
        with enough_memory(f"tiles of {side} pixels need", "make them smaller"):
            image.write_labels(temporary, rows, labels.palette)
        return image.size


@contextmanager
def segmented_map(
    segmenter: Segmenter,
    source: str | Path,
    target: str | Path,
    made_by: Mapping[str, Any],
    tile: int | None = None,
    share: Share | None = None,
    progress: Progress | None = None,
) -> Iterator[bool]:
    """As `segment_tiff`, with the same bytes, but what is done stays when the process ends, and several may share it.

    Until all is done, the labels of each row of tiles are a file in a folder beside the target. Each share computes the
    rows of one part of the height, from top to bottom; the one that ends last writes the target. Whether this is it is
    the value of the `with` statement, in whose block no other process writes the target; then the folder is removed.

    Args:
        segmenter, source, target, tile, progress: as for `segment_tiff`.
        made_by: what the labels depend on besides the image; values as JSON has them.
        share: that of this process, by default all.

    Raises:
        CrispsegError: as `segment_tiff`; the folder has rows that were made otherwise.
    """
    with _opened(segmenter, source, tile) as (image, side):
        bands = len(spans(image.size[0], side, side // OVERLAP))
        rows = _Rows(folder_of_rows(target), bands)
        known = {"size": image.size, "bytes": Path(source).stat().st_size, "tile": side}
        rows.begin(json.loads(json.dumps({**made_by, **known})))
        share = share or Share()
        own = range(*(bands * number // share.of for number in (share.number - 1, share.number)))
        missing = [band for band in own if not rows.file(band).is_file()]
        with enough_memory(f"tiles of {side} pixels need", "make them smaller"):
            for some in _consecutive(missing):
                labels = blended_rows(
                    *(segmenter.logits, image.read, image.size, len(segmenter.label_set), side, segmenter.device),
                    progress,
                    some,
                )
                for band, each in zip(some, labels, strict=True):
                    rows.write(band, each)
        with ExitStack() as stack:
            complete = rows.are_complete()
            if complete:
                try:
                    stack.enter_context(owned(rows.folder))
                    complete = rows.are_complete()  # or else another process has written the target
                except InUse:  # another process writes it
                    complete = False
            if complete:
                with atomic_path(target) as temporary:
                    image.write_labels(temporary, rows.read(image.size[1]), segmenter.label_set.palette)
            yield complete
            if complete:
                rows.remove()
    if complete:
        with suppress(OSError):  # another process may have begun anew
            rows.folder.rmdir()


def folder_of_rows(target: str | Path) -> Path:
    """Where `segmented_map` keeps what is done of a map."""
    return Path(f"{target}.rows")


class _Rows:
    """The labels of rows of tiles in a folder, each in a file that appears when it is whole.

    Args:
        folder: the folder.
        count: of rows of tiles.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.count = count
        self.note = folder / "made_by.json"

    def begin(self, made_by: Mapping[str, Any]) -> None:
        """Make the folder, or see that its rows were made alike. Those of which nothing is known are removed."""
        writable_folder(self.folder)
        if self._made_by() is None:
            with owned(self.folder):
                if self._made_by() is None:
                    self.remove()
                    with atomic_path(self.note) as temporary:
                        temporary.write_text(json.dumps(made_by), encoding="utf-8")
        if self._made_by() != made_by:
            raise CrispsegError(
                f"{self.folder} holds rows of another model, other settings or an image of another size; go on as it "
                "was begun, or remove that folder"
            )

    def _made_by(self) -> Any:
        with suppress(OSError, ValueError):
            return json.loads(self.note.read_text("utf-8"))
        return None

    def remove(self) -> None:
        """Remove all rows, and then the note that says what they are."""
        for file in self.folder.glob("*.labels"):
            file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def file(self, band: int) -> Path:
        return self.folder / f"{band:06}.labels"

    def are_complete(self) -> bool:
        return all(self.file(band).is_file() for band in range(self.count))

    def write(self, band: int, labels: NDArray[np.uint8]) -> None:
        with atomic_path(self.file(band)) as temporary, temporary.open("wb") as file:
            file.write(zlib.compress(np.ascontiguousarray(labels).tobytes(), 1))
            file.flush()
            os.fsync(file.fileno())  # a row that is there is whole, after a power cut too

    def read(self, width: int) -> Iterator[NDArray[np.uint8]]:
        """All of them from top to bottom, each `(h, width)`."""
        for band in range(self.count):
            try:
                values = zlib.decompress(self.file(band).read_bytes())
            except zlib.error as error:
                raise CrispsegError(f"{self.file(band)} is damaged ({error}); remove it and go on") from None
            yield np.frombuffer(bytearray(values), np.uint8).reshape(-1, width)  # (h, width)


@contextmanager
def _opened(segmenter: Segmenter, source: str | Path, tile: int | None) -> Iterator[tuple[TiffImage, int]]:
    """The image and the side of its tiles."""
    side = (segmenter.tile or TILE) if tile is None else tile
    check_tile(side)
    with open_tiff(source, image_channels(segmenter.info.in_chans), segmenter.value_range) as image:
        yield image, side


def _consecutive(numbers: list[int]) -> Iterator[range]:
    """
    >>> list(_consecutive([1, 2, 3, 7]))
    [range(1, 4), range(7, 8)]
    """
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        some = [number for _, number in group]
        yield range(some[0], some[-1] + 1)


def remove_rows(target: str | Path) -> None:
    """Remove what `segmented_map` kept of a map that is complete."""
    shutil.rmtree(folder_of_rows(target), ignore_errors=True)
