"""crisp: what the four papers' parts are worth together, and what `crispseg train` takes.

Every level of the backbone is projected where it is, and all are summed from coarse to fine along SFNet's flow; the sum
is normalised, rectified and classified. That is SegFormer's decoder of four levels, made cheap, with a flow in place of
upsampling. Levels and logits lie on each other by the centres of their pixels at every size; and what is saved is spent
on pixels: images are seen larger than they are. docs/results.md has the measurements behind each part, docs/trials.md
those of parts that are not here.
"""

from __future__ import annotations

from typing import Any

import crispseg.models.sfnet  # noqa: F401 where fam is registered
from crispseg.models.registry import preset
from crispseg.models.topdown import top_down

FIXED = {"expansion": 1, "released_dilation": False}

CRISP: dict[str, Any] = {"part": "fam", "fixed": FIXED, "context": "linear", "merge": "sum", "centred": True}
SIZE: dict[str, Any] = {"width": 256, "enlarge": 1.33}

crisp = preset(
    "crisp",
    top_down,
    "Levels summed along a flow, on images seen a third larger: what `crispseg train` takes.",
    **CRISP,
    **SIZE,
)
crisp_m = preset("crisp_m", top_down, "`crisp`, by the name of its size.", **CRISP, **SIZE)
crisp_s = preset("crisp_s", top_down, "Smaller: 128 channels, images as large as they are.", **CRISP, width=128)
crisp_l = preset(
    "crisp_l", top_down, "Larger: 512 channels, images seen half as large again.", **CRISP, width=512, enlarge=1.5
)
