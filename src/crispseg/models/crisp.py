"""crisp: what the four papers' parts are worth together, and what `crispseg train` takes.

SFNet's flow alignment between narrow levels, without its pyramid pooling and deep supervision; levels and logits lie on
each other by the centres of their pixels at every size; and what is saved there is spent on pixels: images are seen
larger than they are. docs/models.md has the measurements behind each part, and those of parts that are not here.
"""

from __future__ import annotations

import crispseg.models.sfnet  # noqa: F401 where fam is registered
from crispseg.models.registry import preset
from crispseg.models.topdown import top_down

FIXED = {"expansion": 1, "released_dilation": False}

crisp = preset(
    "crisp",
    top_down,
    "Narrow levels aligned by flow, on images seen a third larger: what `crispseg train` takes.",
    part="fam",
    fixed=FIXED,
    centred=True,
    width=48,
    enlarge=1.33,
)
crisp_s = preset(
    "crisp_s",
    top_down,
    "Smaller: 32 channels, images as large as they are.",
    part="fam",
    fixed=FIXED,
    centred=True,
    width=32,
)
crisp_l = preset(
    "crisp_l",
    top_down,
    "Larger: 96 channels, images seen half as large again.",
    part="fam",
    fixed=FIXED,
    centred=True,
    width=96,
    enlarge=1.5,
)
