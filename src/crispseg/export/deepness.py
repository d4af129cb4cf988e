"""Metadata of ONNX files for Deepness, QGIS's plug-in for models: https://qgis-plugin-deepness.readthedocs.io."""

from __future__ import annotations

from typing import Any

from crispseg.errors import CrispsegError
from crispseg.export.plan import ExportPlan
from crispseg.inference.objects import pixel_side

CENTIMETRES = {"mm": 0.1, "cm": 1.0, "m": 100.0, "km": 1e5}
OVERLAP_PERCENT = 15  # of neighbouring tiles


def resolution_of(pixel_size: str) -> float:
    """Return the side of a pixel in centimetres; another unit than those of length raises a CrispsegError."""
    side, unit = pixel_side(pixel_size)
    if unit not in CENTIMETRES:
        raise CrispsegError(f"is {pixel_size}; give it in {', '.join(CENTIMETRES)}, such as 0.5m", "pixel_size")
    return side * CENTIMETRES[unit]


def plugin_metadata(plan: ExportPlan) -> dict[str, Any]:
    """Return the keys of the plug-in, whose values become JSON; empty for a file without resolution."""
    if plan.resolution is None:
        return {}
    assert plan.size is not None
    info = plan.model.info
    return {
        "model_type": "Segmentor",
        "class_names": dict(enumerate(info.label_set().names)),
        "standardization_mean": info.mean,
        "standardization_std": info.std,
        "tile_size": plan.size[0],
        "tiles_overlap": OVERLAP_PERCENT,
        "resolution": plan.resolution,
        "seg_thresh": 0,  # the plug-in turns pixels of smaller probability into class 0
    }
