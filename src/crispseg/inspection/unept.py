"""The figures of UN-EPT: Zhu et al., *A Unified Efficient Pyramid Transformer for Semantic Segmentation*, ICCVW 2021.

Each function makes one figure and returns `(H, W, 3)` RGB.
"""

from __future__ import annotations

from crispseg.imaging import colorize
from crispseg.inspection.common import Picture, needs, outputs_figure, predicted, shown_classes, true
from crispseg.inspection.maps import direction_colors, scaled
from crispseg.inspection.points import draw_points, sampled_points
from crispseg.inspection.quantities import Inspection
from crispseg.visuals import panels


def figure_1(*inspections: Inspection) -> Picture:
    """Fig. 1: image, prediction, truth, and where they differ, in the truth's colours on black.

    Raises:
        CrispsegError: no truth.
    """
    rows = [[each.image, predicted(each), true(each), each.errors()] for each in inspections]
    return panels(rows, ["image", "prediction", "truth", "difference"], shown_classes(*inspections))


def figure_3(ours: Inspection, theirs: Inspection | None = None) -> Picture:
    """Fig. 3: image, truth, and the results of both models.

    Raises:
        CrispsegError: no truth; different images or classes.
    """
    return outputs_figure(ours, theirs)


def figure_4(*inspections: Inspection) -> Picture:
    """Fig. 4: the result before and after boundary refinement; beside it what decides, boundaries and directions.

    Boundaries are probabilities, 0 dark to 1 yellow. Directions have the hue of the optical-flow colours.

    Raises:
        CrispsegError: a model has no refinement.
    """
    rows = []
    for each in inspections:
        needs(each.unrefined is not None, each, "boundary refinement")
        assert each.unrefined is not None and each.boundary is not None
        before = colorize(each.unrefined, each.label_set.palette)
        boundary = scaled(each.boundary, 0, 1)
        rows.append([each.image, before, predicted(each), boundary, direction_colors(each)])
    return panels(rows, ["image", "before", "after", "boundary", "direction"], shown_classes(*inspections))


def sampling_figure(inspection: Inspection, x: float | None = None, y: float | None = None) -> Picture:
    """What the first head of the last cross-attention samples for a pixel, by level; no figure of the paper.

    Args:
        inspection: of a UN-EPT.
        x, y: in pixels of the image; by default its centre.

    Raises:
        CrispsegError: the model has no cross-attention.
    """
    height, width = inspection.size
    x, y = (width - 1) / 2 if x is None else x, (height - 1) / 2 if y is None else y
    crosses = [each for each in sampled_points(inspection) if each.part.endswith("cross_attention")]
    needs(crosses, inspection, "cross-attention")
    last = crosses[-1]
    heads = [index for index, name in enumerate(last.groups) if name.startswith("head 1")]
    row = [draw_points(inspection.image, last, x, y, group=index) for index in heads]
    return panels([row], [last.groups[index] for index in heads])
