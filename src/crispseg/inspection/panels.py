"""The pictures of the page: of the result, and of what the parts of each system computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crispseg.inspection.flow import flow_colors, flows
from crispseg.inspection.maps import (
    HEAT,
    SCALE,
    channel_map,
    direction_colors,
    enhancement_maps,
    mean_map,
    most_refined,
    scaled,
    sum_of,
)
from crispseg.inspection.quantities import Inspection


class Panel(NamedTuple):
    """A small picture of the page."""

    name: str
    pixels: NDArray[np.uint8]
    """`(H, W, 3)` RGB."""
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


class Section(NamedTuple):
    """A heading of the page with its pictures."""

    name: str
    explained: str
    folds: Sequence[tuple[str, Sequence[Panel]]]
    """Pictures, each row behind a title that opens it; a single one without a title is always open."""


class _Kind(NamedTuple):
    """What is shown of each part of a kind."""

    kind: str
    name: str
    explained: str
    panels: Callable[[Inspection, str], Iterator[Panel]]


def sections(inspection: Inspection, fields: Sequence[str]) -> list[Section]:
    """All pictures.

    Args:
        inspection: to show.
        fields: titles of the page's fields, in their order.
    """
    found = [
        Section("Result", "", [("", list(_results(inspection)))]),
        Section("Certainty", "", [("", list(_certainty(inspection)))]),
    ]
    if inspection.unrefined is not None:
        found.append(Section("Boundary refinement", _REFINEMENT, [("", list(_refinement(inspection)))]))
    for kind, name, explained, panels in KINDS:
        folds = []
        for part in inspection.of(kind):
            title = inspection.parts[part].title
            field = next((i for i, each in enumerate(fields) if each in (f"flow {title}", f"points {title}")), None)
            folds.append((title, [panel._replace(field=field) for panel in panels(inspection, part)]))
        if folds and kind == "cfb":
            folds.insert(0, _channels(inspection, inspection.of(kind)[-1]))
        if folds:
            found.append(Section(name, explained, folds))
    if queries := list(_queries(inspection, fields)):
        found.append(Section("Context queries", _UNEPT, [("queries", queries)]))
    return found


# Of every model -------------------------------------------------------------------------------------------------------


def _results(inspection: Inspection) -> Iterator[Panel]:
    yield Panel("image", inspection.image, photo=True)
    yield Panel("prediction", inspection.colors(), layer=True, exact=True)
    if inspection.truth is not None:
        yield Panel("truth", inspection.colors(inspection.truth), "ignored pixels black", layer=True, exact=True)
        errors = "right pixels black, ignored ones grey, wrong ones in the truth's colour"
        yield Panel("errors", inspection.errors(), errors, layer=True, exact=True)


def _certainty(inspection: Inspection) -> Iterator[Panel]:
    least, most = 1 / len(inspection.probabilities), math.log(len(inspection.probabilities))
    for name, note, values, low, high, unit in (
        ("confidence", "probability of the most likely class", inspection.confidence(), least, 1.0, ""),
        ("entropy", "of the classes' probabilities", inspection.entropy(), 0.0, most, " nats"),
    ):
        ends = SCALE, f"{low:.2g}", f"{high:.3g}{unit}"
        yield Panel(name, scaled(values, low, high), note, scale=ends, layer=True, photo=True)


_REFINEMENT = (
    "A pixel that is likely on a boundary takes the label of a pixel further inside its region, one or two steps in "
    "the predicted direction."
)


def _refinement(inspection: Inspection) -> Iterator[Panel]:
    assert inspection.boundary is not None
    yield Panel("before refinement", inspection.colors(inspection.unrefined), layer=True, exact=True)
    yield Panel("after refinement", inspection.colors(), exact=True)
    note, probability = "probability of a pixel to be on a boundary", scaled(inspection.boundary, 0, 1)
    yield Panel("boundary", probability, note, scale=(SCALE, "0", "1"), layer=True, photo=True)
    note = "to the inside, of pixels more likely on a boundary than not: its hue; others white"
    yield Panel("direction", direction_colors(inspection), note, wheel="hue: direction", layer=True, exact=True)


# Of parts -------------------------------------------------------------------------------------------------------------


def _feature(inspection: Inspection, part: str, name: str, note: str, *taps: str) -> Panel:
    """The mean over channels of a tap, or of the sum of several; `{}` in the note is the level's size."""
    values = sum_of(inspection, part, *taps)
    mean = mean_map(values, inspection)
    size = f"{values.shape[-1]} × {values.shape[-2]} pixels"
    ends = HEAT, f"{mean.min():.2g}", f"{mean.max():.2g}"
    return Panel(name, scaled(mean, colors=HEAT), note.format(size), scale=ends, photo=True)


def _fam(inspection: Inspection, part: str) -> Iterator[Panel]:
    flow = next(each for each in flows(inspection) if each.part == part)
    yield _feature(inspection, part, "coarse level, upsampled", "before alignment, {}", "coarse")
    yield _feature(inspection, part, "fine level", "{}", "fine")
    full = f"hue: direction; full colour: {flow.longest():.2f} px of the level"
    yield Panel("flow", flow_colors(flow, inspection), "of the fine level", wheel=full)
    yield _feature(inspection, part, "coarse level, warped", "after alignment", "warped")


def _ddsm(inspection: Inspection, part: str) -> Iterator[Panel]:
    for name, taps, note in (
        ("coarse x_h", ("x_h",), "{}"),
        ("fine x_l", ("x_l",), "{}"),
        ("spatial x_Sout", ("x_Sout",), "{}"),
        ("channel x_Cout", ("x_Cout",), "{}"),
        ("x_Sout + x_Cout", ("x_Sout", "x_Cout"), "the sum"),
    ):
        if inspection.has(part, *taps):
            yield _feature(inspection, part, name, note, *taps)


def _cfb(inspection: Inspection, block: str) -> Iterator[Panel]:
    height, width = inspection.tap(block, "sdm.M").shape[-2:]
    names = ("decoder feature A", "descriptor map M", "enhanced feature E")
    notes = (f"{width} × {height} pixels", "each pixel's mixture", "Ψ(A + αM)")
    for name, pixels, note in zip(names, enhancement_maps(inspection, block), notes, strict=True):
        yield Panel(name, pixels, note, photo=True)
    yield _feature(inspection, block, "encoder feature B", "before refinement, mean over channels", "lrm.B")
    yield _feature(inspection, block, "encoder feature G", "after refinement, mean over channels", "lrm.G")


def _channels(inspection: Inspection, block: str) -> tuple[str, list[Panel]]:
    """Single encoder channels of a block before and after refinement."""
    chosen = most_refined(inspection, block)
    panels = [
        Panel(f"channel {index}", channel_map(inspection, block, tap, index), f"{when} refinement, on its own scale")
        for index in chosen
        for tap, when in (("lrm.B", "before"), ("lrm.G", "after"))
    ]
    title = f"single encoder channels of the last block: {len(chosen)} that change most and least"
    return title, [panel._replace(photo=True) for panel in panels]


def _queries(inspection: Inspection, fields: Sequence[str]) -> Iterator[Panel]:
    """UN-EPT's context queries, once for each attention, whose points are drawn on them."""
    key = next((key for key in inspection.taps if key.endswith("context_queries")), None)
    if key is None:
        return
    holder, _, tap = key.rpartition(".")
    for index, name in enumerate(fields):
        if name.startswith("points "):
            yield _feature(inspection, holder, "context queries", f"{{}}, with the {name}", tap)._replace(field=index)
    spread = mean_map(inspection.taps[key].std(0, keepdim=True), inspection)
    ends = HEAT, f"{spread.min():.2g}", f"{spread.max():.2g}"
    note = "standard deviation over channels"
    yield Panel("spread of the queries", scaled(spread, colors=HEAT), note, scale=ends, photo=True)


KINDS = (
    _Kind(
        "fam",
        "Semantic flow",
        "Each flow alignment module (FAM) predicts for every pixel of the fine level where to look in the coarse one. "
        "Features are the mean over channels, each picture on its own scale.",
        _fam,
    ),
    _Kind(
        "ddsm",
        "Dynamic dual sampling",
        "Each pixel of the fine level attends to sampled pixels of the coarse one, each channel to sampled channels. "
        "Features are the mean over channels, each picture on its own scale.",
        _ddsm,
    ),
    _Kind(
        "dcn",
        "Deformable convolution",
        "The nine points of a deformable convolution. Features are the mean over channels.",
        lambda inspection, part: iter([_feature(inspection, part, "output", "{}", "fused")]),
    ),
    _Kind(
        "cfb",
        "Global descriptors and local refinement",
        "Attention gathers descriptors from a coarse level; every pixel of a finer one takes its own mixture. The heat "
        "over the large picture shows from where the chosen pixel's mixture was gathered: clear up to the mean "
        "attention, half of full colour at twice it. Decoder features and descriptor maps are principal components: "
        "alike is of one colour, and A and E share theirs.",
        _cfb,
    ),
)
"""What is shown of each kind of part, in the page's order."""

_UNEPT = (
    "Each query, a pixel at an eighth of the image's size, attends to sampled pixels of every level. Points are "
    "coloured by head and level in turn; their area is the weight."
)
