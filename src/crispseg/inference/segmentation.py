"""Result of a segmented image: labels, probabilities and objects, and the files that hold them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from crispseg.config.settings import checked
from crispseg.errors import CrispsegError
from crispseg.inference.objects import REACH, Object, Objects, measured, object_rules
from crispseg.inference.tiling import as_bytes
from crispseg.io.files import user_path
from crispseg.io.images import MADE_OF, write_image, write_labels
from crispseg.io.results import check_results
from crispseg.labels import LabelSet
from crispseg.visualization import pages
from crispseg.visualization import pictures as visuals


@dataclass(eq=False)
class Segmentation:
    """Labels and probabilities of an image. A copied or pickled result has no probabilities."""

    name: str
    """Stem of the files that `save` writes: that of the image file, "image", or "image_0001" for the first of several.
    You can change it."""
    image: NDArray[np.uint8] = field(repr=False)
    """`(H, W, 3)` RGB, upright, without a fourth channel."""
    labels: NDArray[np.uint8] = field(repr=False)
    """`(H, W)` class ids."""
    label_set: LabelSet = field(repr=False)
    """Names and colours of the classes."""
    path: Path | None = field(repr=False)
    """Path of the image, if it is a file."""
    _logits: Callable[[], Tensor] | None = field(repr=False)  # function that returns logits (C, H, W) on the device
    _confidence: NDArray[np.uint8] | None = field(repr=False, default=None)  # (H, W) of an image processed in tiles
    _temperature: float = field(repr=False, default=1.0)  # see `ModelInfo`
    _novelty: Callable[[], float | None] | None = field(repr=False, default=None)
    made_of: str = field(repr=False, default="")
    """Metadata of the files that `save` writes: image, model and settings. You can change it."""
    picture: NDArray[np.uint8] | None = field(repr=False, default=None)
    """`(H, W, 3)` RGB that `save` writes as overlay, if it is not that of the classes."""

    def probabilities(self) -> NDArray[np.float32]:
        """Compute the probability of each class in each pixel, `(C, H, W)` float32; the result is not cached.

        Results of lists and streams process the image again, unless `Segmenter.stream` got `probabilities=True`.

        Raises:
            CrispsegError: the image was processed in tiles or by a file of labels, or the result was copied or pickled.
        """
        return self._probabilities().cpu().numpy()

    def _probabilities(self) -> Tensor:
        if self._logits is None:
            why = "processed in tiles or by an exported file of labels, or its result was copied or pickled"
            remedy = "shrink or cut the image, export logits, or use the result itself"
            raise CrispsegError(f"{self.path or 'the image'} has no probabilities, because it was {why}; {remedy}")
        return self._logits().div(self._temperature).softmax(0)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what needs the device and the model."""
        return {**vars(self), "_logits": None, "_novelty": None}

    def novelty(self) -> float | None:
        """Return how much the image is unlike the training images; above 1, labels may be wrong at high confidence.

        None for exported files, models of earlier versions or of fewer than ten images, and copied results.
        """
        return self._novelty() if self._novelty else None

    def confidence(self) -> NDArray[np.uint8]:
        """Return the largest probability of each pixel, `(H, W)`, from 0 to 255.

        Raises:
            CrispsegError: the image was processed by a file of labels, or the result was copied or pickled.
        """
        if self._confidence is not None:
            return self._confidence
        return as_bytes(self._probabilities().amax(0)).cpu().numpy()

    def shares(self) -> dict[str, float]:
        """Return the share of the pixels, 0 to 1, of each class."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.label_set))
        return dict(zip(self.label_set.names, (counts / self.labels.size).tolist(), strict=True))

    def objects(
        self,
        name: str | Sequence[str],
        border: str | None = None,
        reach: int = REACH,
        min_size: int | None = None,
        split: bool = False,
    ) -> Objects:
        """Return the objects of a class, or of several, with their areas, boxes, centroids and probabilities.

        Args:
            name: name of the class, or of several.
            border: name of the class of pixels between objects, which are added to the objects.
            reach: largest distance in pixels of added border pixels.
            min_size: area in pixels; smaller objects are left out. By default, a tenth of the median area of the
                objects if they have a border, else 0.
            split: separate touching objects at their necks; for a class without a border.

        Raises:
            CrispsegError: a class is unknown, both are the same, or a class with a border is split.
        """
        name = checked(str | list[str], name, "name")
        rules = object_rules(self.label_set, name, border, reach, min_size, split)
        probabilities = None if self._logits is None else self._probabilities()
        ids, table = np.zeros(self.labels.shape, np.int32), list[Object]()
        for category, rule in rules.items():
            of_class, before = rule.find(self.labels), len(table)
            probability = None if probabilities is None else probabilities[rule.index].cpu().numpy()
            rows = measured(of_class, self.labels == rule.index, probability)
            table += [row._replace(id=row.id + before, category=category) for row in rows]
            ids += (of_class + before) * (of_class > 0)
        return Objects(self.name, tuple(rules), ids, self.image, tuple(table), self.made_of)

    def _repr_html_(self) -> str:
        """Return HTML for notebooks: the image with the colours of its classes, and their shares, sorted."""
        shares = zip(self.shares().values(), self.label_set.names, self.label_set.palette, strict=True)
        present = sorted((entry for entry in shares if entry[0]), reverse=True)
        return pages.notebook(
            pictures=[pages.embedded(self.overlay(), self.name, photo=True)],
            colors=[(f"{name} {share:.1%}", color) for share, name, color in present],
        )

    def overlay(self, opacity: float = 0.5, outlines: bool = False) -> NDArray[np.uint8]:
        """Return the image with the colours of its classes, `(H, W, 3)` RGB; `opacity` is that of the colours, 0 to 1.

        With `outlines`, only the edges of areas are coloured.
        """
        return visuals.overlay(self.image, self.labels, self.label_set, opacity, outlines)

    def save(self, folder: str | Path, outlines: bool = False) -> tuple[Path, Path]:
        """Write `NAME.png`, a palette PNG whose values are the class ids, and `NAME_overlay.png`. Return both paths.

        Args:
            folder: output folder, or the path of the first file, such as `out/mine.png`.
            outlines: as for `overlay`.

        Raises:
            CrispsegError: the folder cannot be written, or a file that is not a result would be overwritten.
        """
        folder, name = user_path(folder), self.name
        if folder.suffix.lower() == ".png" and not folder.is_dir():
            folder, name = folder.parent, folder.stem
        labels, overlay = folder / f"{name}.png", folder / f"{name}_overlay.png"
        check_results(labels, overlay)
        made_of = self.made_of or MADE_OF
        write_labels(labels, self.labels, self.label_set.palette, made_of)
        picture = self.overlay(outlines=outlines) if self.picture is None else self.picture
        write_image(overlay, picture, made_of)
        return labels, overlay
