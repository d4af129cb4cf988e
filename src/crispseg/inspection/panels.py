"""The page's pictures of what the parts of each system computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from crispseg.decoders import DeformableFuse
from crispseg.inspection.agln import channel_rows, global_enhancement, last_block, refined_channels
from crispseg.inspection.common import Picture
from crispseg.inspection.flow import flow_colors, flows
from crispseg.inspection.maps import HEAT, at_image, heat_map, mean_map
from crispseg.inspection.quantities import Inspection
from crispseg.models.agln import SemanticDistribution
from crispseg.models.ddsm import DDSM


class Panel(NamedTuple):
    """A small picture of the page."""

    name: str
    pixels: Picture
    note: str = ""
    scale: tuple[int, str, str] | None = None
    """A colour map of OpenCV, and what its lowest and its highest colour mean."""
    wheel: str = ""
    """What the colours of directions mean, with the wheel beside it."""
    layer: bool = False
    """Can be laid over the image."""
    exact: bool = False
    """Colours mean classes: enlarged without mixing them."""
    photo: bool = False
    """Saved as JPEG."""
    field: int | None = None
    """Index of the field that is drawn on it at the pixel."""


Fold = tuple[str, list[Panel]]
"""A title, and the pictures that it opens."""


def part_sections(inspection: Inspection, fields: Sequence[str]) -> list[tuple[str, str, list[Fold]]]:
    """Heading, explanation and folds for each kind of part that the model has.

    Args:
        inspection: to show.
        fields: titles of the page's fields, in their order.
    """
    makers = (
        ("Semantic flow", _FLOW, _flow_folds),
        ("Dynamic dual sampling", _DDSM, _ddsm_folds),
        ("Deformable convolution", _DCN, _dcn_folds),
        ("Global descriptors and local refinement", _AGLN, _agln_folds),
        ("Context queries", _UNEPT, _unept_folds),
    )
    sections = []
    for name, explained, make in makers:
        if folds := make(inspection, fields):
            sections.append((name, explained, folds))
    return sections


_FLOW = (
    "Each flow alignment module (FAM) predicts for every pixel of the fine level where to look in the coarse one. "
    "Features are the mean over channels, each picture on its own scale."
)
_DDSM = (
    "Each pixel of the fine level attends to sampled pixels of the coarse one, each channel to sampled channels. "
    "Features are the mean over channels, each picture on its own scale."
)
_DCN = "The nine points of a deformable convolution. Features are the mean over channels."
_AGLN = (
    "Attention gathers descriptors from a coarse level; every pixel of a finer one takes its own mixture. The heat "
    "over the large picture shows from where the chosen pixel's mixture was gathered: clear up to the mean attention, "
    "half of full colour at twice it. Decoder features and descriptor maps are principal components: alike is of one "
    "colour, and A and E share theirs."
)
_UNEPT = (
    "Each query, a pixel at an eighth of the image's size, attends to sampled pixels of every level. Points are "
    "coloured by head and level in turn; their area is the weight."
)


def _features(name: str, values: Tensor, inspection: Inspection, note: str = "", field: int | None = None) -> Panel:
    mean = mean_map(at_image(values, inspection))
    bounds = (HEAT, f"{mean.min():.2g}", f"{mean.max():.2g}")
    return Panel(name, heat_map(values, inspection), note, scale=bounds, photo=True, field=field)


def _size(values: Tensor) -> str:
    return f"{values.shape[-1]} × {values.shape[-2]} pixels"


def _index(fields: Sequence[str], title: str) -> int | None:
    return list(fields).index(title) if title in fields else None


def _flow_folds(inspection: Inspection, fields: Sequence[str]) -> list[Fold]:
    folds = []
    for flow in flows(inspection):
        fine, coarse, warped = (inspection.tap(flow.part, name) for name in ("fine", "coarse", "warped"))
        field = _index(fields, f"flow {flow.title}")
        full = f"hue: direction; full colour: {flow.longest():.2f} px of the level"
        panels = [
            _features("coarse level, upsampled", coarse, inspection, f"before alignment, {_size(coarse)}", field),
            _features("fine level", fine, inspection, _size(fine), field),
            Panel(
                "flow",
                flow_colors(flow, inspection),
                "of the fine level",
                wheel=full,
                field=field,
            ),
            _features("coarse level, warped", warped, inspection, "after alignment", field),
        ]
        folds.append((flow.title, panels))
    return folds


def _ddsm_folds(inspection: Inspection, fields: Sequence[str]) -> list[Fold]:
    folds = []
    for part in inspection.of(DDSM):
        title = inspection.parts[part].title
        field = _index(fields, f"points {title}")
        taps = {name: inspection.taps.get(f"{part}.{name}") for name in ("x_h", "x_l", "x_Sout", "x_Cout")}
        names = {"x_h": "coarse x_h", "x_l": "fine x_l", "x_Sout": "spatial x_Sout", "x_Cout": "channel x_Cout"}
        panels = [
            _features(names[name], values, inspection, _size(values), field)
            for name, values in taps.items()
            if values is not None
        ]
        if taps["x_Sout"] is not None and taps["x_Cout"] is not None:
            panels.append(_features("x_Sout + x_Cout", taps["x_Sout"] + taps["x_Cout"], inspection, "the sum", field))
        folds.append((title, panels))
    return folds


def _dcn_folds(inspection: Inspection, fields: Sequence[str]) -> list[Fold]:
    folds = []
    for part in inspection.of(DeformableFuse):
        title = inspection.parts[part].title
        fused = inspection.tap(part, "fused")
        folds.append((title, [_features("output", fused, inspection, _size(fused), _index(fields, f"points {title}"))]))
    return folds


def _agln_folds(inspection: Inspection, _fields: Sequence[str]) -> list[Fold]:
    folds = []
    for block in inspection.of(SemanticDistribution):
        title = inspection.parts[block].title
        shown = global_enhancement(inspection, block)
        level = _size(inspection.tap(block, "M"))
        names = ("decoder feature A", "descriptor map M", "enhanced feature E")
        notes = (level, "each pixel's mixture", "Ψ(A + αM)")
        panels = [Panel(name, pixels, note, photo=True) for name, pixels, note in zip(names, shown, notes, strict=True)]
        holder = block.rpartition(".")[0]
        b, g = (inspection.taps.get(f"{holder}.lrm.{name}") for name in ("B", "G"))
        if b is not None and g is not None:
            panels.append(_features("encoder feature B", b, inspection, "before refinement, mean over channels"))
            panels.append(_features("encoder feature G", g, inspection, "after refinement, mean over channels"))
        folds.append((title, panels))
    if folds and f"{last_block(inspection).rpartition('.')[0]}.lrm.B" in inspection.taps:
        folds.insert(0, _channel_fold(inspection))
    return folds


def _channel_fold(inspection: Inspection) -> Fold:
    """Single encoder channels of the last block before and after refinement."""
    b, g, chosen = refined_channels(inspection, last_block(inspection))
    before, after = channel_rows(inspection, b, g)
    panels = []
    for index, upper, lower in zip(chosen, before, after, strict=True):
        panels.append(Panel(f"channel {index}", upper, "before refinement, on its own scale", photo=True))
        panels.append(Panel(f"channel {index}", lower, "after refinement, on its own scale", photo=True))
    return f"single encoder channels of the last block: {len(chosen)} that change most and least", panels


def _unept_folds(inspection: Inspection, fields: Sequence[str]) -> list[Fold]:
    key = next((key for key in inspection.taps if key.endswith("context_queries")), None)
    if key is None:
        return []
    queries = inspection.taps[key]
    panels = []
    for index, name in enumerate(fields):
        if name.startswith("points "):
            note = f"{_size(queries)}, with the {name}"
            panels.append(_features("context queries", queries, inspection, note, index))
    spread = torch.stack([queries.std(0)])
    panels.append(_features("spread of the queries", spread, inspection, "standard deviation over channels"))
    return [("queries", panels)]
