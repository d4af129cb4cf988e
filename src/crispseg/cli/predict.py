"""`crispseg predict RUN IMAGE_OR_DIR... [--out DIR] [--resume] [--shard I/N] [--format SERVER] [--objects CLASS]`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from crispseg.cli.keys import WithOptions
from crispseg.errors import CrispsegError
from crispseg.inference.prediction import COCO, predict_files


@dataclass(kw_only=True)
class Predict(WithOptions):
    """Segment images: NAME.png contains the class ids (with colours), NAME_overlay.png shows them.

    --format writes the files that a benchmark's server accepts; --tiles writes NAME.tif for a TIFF. --objects also
    writes NAME_objects.png (numbers), NAME_objects.csv (a table) and objects.json (outlines in COCO's format).

    Args:
        run: a run's folder, a saved model's folder, a hub id, the name of a bundled model, or an exported file.
        images: files, folders (with their sub-folders), patterns such as 'in/*.jpg' and lists of paths, LIST.txt.
        out: folder to write to; by default a new one next to the images.
    """

    name = "predict"
    words = ("run", "images")
    function = staticmethod(predict_files)
    first = ("out", "device", "tiles", "protocol", "resume", "shard")
    run: str
    images: list[str]
    out: Path | None = None

    def __call__(self) -> None:
        """Segment the images and skip unreadable ones with a message; the exit status is then 2."""
        console, shard = Console(stderr=True), self.options.get("shard")
        found = predict_files(self.run, self.images, self.out, console=console, **self.options)
        of = f"{found.total} images" + (f" of shard {shard}" if shard else "")
        skipped = f", {found.skipped} of them earlier" if found.skipped else ""
        print(f"{found.done} of {of} segmented into {found.out}{skipped}")
        if found.objects is not None:
            classes = ", ".join(np.ravel(self.options["objects"]))
            print(f"{found.objects} objects of class {classes} in {found.out / COCO}")
        if failed := found.failed:
            raise CrispsegError(f"{len(failed)} of {of} could not be read, first {failed[0]}; see the list above")
