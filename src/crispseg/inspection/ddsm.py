"""The figures of DDSM: Shi et al., *Dynamic Dual Sampling Module for Fine-Grained Semantic Segmentation*, ICIP 2021.

Each function makes one figure and returns `(H, W, 3)` RGB. Features are heat maps of their mean over channels, as in
the paper (§3.3): from the least value, blue, to the largest, red, each map for itself.
"""

from __future__ import annotations

from crispseg.inspection.common import Picture, errors_figure, needs
from crispseg.inspection.maps import heat_map
from crispseg.inspection.points import ddsm_points, draw_points
from crispseg.inspection.quantities import Inspection
from crispseg.models.ddsm import DDSM
from crispseg.visuals import panels


def figure_1(ours: Inspection, theirs: Inspection | None = None) -> Picture:
    """Fig. 1: image, truth, the outputs of both models, the errors of both, right pixels black.

    Raises:
        CrispsegError: no truth; different images or classes.
    """
    return errors_figure(ours, theirs)


def figure_4(inspection: Inspection, x: float | None = None, y: float | None = None) -> Picture:
    """Fig. 4: the positions sampled for a pixel, x_h, x_l, x_Sout, and the sum x_Sout + x_Cout.

    One DDSM a row, the coarsest level first.

    Args:
        inspection: of a model with DDSMs with both affinities.
        x, y: the pixel, in pixels of the image; by default its centre.

    Raises:
        CrispsegError: the model has no DDSM with both affinities.
    """
    height, width = inspection.size
    x, y = (width - 1) / 2 if x is None else x, (height - 1) / 2 if y is None else y
    whole = [p for p in inspection.of(DDSM) if {f"{p}.x_Sout", f"{p}.x_Cout"} <= inspection.taps.keys()]
    needs(whole, inspection, "DDSM with both affinities")
    rows = []
    for part in whole:
        features = {name: inspection.tap(part, name) for name in ("x_h", "x_l", "x_Sout", "x_Cout")}
        features["sum"] = features["x_Sout"] + features.pop("x_Cout")
        rows.append(
            [
                draw_points(inspection.image, ddsm_points(inspection, part), x, y),
                *(heat_map(features[name], inspection) for name in ("x_h", "x_l", "x_Sout", "sum")),
            ]
        )
    return panels(rows, ["sampled for a pixel", "coarse x_h", "fine x_l", "spatial x_Sout", "x_Sout + x_Cout"])
