"""An inspection as one interactive page that needs no network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import crispseg
from crispseg.evaluation.bootstrap import percent
from crispseg.evaluation.scores import SegmentationScores
from crispseg.inspection import maps
from crispseg.inspection.activations import Inspection
from crispseg.inspection.fields import flow_of, payload
from crispseg.inspection.maps import HEAT, SCALE, mean_map, scaled
from crispseg.labels import IGNORE, Color
from crispseg.visualization import pages
from crispseg.visualization.pictures import RIGHT

SIDE = 2048
"""Pixels of a picture's longer side above which it is reduced: class colours are not, in any usual image."""
SMALL = 320
"""The same of pictures that are not laid over the image: they are shown no wider."""
LOSSLESS = 256
"""The same of these where neither JPEG nor a palette makes them small: the flow's colours."""
RAMP = np.linspace(0, 1, 256)[None]
"""The numbers of a legend, `(1, 256)`."""


class Panel(NamedTuple):
    """A small picture of the page.

    Args:
        name: below the picture.
        pixels: `(H, W, 3)` RGB.
        note: behind the name.
        scale: a colour map of OpenCV, and the meaning of its lowest and of its highest colour.
        wheel: meaning of the colours of directions, with the wheel next to it.
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


def inspection_page(inspection: Inspection) -> str:
    """Return the page, HTML."""
    data = payload(inspection)
    fields = [str(field["title"]) for field in data["fields"]]
    # At first the finest level's field is drawn, or the last layer's cross-attention.
    crossing = [index for index, name in enumerate(fields) if name.endswith("cross-attention")]
    inner = [index for index, name in enumerate(fields) if name != "boundary refinement"]
    return pages.render(
        "inspection.html",
        title=f"{inspection.info.name} on {inspection.info.backbone}: {inspection.name}",
        seen=inspection,
        version=crispseg.__version__,
        numbers=cards(inspection),
        classes=classes(inspection),
        sections=sections(inspection, fields),
        fields=fields,
        first_field=(crossing or inner or [0])[-1],
        embedded=partial(_embedded, inspection.name),
        strip=lambda colors: pages.embedded(scaled(RAMP, 0, 1, colors), "colours from low to high"),
        wheel=pages.embedded(maps.color_wheel(), "colour of each direction"),
        photo=pages.embedded(inspection.image, f"{inspection.name}, the image", photo=True, longest=SIDE),
        data=data,
    )


def _embedded(name: str, panel: Panel) -> pages.Picture:
    """A panel of the image of this name."""
    longest = SIDE if panel.layer else SMALL if panel.photo or panel.exact else LOSSLESS
    return pages.embedded(panel.pixels, f"{name}, {panel.name}", photo=panel.photo, longest=longest, clear=panel.clear)


def cards(inspection: Inspection) -> list[tuple[str, str, str]]:
    """The numbers to see first: name, value, and a note below it."""
    most = math.log(len(inspection.probabilities))
    found = [
        ("mean confidence", f"{inspection.confidence().mean():.3f}", "probability of the most likely class"),
        ("mean entropy", f"{inspection.entropy().mean():.3f}", f"nats; {most:.2f} if all classes were equally likely"),
    ]
    if inspection.truth is not None:
        right = (inspection.labels == inspection.truth)[inspection.truth != IGNORE]
        accuracy = 100 * float(right.mean()) if right.size else math.nan
        found.insert(0, ("pixel accuracy", percent(accuracy), "% of the pixels that count"))
    if inspection.unrefined is not None:
        moved = 100 * float((inspection.unrefined != inspection.labels).mean())
        found.append(("changed by refinement", f"{moved:.2f}", "% of the labels"))
    return found


def classes(inspection: Inspection) -> dict[str, Any]:
    """The legend: `columns`, shares in percent of the pixels; `rows` of name, colour and these; `absent` names."""
    labels, truth = inspection.label_set, inspection.truth
    counter = SegmentationScores(len(labels))
    predicted = torch.from_numpy(inspection.labels)
    counter.update(predicted, predicted if truth is None else torch.from_numpy(truth))
    scores = counter.scores()
    share = np.bincount(inspection.labels.ravel(), minlength=len(labels)) / inspection.labels.size
    columns, present = {"% of prediction": 100 * share}, (share > 0) | (scores.truth > 0)
    if truth is not None:
        columns |= {"% of truth": 100 * scores.truth / truth.size, "IoU here, %": scores.iou}
    rows = [
        (labels.names[index], labels.palette[index], [percent(each[index]) for each in columns.values()])
        for index in np.argsort(-share, kind="stable")
        if present[index]
    ]
    absent = [name for name, there in zip(labels.names, present, strict=True) if not there]
    return {"columns": list(columns), "rows": rows, "absent": absent}


# Pictures -------------------------------------------------------------------------------------------------------------


def sections(inspection: Inspection, fields: Sequence[str]) -> dict[str, list[Fold]]:
    """All pictures, by the section of the page, whose heading the template has.

    Args:
        inspection: to show.
        fields: titles of the page's fields, in their order.
    """
    found: dict[str, list[Fold]] = {}
    for kind, panels in PANELS.items():
        found[kind] = []
        for part in inspection.of(kind):
            title = inspection.parts[part].title
            field = next((i for i, each in enumerate(fields) if each in (f"flow {title}", f"points {title}")), None)
            found[kind].append((title, [panel._replace(field=field) for panel in panels(inspection, part)]))
    for name, own in (
        ("result", _results(inspection)),
        ("certainty", _certainty(inspection)),
        ("refinement", _refinement(inspection)),
        ("queries", _queries(inspection, fields)),
    ):
        pictures = list(own)
        found[name] = [("", pictures)] if pictures else []
    return found


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


def _feature(inspection: Inspection, values: Tensor, name: str, note: str) -> Panel:
    """The mean over channels of a level `(C, h, w)`; `{}` in the note is the level's size."""
    mean = mean_map(values, inspection)
    size = f"{values.shape[-1]} × {values.shape[-2]} pixels"
    ends = HEAT, f"{mean.min():.2g}", f"{mean.max():.2g}"
    return Panel(name, scaled(mean, colors=HEAT), note.format(size), scale=ends, photo=True)


def _flow(inspection: Inspection, flow: Tensor, name: str, note: str) -> Panel:
    """A flow `(2, h, w)` in pixels of its level: the field, not its colours, is interpolated (SFNet, §4.2)."""
    wheel = f"hue: direction; full colour: {float(flow.norm(dim=0).max()):.2f} px of the level"
    return Panel(name, maps.flow_image(maps.at_image(flow, inspection)), note, wheel=wheel)


def _fam(inspection: Inspection, part: str) -> Iterator[Panel]:
    yield _feature(inspection, inspection.tap(part, "coarse"), "coarse level, upsampled", "before alignment, {}")
    yield _feature(inspection, inspection.tap(part, "fine"), "fine level", "{}")
    yield _flow(inspection, flow_of(inspection, part), "flow", "of the fine level")
    yield _feature(inspection, inspection.tap(part, "warped"), "coarse level, warped", "after alignment")
    if inspection.has(part, "fine_flow", "fine_warped", "gate"):
        yield _flow(inspection, flow_of(inspection, part, "fine_flow"), "second flow", "where the fine level is read")
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


def _dcn(inspection: Inspection, part: str) -> Iterator[Panel]:
    yield _feature(inspection, inspection.tap(part, "fused"), "output", "{}")


def _cfb(inspection: Inspection, block: str) -> Iterator[Panel]:
    height, width = inspection.tap(block, "sdm.M").shape[-2:]
    names = ("decoder feature A", "descriptor map M", "enhanced feature E")
    notes = (f"{width} × {height} pixels", "each pixel's mixture", "Ψ(A + αM)")
    for name, pixels, note in zip(names, maps.enhancement_maps(inspection, block), notes, strict=True):
        yield Panel(name, pixels, note, photo=True)
    for tap, when in (("B", "before"), ("G", "after")):
        values = inspection.tap(block, f"lrm.{tap}")
        yield _feature(inspection, values, f"encoder feature {tap}", f"{when} refinement, mean over channels")


PANELS: dict[str, Callable[[Inspection, str], Iterator[Panel]]] = {"fam": _fam, "ddsm": _ddsm, "dcn": _dcn, "cfb": _cfb}
"""Pictures of each part, by its kind."""
