"""The pictures of the page: of the result, and of what the parts of each system computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from crispseg.inspection import maps
from crispseg.inspection.activations import Inspection
from crispseg.inspection.flow import flow_colors, flows, pixels_of_level
from crispseg.inspection.maps import HEAT, SCALE, mean_map, scaled
from crispseg.labels import Color
from crispseg.visualization.pictures import RIGHT


class Panel(NamedTuple):
    """A small picture of the page.

    Args:
        name: below the picture.
        pixels: `(H, W, 3)` RGB.
        note: behind the name.
        scale: a colour map of OpenCV, and what its lowest and its highest colour mean.
        wheel: what the colours of directions mean, with the wheel next to it.
        layer: it can be laid over the image.
        clear: a colour that is not laid over it.
        exact: colours mean classes, so it is enlarged without mixing them.
        photo: saved as JPEG.
        field: index of the field that is drawn on it at the pixel.
    """

    name: str
    pixels: NDArray[np.uint8]
    note: str = ""
    scale: tuple[int, str, str] | None = None
    wheel: str = ""
    layer: bool = False
    clear: Color | None = None
    exact: bool = False
    photo: bool = False
    field: int | None = None


Fold: TypeAlias = tuple[str, list[Panel]]
"""Pictures behind a title that opens them; without a title they are always open."""


def sections(inspection: Inspection, fields: Sequence[str]) -> dict[str, list[Fold]]:
    """All pictures, by the section of the page, whose heading the template has.

    Args:
        inspection: to show.
        fields: titles of the page's fields, in their order.
    """

    def of_part(part: str, panels: Callable[[Inspection, str], Iterator[Panel]]) -> Fold:
        title = inspection.parts[part].title
        field = next((i for i, each in enumerate(fields) if each in (f"flow {title}", f"points {title}")), None)
        return title, [panel._replace(field=field) for panel in panels(inspection, part)]

    found = {kind: [of_part(part, panels) for part in inspection.of(kind)] for kind, panels in PANELS.items()}
    if blocks := inspection.of("cfb"):
        found["cfb"].insert(0, _channels(inspection, blocks[-1]))
    for name, own in (
        ("result", _results(inspection)),
        ("certainty", _certainty(inspection)),
        ("refinement", _refinement(inspection)),
        ("queries", _queries(inspection, fields)),
    ):
        pictures = list(own)
        found[name] = [("", pictures)] if pictures else []
    return found


# Of every model -------------------------------------------------------------------------------------------------------


def _results(inspection: Inspection) -> Iterator[Panel]:
    labels = inspection.label_set
    background = None if labels.background is None else labels.palette[labels.background]
    yield Panel("image", inspection.image, photo=True)
    yield Panel("prediction", inspection.colors(), layer=True, exact=True, clear=background)
    if inspection.truth is not None:
        truth = inspection.colors(inspection.truth)
        yield Panel("truth", truth, "ignored pixels black", layer=True, exact=True, clear=background)
        note = "right pixels black, ignored ones dark grey, wrong ones in the truth's colour or lighter"
        yield Panel("errors", inspection.errors(), note, layer=True, exact=True, clear=RIGHT)


def _certainty(inspection: Inspection) -> Iterator[Panel]:
    least, most = 1 / len(inspection.probabilities), math.log(len(inspection.probabilities))
    note, ends = "probability of the most likely class", (SCALE, f"{least:.2g}", "1")
    yield Panel("confidence", scaled(inspection.confidence(), least, 1), note, scale=ends, layer=True, photo=True)
    note, ends = "of the classes' probabilities", (SCALE, "0", f"{most:.3g} nats")
    yield Panel("entropy", scaled(inspection.entropy(), 0, most), note, scale=ends, layer=True, photo=True)


def _refinement(inspection: Inspection) -> Iterator[Panel]:
    """The result before and after refinement, and what decides: boundaries and directions. None of other models."""
    if inspection.boundary is None:
        return
    yield Panel("before refinement", inspection.colors(inspection.unrefined), layer=True, exact=True)
    yield Panel("after refinement", inspection.colors(), exact=True)
    note, probability = "probability of a pixel to be on a boundary", scaled(inspection.boundary, 0, 1)
    yield Panel("boundary", probability, note, scale=(SCALE, "0", "1"), layer=True, photo=True)
    note = "to the inside, of pixels more likely on a boundary than not: its hue; others white"
    yield Panel("direction", maps.direction_colors(inspection), note, wheel="hue: direction", layer=True, exact=True)


# Of parts -------------------------------------------------------------------------------------------------------------


def _feature(inspection: Inspection, values: Tensor, name: str, note: str) -> Panel:
    """The mean over channels of a level `(C, h, w)`; `{}` in the note is the level's size."""
    mean = mean_map(values, inspection)
    size = f"{values.shape[-1]} × {values.shape[-2]} pixels"
    ends = HEAT, f"{mean.min():.2g}", f"{mean.max():.2g}"
    return Panel(name, scaled(mean, colors=HEAT), note.format(size), scale=ends, photo=True)


def _fam(inspection: Inspection, part: str) -> Iterator[Panel]:
    flow = next(each for each in flows(inspection) if each.part == part)
    hue = "hue: direction; full colour: {:.2f} px of the level"
    yield _feature(inspection, inspection.tap(part, "coarse"), "coarse level, upsampled", "before alignment, {}")
    yield _feature(inspection, inspection.tap(part, "fine"), "fine level", "{}")
    yield Panel("flow", flow_colors(flow, inspection), "of the fine level", wheel=hue.format(flow.longest()))
    yield _feature(inspection, inspection.tap(part, "warped"), "coarse level, warped", "after alignment")
    if inspection.has(part, "fine_flow", "fine_warped", "gate"):
        own = replace(flow, pixels=pixels_of_level(inspection.tap(part, "fine_flow"), inspection.align_corners))
        note = "where the fine level is read"
        yield Panel("second flow", flow_colors(own, inspection), note, wheel=hue.format(own.longest()))
        yield _feature(inspection, inspection.tap(part, "fine_warped"), "fine level, warped", "after alignment")
        gate = scaled(mean_map(inspection.tap(part, "gate"), inspection), 0, 1)
        yield Panel("gate", gate, "share of the coarse level", scale=(SCALE, "0", "1"), photo=True)


def _ddsm(inspection: Inspection, part: str) -> Iterator[Panel]:
    for name in ("coarse x_h", "fine x_l", "spatial x_Sout", "channel x_Cout"):
        if inspection.has(part, tap := name.split()[1]):
            yield _feature(inspection, inspection.tap(part, tap), name, "{}")
    if inspection.has(part, "x_Sout", "x_Cout"):
        both = inspection.tap(part, "x_Sout") + inspection.tap(part, "x_Cout")
        yield _feature(inspection, both, "x_Sout + x_Cout", "the sum")


def _cfb(inspection: Inspection, block: str) -> Iterator[Panel]:
    height, width = inspection.tap(block, "sdm.M").shape[-2:]
    names = ("decoder feature A", "descriptor map M", "enhanced feature E")
    notes = (f"{width} × {height} pixels", "each pixel's mixture", "Ψ(A + αM)")
    for name, pixels, note in zip(names, maps.enhancement_maps(inspection, block), notes, strict=True):
        yield Panel(name, pixels, note, photo=True)
    for tap, when in (("B", "before"), ("G", "after")):
        values = inspection.tap(block, f"lrm.{tap}")
        yield _feature(inspection, values, f"encoder feature {tap}", f"{when} refinement, mean over channels")


def _channels(inspection: Inspection, block: str) -> Fold:
    """Single encoder channels of a block before and after refinement."""
    chosen = maps.most_refined(inspection, block)
    panels = [
        _feature(inspection, inspection.tap(block, tap)[[index]], f"channel {index}", f"{when} refinement")
        for index in chosen
        for tap, when in (("lrm.B", "before"), ("lrm.G", "after"))
    ]
    return f"single encoder channels of the last block: {len(chosen)} that change most and least", panels


def _queries(inspection: Inspection, fields: Sequence[str]) -> Iterator[Panel]:
    """UN-EPT's context queries, once for each attention, whose points are drawn on them."""
    queries = next((values for path, values in inspection.taps.items() if path.endswith("context_queries")), None)
    if queries is None:
        return
    for index, name in enumerate(fields):
        if name.startswith("points "):
            yield _feature(inspection, queries, "context queries", f"{{}}, with the {name}")._replace(field=index)
    spread = queries.std(0, keepdim=True)
    yield _feature(inspection, spread, "spread of the queries", "standard deviation over channels")


def _dcn(inspection: Inspection, part: str) -> Iterator[Panel]:
    yield _feature(inspection, inspection.tap(part, "fused"), "output", "{}")


PANELS: dict[str, Callable[[Inspection, str], Iterator[Panel]]] = {"fam": _fam, "ddsm": _ddsm, "dcn": _dcn, "cfb": _cfb}
"""What is shown of each part, by its kind."""
