"""Report of a prediction of files."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

from crispseg.errors import CrispsegError, CrispsegWarning
from crispseg.inference.image_files import Source


@dataclass(frozen=True)
class Simplification:
    """Change of the outlines of all images by a tolerance."""

    points_before: int
    points_after: int
    distance: float  # largest distance to the outlines of the pixels, in pixels
    iou_lost: float  # 100 minus the mIoU of both outlines, in percent
    boundary_f_lost: float  # 100 minus boundary F at 1 pixel, in percent

    def __str__(self) -> str:
        points = f"{self.points_before:,} points became {self.points_after:,}, at most {self.distance:.2f} px away"
        return f"outlines: {points}; lost: IoU {self.iou_lost:.1f} %, boundary F at 1 px {self.boundary_f_lost:.1f} %"


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
    outlines: Simplification | None = None  # if `tolerance` is given

    @property
    def unlike(self) -> list[str]:
        """Images that are unlike the training images, such that their results may be wrong."""
        return sorted(image for image, novelty in self.novelty.items() if novelty > 1)

    def leave_out(self, image: Source, error: CrispsegError) -> None:
        """Count an image as failed, with a warning."""
        self.failed.append(image)
        warnings.warn(f"left out: {error}", CrispsegWarning, stacklevel=2)
