"""Interactive page of an inspection; it works offline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import crispseg
from crispseg.evaluation.bootstrap import percent
from crispseg.evaluation.scores import SegmentationScores
from crispseg.inspection import maps
from crispseg.inspection.activations import KINDS, Inspection
from crispseg.inspection.fields import flow_of, payload
from crispseg.inspection.maps import HEAT, SCALE, mean_map, scaled
from crispseg.io.images import colorize
from crispseg.labels import Color
from crispseg.visualization import pages
from crispseg.visualization.pictures import RIGHT, for_display

SIDE, SMALL = 2048, 320  # maximum longer side, in pixels, of pictures that can overlay the image, and of other pictures
CLEAR = (255, 0, 255)  # transparent colour of `edges`
RAMP = np.linspace(0, 1, 256)[None]  # numbers of a legend, `(1, 256)`


class Panel(NamedTuple):
    """Small picture on the page: its name, its RGB pixels `(H, W, 3)`, and a note after the name.

    `scale` is an OpenCV colour map with the meanings of its lowest and highest colour; `wheel` is the meaning of
    direction colours. A `layer` can overlay the image; its colour `clear` is transparent. A `photo` is saved as JPEG.
    """

    name: str
    pixels: NDArray[np.uint8]
    note: str = ""
    scale: tuple[int, str, str] | None = None
    wheel: str = ""
    layer: bool = False
    clear: Color | None = None
    photo: bool = False


def inspection_page(inspection: Inspection, other: Inspection | None = None) -> str:
    """Return the HTML page of an inspection; aligned features of `other`, of the same image, are shown next to it."""

    def embedded(panel: Panel) -> pages.Picture:
        text, longest = f"{inspection.name}, {panel.name}", SIDE if panel.layer else SMALL
        return pages.embedded(panel.pixels, text, photo=panel.photo, longest=longest, clear=panel.clear)

    data = payload(inspection)
    return pages.render(
        "inspection.html",
        title=f"{inspection.info.title}: {inspection.name}",
        seen=inspection,
        version=crispseg.__version__,
        brightened=pages.BRIGHTENED,
        classes=classes(inspection),
        sections=sections(inspection) | {"aligned": aligned(inspection, other) if other else []},
        fields=[field["title"] for field in data["fields"]],
        embedded=embedded,
        strip=lambda colors: pages.embedded(scaled(RAMP, 0, 1, colors), "colours from low to high"),
        wheel=pages.embedded(maps.color_wheel(), "colour of each direction"),
        photo=pages.embedded(for_display(inspection.image), f"{inspection.name}, the image", photo=True, longest=SIDE),
        edges=pages.embedded(edges(inspection.labels), "boundaries of the classes", longest=SIDE, clear=CLEAR),
        data=data,
    )


def edges(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw the lines between classes, white with a black rim, so that they are visible on everything; else `CLEAR`."""
    square = np.ones((2, 2), np.uint8)
    lines = (cv2.dilate(labels, square) != cv2.erode(labels, square)).astype(np.uint8)
    rims = cv2.dilate(lines, np.ones((3, 3), np.uint8))
    return colorize(lines + rims, (CLEAR, (0, 0, 0), (255, 255, 255)))


def classes(inspection: Inspection) -> dict[str, Any]:
    """Return the legend: `columns` (percent of the pixels), `rows` (name, colour, values) and `absent` names."""
    labels, truth = inspection.label_set, inspection.truth
    share = 100 * np.bincount(inspection.labels.ravel(), minlength=len(labels)) / inspection.labels.size
    columns, present = {"% of prediction": share}, share > 0
    if truth is not None:
        counter = SegmentationScores(len(labels))
        counter.update(inspection.labels[None], truth[None])
        scores = counter.scores()
        columns |= {"% of truth": 100 * scores.truth / truth.size, "IoU here, %": scores.iou}
        present |= scores.truth > 0
    rows = [
        (labels.names[index], labels.palette[index], [percent(column[index]) for column in columns.values()])
        for index in np.argsort(-share, kind="stable")
        if present[index]
    ]
    absent = [name for name, is_present in zip(labels.names, present, strict=True) if not is_present]
    return {"columns": list(columns), "rows": rows, "absent": absent}


def sections(inspection: Inspection) -> dict[str, list[tuple[str, list[Panel]]]]:
    """Return all pictures by section of the page and title of their group; groups without a title are always open."""
    shown = {"result": [("", [*_results(inspection)])], "refinement": []}
    if inspection.boundary is not None:
        shown["refinement"] = [("", [*_refinement(inspection)])]
    for kind, panels in PANELS.items():
        shown[kind] = [(inspection.parts[part].title, [*panels(inspection, part)]) for part in inspection.of(kind)]
    return shown


def aligned(*inspections: Inspection) -> list[tuple[str, list[Panel]]]:
    """Return the levels that flows and deformable convolutions compute, by their step (SFNet, Fig. 4)."""
    steps: dict[str, list[Panel]] = {}
    names = {"fam": "flow", "dcn": "deformable convolution"}
    for inspection in inspections:
        for part, (kind, title) in inspection.parts.items():
            if kind in names:
                name = f"{inspection.info.name}, {names[kind]}"
                steps.setdefault(title, []).append(_feature(inspection, inspection.tap(part, KINDS[kind]), name))
    return [*steps.items()]


def _results(inspection: Inspection) -> Iterator[Panel]:
    labels = inspection.label_set
    background = None if labels.background is None else labels.palette[labels.background]
    yield Panel("image", for_display(inspection.image), photo=True)
    yield Panel("prediction", inspection.colors(), layer=True, clear=background)
    if inspection.truth is not None:
        truth = inspection.colors(inspection.truth)
        yield Panel("truth", truth, "ignored pixels black", layer=True, clear=background)
        kinds = "false alarms red, missed pixels blue, " if background else ""
        note = f"{kinds}pixels of a wrong class yellow, ignored ones grey"
        yield Panel("errors", inspection.errors(), note, layer=True, clear=RIGHT)
    confidence, least = inspection.probabilities.max(0), 1 / len(inspection.probabilities)
    note, ends = "probability of the most likely class", (SCALE, f"{least:.2g}", "1")
    yield Panel("confidence", scaled(confidence, least, 1), note, scale=ends, layer=True, photo=True)


def _refinement(inspection: Inspection) -> Iterator[Panel]:
    """Yield the result before and after refinement, and the boundaries that refinement uses."""
    assert inspection.boundary is not None
    yield Panel("before refinement", inspection.colors(inspection.unrefined), layer=True)
    yield Panel("after refinement", inspection.colors())
    note, probability = "probability that a pixel is on a boundary", scaled(inspection.boundary, 0, 1)
    yield Panel("boundary", probability, note, scale=(SCALE, "0", "1"), layer=True, photo=True)


def _feature(inspection: Inspection, values: Tensor, name: str, note: str = "") -> Panel:
    """Draw the mean over channels of a level `(C, h, w)`."""
    mean = mean_map(values, inspection)
    low, high = float(mean.min()), float(mean.max())
    ends = HEAT, f"{low:.2g}", f"{high:.2g}"
    note = f"{values.shape[-1]} × {values.shape[-2]} pixels" + (f", {note}" if note else "")
    return Panel(name, scaled(mean, low, high, HEAT), note, scale=ends, photo=True)


def _fam(inspection: Inspection, part: str) -> Iterator[Panel]:
    """Yield levels before and after alignment, and flows; vectors are interpolated, not their colours (SFNet, §4.2)."""
    yield _feature(inspection, inspection.tap(part, "coarse"), "coarse level, upsampled", "before alignment")
    yield _feature(inspection, inspection.tap(part, "fine"), "fine level")
    gated = inspection.has(part, "gate")
    for prefix, level, name in (("", "coarse", "flow"), ("fine_", "fine", "second flow"))[: 1 + gated]:
        flow = flow_of(inspection, part, f"{prefix}flow")
        wheel = f"hue: direction; full colour: {float(flow.norm(dim=0).max()):.2f} px of the level"
        yield Panel(name, maps.flow_image(maps.at_image(flow, inspection)), f"of the {level} level", wheel=wheel)
        warped = inspection.tap(part, f"{prefix}warped")
        yield _feature(inspection, warped, f"{level} level, warped", "after alignment")
    if gated:
        gate = scaled(mean_map(inspection.tap(part, "gate"), inspection), 0, 1)
        yield Panel("gate", gate, "share of the coarse level", scale=(SCALE, "0", "1"), photo=True)


def _dcn(inspection: Inspection, part: str) -> Iterator[Panel]:
    yield _feature(inspection, inspection.tap(part, "fused"), "fused level", "both levels, deformably convolved")


def _ddsm(inspection: Inspection, part: str) -> Iterator[Panel]:
    for name in ("coarse x_h", "fine x_l", "spatial x_Sout", "channel x_Cout"):
        if inspection.has(part, tap := name.split()[1]):
            yield _feature(inspection, inspection.tap(part, tap), name)
    if inspection.has(part, "x_Sout", "x_Cout"):
        yield _feature(inspection, inspection.tap(part, "x_Sout") + inspection.tap(part, "x_Cout"), "x_Sout + x_Cout")


def _cfb(inspection: Inspection, block: str) -> Iterator[Panel]:
    """Yield features before and after distribution and local refinement, and the descriptors of pixels (AGLN)."""
    for tap, name, note in (
        ("sdm.A", "decoder feature A", ""),
        ("sdm.M", "descriptor map M", "each pixel's mixture"),
        ("sdm.E", "enhanced feature E", "Ψ(A + αM)"),
        ("lrm.B", "encoder feature B", "before refinement"),
        ("lrm.G", "encoder feature G", "after refinement"),
    ):
        yield _feature(inspection, inspection.tap(block, tap), name, note)


PANELS: dict[str, Callable[[Inspection, str], Iterator[Panel]]] = {
    "fam": _fam,
    "dcn": _dcn,
    "ddsm": _ddsm,
    "cfb": _cfb,
}
