"""What a prediction of files did."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

from crispseg.errors import CrispsegError, CrispsegWarning
from crispseg.inference.image_files import Source


@dataclass
class Predictions:
    """Results of `predict_files`."""

    out: Path  # folder of the results
    total: int  # number of requested images; with `shard`, of its part
    skipped: int = 0  # number of images whose results existed before
    done: int = 0  # number of images with results, including skipped ones
    failed: list[Source] = field(default_factory=list)  # images that cannot be read, or whose results cannot be named
    novelty: dict[str, float] = field(default_factory=dict)  # how unlike the training images each image is
    objects: int | None = None  # number of objects in `objects.json`; None if it is not written
    seconds: dict[str, float] = field(default_factory=dict)  # processor time of reading, network and writing
    annotations: Path | None = None  # folder of annotations, if `format` has polygons
    outlines: str | None = None  # line about what a tolerance changed in the outlines

    @property
    def unlike(self) -> list[str]:
        """Images that are unlike the training images, such that their results may be wrong."""
        return sorted(image for image, novelty in self.novelty.items() if novelty > 1)

    def leave_out(self, image: Source, error: CrispsegError) -> None:
        """Count an image as failed, with a warning."""
        self.failed.append(image)
        warnings.warn(f"left out: {error}", CrispsegWarning, stacklevel=2)
