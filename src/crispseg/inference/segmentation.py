"""The result of segmenting an image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from crispseg.errors import CrispsegError
from crispseg.inference.objects import REACH, ObjectRule, Objects, measured
from crispseg.io.images import write_image, write_labels
from crispseg.labels import LabelSet
from crispseg.models.refinement import shift
from crispseg.nn import resize
from crispseg.visualization import pages
from crispseg.visualization import pictures as visuals


@dataclass(eq=False)
class Segmentation:
    """Labels and probabilities of an image."""

    name: str
    """Stem of the files that `save` writes: that of the image's file, or "image". May be changed."""
    image: NDArray[np.uint8] = field(repr=False)
    """`(H, W, 3)` RGB, upright, without a fourth channel."""
    labels: NDArray[np.uint8] = field(repr=False)
    """`(H, W)` class ids."""
    label_set: LabelSet = field(repr=False)
    """Names and colours of the classes."""
    path: Path | None = field(repr=False)
    """Path of the image, if it is a file."""
    # (1, C, h, w) of the image extended to _size, at the network's stride, or with a protocol the full ones; None of an
    # image that was seen in tiles
    _logits: Tensor | None = field(repr=False)
    _size: tuple[int, int] = field(repr=False)
    _offsets: Tensor | None = field(repr=False, default=None)  # (1, 2, *_size), the refinement of the full ones

    def probabilities(self) -> NDArray[np.float32]:
        """Return the probability of each class in each pixel, `(C, H, W)` float32; computed again at each call.

        Raises:
            CrispsegError: the image was processed in tiles, whose logits are not kept.
        """
        if self._logits is None:
            name = self.path or "the image"
            raise CrispsegError(f"{name} was processed in tiles, which keep no probabilities; shrink or cut the image")
        height, width = self.labels.shape
        logits = resize(self._logits, self._size, align_corners=True)
        if self._offsets is not None:
            logits = shift(logits, self._offsets)
        probabilities: NDArray[np.float32] = logits[0, :, :height, :width].softmax(0).numpy()
        return probabilities

    def shares(self) -> dict[str, float]:
        """Return the share of the pixels, 0 to 1, of each class."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.label_set))
        return dict(zip(self.label_set.names, (counts / self.labels.size).tolist(), strict=True))

    def objects(self, name: str, border: str | None = None, reach: int = REACH) -> Objects:
        """Return the objects of a class, with their areas, boxes, centroids and probabilities.

        Args:
            name: of the class.
            border: name of the class of pixels between objects, into which they are grown.
            reach: pixels that they grow at most.

        Raises:
            CrispsegError: there is no such class, both are the same, or the reach is no whole number of pixels.
        """
        rule = ObjectRule.named(self.label_set, name, border, reach)
        ids = rule.find(self.labels)
        probability = None if self._logits is None else self.probabilities()[rule.index]
        return Objects(self.name, name, ids, self.image, measured(ids, self.labels == rule.index, probability))

    def _repr_html_(self) -> str:
        """What a notebook shows: the image under the colours of its classes, and their shares, the largest first."""
        shares = zip(self.shares().items(), self.label_set.palette, strict=True)
        return pages.render(
            "notebook/segmentation.html",
            name=self.name,
            picture=pages.embedded(self.overlay(), f"{self.name}, classes over the image", photo=True),
            classes=[
                (f"{name} {share:.1%}", color)
                for (name, share), color in sorted(shares, key=lambda entry: -entry[0][1])
                if share
            ],
        )

    def overlay(self, opacity: float = 0.5) -> NDArray[np.uint8]:
        """Return the image under the colours of its classes, `(H, W, 3)` RGB; `opacity` of the colours, 0 to 1.

        Raises:
            CrispsegError: another opacity.
        """
        return visuals.overlay(self.image, self.labels, self.label_set, opacity)

    def save(self, folder: str | Path) -> tuple[Path, Path]:
        """Write `NAME.png`, a palette PNG whose values are the class ids, and `NAME_overlay.png`. Returns both paths.

        Raises:
            CrispsegError: the folder cannot be written, or a file would replace the image itself.
        """
        labels, overlay = (Path(folder) / f"{self.name}{ending}.png" for ending in ("", "_overlay"))
        for path in (labels, overlay):
            if self.path is not None and self.path.exists() and path.exists() and path.samefile(self.path):
                raise CrispsegError(f"saving to {folder} would replace the image {self.path}; choose another folder")
        write_labels(labels, self.labels, self.label_set.palette)
        write_image(overlay, self.overlay())
        return labels, overlay
