"""First guesses for the images of a CVAT task, as masks, or as polygons with --conv-mask-to-poly.

cvat-cli task auto-annotate TASK --function-file cvat_function.py -p model=str:runs/cells --allow-unmatched-labels
"""

from __future__ import annotations

from collections.abc import Iterator

import cvat_sdk.auto_annotation as cvataa
import numpy as np
from cvat_sdk.masks import encode_mask
from cvat_sdk.models import LabeledShapeRequest
from numpy.typing import NDArray
from PIL import Image
from skimage.measure import label, regionprops

from crispseg import Segmenter
from crispseg.io.outlines import joined
from crispseg.io.polygons import coverage
from crispseg.labels import IGNORE


class Function:
    """Function of CVAT's auto-annotation; its labels are the classes of a run or bundled model, without background."""

    def __init__(self, model: str) -> None:
        self.segmenter = Segmenter(model)
        classes = self.segmenter.label_set
        labels = [cvataa.label_spec(name, classes.index(name), type="mask") for name in classes.foreground]
        self.background, self.spec = classes.background, cvataa.DetectionFunctionSpec(labels=labels)

    def detect(self, context: cvataa.DetectionFunctionContext, image: Image.Image) -> list[LabeledShapeRequest]:
        """Return the connected areas of an image; pixels below the confidence threshold are left out."""
        result = self.segmenter(image)
        labels = result.labels
        if context.conf_threshold:
            labels = np.where(result.confidence() < 255 * context.conf_threshold, np.uint8(IGNORE), labels)
        return [*(self.polygons(labels) if context.conv_mask_to_poly else self.masks(labels))]

    def polygons(self, labels: NDArray[np.uint8]) -> Iterator[LabeledShapeRequest]:
        """Yield the outlines of areas; a line joins the outlines of holes to the outer one."""
        for index, outlines in coverage(labels, 0).rings():
            if index not in (self.background, IGNORE):
                yield cvataa.polygon(index, np.ravel(joined(outlines)).astype(float).tolist())

    def masks(self, labels: NDArray[np.uint8]) -> Iterator[LabeledShapeRequest]:
        """Yield the pixels of areas."""
        regions = label(labels, connectivity=1, background=-1)
        for region in regionprops(regions):
            index = int(labels[tuple(region.coords[0])])
            if index not in (self.background, IGNORE):
                yield cvataa.mask(index, encode_mask(regions == region.label))


create = Function
