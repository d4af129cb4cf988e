"""An inspection as one interactive page that needs no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from importlib import resources

import numpy as np

import crispseg
from crispseg import pages
from crispseg.imaging import colorize
from crispseg.inspection.common import predicted, true
from crispseg.inspection.flow import color_wheel
from crispseg.inspection.maps import SCALE, color_strip, direction_colors, scaled
from crispseg.inspection.panels import Panel, part_sections
from crispseg.inspection.payload import payload
from crispseg.inspection.quantities import Inspection

SCRIPTS = ("data.js", "marks.js", "fields.js", "readout.js", "viewer.js")
SIDE = 2048
"""Pixels of a picture's longer side above which it is reduced: class colours are not, in any usual image."""
SMALL = 320
"""The same of pictures that are not laid over the image: they are shown no wider."""
LOSSLESS = 256
"""The same of these where neither JPEG nor a palette makes them small: the flow's colours."""


def inspection_page(inspection: Inspection) -> str:
    """The page, HTML."""
    info = inspection.info
    height, width = inspection.size
    data = payload(inspection)
    title = f"{info.name} on {info.backbone}: {inspection.name}"
    assets = resources.files("crispseg.inspection") / "assets"
    script = "\n".join((assets / name).read_text(encoding="utf-8") for name in SCRIPTS)
    note = f"{width} × {height} pixels, {len(inspection.label_set)} classes, crispseg {crispseg.__version__}"
    if inspection.original_size != inspection.size:
        full = " × ".join(map(str, inspection.original_size[::-1]))
        note += f". This is a reduced copy of the image of {full} pixels: all that is shown was computed on the copy"
    blocks = [
        pages.heading(title, 1),
        pages.paragraph(f"{note}.", soft=True),
        pages.cards(_cards(inspection)),
        _viewer(inspection, [str(field["title"]) for field in data["fields"]]),
        _class_table(inspection),
        pages.heading("Result"),
        _panels(inspection, _results(inspection)),
        pages.heading("Certainty"),
        _panels(inspection, _certainty(inspection)),
    ]
    if inspection.unrefined is not None:
        blocks += [pages.heading("Boundary refinement"), pages.paragraph(_REFINEMENT, soft=True)]
        blocks.append(_panels(inspection, _refinement(inspection)))
    for name, explained, folds in part_sections(inspection, [str(field["title"]) for field in data["fields"]]):
        blocks += [pages.heading(name), pages.paragraph(explained, soft=True)]
        for index, (summary, panels) in enumerate(folds):
            opened = " open" if index == len(folds) - 1 else ""
            blocks.append(
                f"<details{opened}><summary>{escape(summary)}</summary>{_panels(inspection, panels)}</details>"
            )
    blocks.append(pages.data_block("inspection", data))
    return pages.page(title, *blocks, style=(assets / "page.css").read_text(encoding="utf-8"), script=script)


_REFINEMENT = (
    "A pixel that is likely on a boundary takes the label of a pixel further inside its region, one or two steps in "
    "the predicted direction."
)


def _cards(inspection: Inspection) -> list[tuple[str, str, str]]:
    confidence, entropy = inspection.confidence(), inspection.entropy()
    most = math.log(len(inspection.probabilities))
    cards = [
        ("mean confidence", f"{confidence.mean():.3f}", "probability of the most likely class"),
        ("mean entropy", f"{entropy.mean():.3f}", f"nats; {most:.2f} if all classes were equally likely"),
    ]
    if inspection.truth is not None:
        accuracy = inspection.accuracy()
        shown = "–" if math.isnan(accuracy) else f"{100 * accuracy:.1f}"
        cards.insert(0, ("pixel accuracy", shown, "% of the pixels that count"))
    if inspection.unrefined is not None:
        moved = 100 * float((inspection.unrefined != inspection.labels).mean())
        cards.append(("changed by refinement", f"{moved:.2f}", "% of the labels"))
    return cards


def _viewer(inspection: Inspection, fields: Sequence[str]) -> str:
    """The large picture with its controls, and what is known of a pixel."""
    layers = ["prediction", *(["truth", "errors"] if inspection.truth is not None else []), "confidence", "entropy"]
    if inspection.unrefined is not None:
        layers += ["before refinement", "boundary", "direction"]
    image = pages.picture(inspection.image, f"{inspection.name}, the image", photo=True, longest=SIDE)
    controls = [
        f'<label>over the image <select id="layer">{_choices(layers, layers)}<option value="">nothing</option>'
        "</select></label>",
        '<label>opacity <input id="opacity" type="range" min="0" max="100" value="50"> '
        '<span id="percent"></span></label>',
    ]
    if fields:
        numbers = [str(index) for index in range(len(fields))]
        chosen = _first_field(fields)
        controls += [
            f'<label>at the pixel <select id="marks">{_choices(fields, numbers, chosen)}'
            '<option value="-1">nothing</option></select></label>',
            '<label id="group-row">of these <select id="group"></select></label>',
            '<label id="all-row"><input id="all" type="checkbox"> arrows all over</label>',
        ]
    label = (
        f"{inspection.name}: point at a pixel to see what the model computed there; the arrow keys move by one pixel, "
        "with Shift by ten"
    )
    field = '<div id="field"></div>' if fields else ""
    return (
        f'<section class="viewer"><div><div class="stage" id="stage" role="application" aria-label="{escape(label)}">'
        f'{image}<img id="shown" alt="" hidden></div>\n<div class="controls">{"".join(controls)}</div></div>\n'
        '<div class="readout" aria-live="polite"><p class="soft" id="pinned">Details need JavaScript.</p>'
        f'<div id="pixel"></div><ol id="probabilities"></ol>{field}</div></section>'
    )


def _first_field(fields: Sequence[str]) -> int:
    """What is drawn at first: the finest level's or the last layer's cross-attention."""
    crossing = [index for index, name in enumerate(fields) if name.endswith("cross-attention")]
    inner = [index for index, name in enumerate(fields) if name != "boundary refinement"]
    return (crossing or inner or [0])[-1]


def _choices(names: Sequence[str], values: Sequence[str], chosen: int = 0) -> str:
    return "".join(
        f'<option value="{escape(value)}"{" selected" if index == chosen else ""}>{escape(name)}</option>'
        for index, (name, value) in enumerate(zip(names, values, strict=True))
    )


def _class_table(inspection: Inspection) -> str:
    """The legend: colours and names of the classes with their shares, in percent of the pixels."""
    labels = inspection.label_set
    predicted_counts = np.bincount(inspection.labels.ravel(), minlength=256)[: len(labels)]
    head = ["class", "% of prediction"]
    columns = [100 * predicted_counts / inspection.labels.size]
    present = predicted_counts > 0
    if inspection.truth is not None:
        true_counts = np.bincount(inspection.truth.ravel(), minlength=256)[: len(labels)]
        both = inspection.truth == inspection.labels
        hits = np.bincount(inspection.truth[both], minlength=256)[: len(labels)]
        known = inspection.truth < len(labels)
        counted = np.bincount(inspection.labels[known], minlength=256)[: len(labels)]
        union = true_counts + counted - hits
        columns += [
            100 * true_counts / inspection.truth.size,
            np.where(union > 0, 100 * hits / np.maximum(union, 1), np.nan),
        ]
        head += ["% of truth", "IoU here, %"]
        present |= true_counts > 0
    order = [index for index in np.argsort(-columns[0], kind="stable") if present[index]]
    rows = [
        [
            pages.named(labels.names[index], labels.palette[index]),
            *("–" if math.isnan(column[index]) else f"{column[index]:.1f}" for column in columns),
        ]
        for index in order
    ]
    absent = [labels.names[index] for index in range(len(labels)) if not present[index]]
    rest = pages.paragraph(f"Not in this image: {', '.join(absent)}.", soft=True) if absent else ""
    return pages.heading("Classes") + pages.table(head, rows) + rest


def _results(inspection: Inspection) -> list[Panel]:
    panels = [
        Panel("image", inspection.image, photo=True),
        Panel("prediction", predicted(inspection), layer=True, exact=True),
    ]
    if inspection.truth is not None:
        panels += [
            Panel("truth", true(inspection), "ignored pixels black", layer=True, exact=True),
            Panel(
                "errors",
                inspection.errors(),
                "right pixels black, ignored ones grey, wrong ones in the truth's colour",
                layer=True,
                exact=True,
            ),
        ]
    return panels


def _certainty(inspection: Inspection) -> list[Panel]:
    least, most = 1 / len(inspection.probabilities), math.log(len(inspection.probabilities))
    return [
        Panel(
            "confidence",
            scaled(inspection.confidence(), least, 1),
            "probability of the most likely class",
            scale=(SCALE, f"{least:.2f}", "1"),
            layer=True,
            photo=True,
        ),
        Panel(
            "entropy",
            scaled(inspection.entropy(), 0, most),
            "of the classes' probabilities",
            scale=(SCALE, "0", f"{most:.2f} nats"),
            layer=True,
            photo=True,
        ),
    ]


def _refinement(inspection: Inspection) -> list[Panel]:
    assert inspection.unrefined is not None and inspection.boundary is not None
    before = colorize(inspection.unrefined, inspection.label_set.palette)
    return [
        Panel("before refinement", before, layer=True, exact=True),
        Panel("after refinement", predicted(inspection), exact=True),
        Panel(
            "boundary",
            scaled(inspection.boundary, 0, 1),
            "probability of a pixel to be on a boundary",
            scale=(SCALE, "0", "1"),
            layer=True,
            photo=True,
        ),
        Panel(
            "direction",
            direction_colors(inspection),
            "to the inside, of pixels more likely on a boundary than not: its hue; others white",
            wheel="hue: direction",
            layer=True,
            exact=True,
        ),
    ]


def _panels(inspection: Inspection, panels: Sequence[Panel]) -> str:
    return f'<div class="panels">{"".join(_figure(inspection, panel) for panel in panels)}</div>'


def _figure(inspection: Inspection, panel: Panel) -> str:
    longest = SIDE if panel.layer else SMALL if panel.photo or panel.exact else LOSSLESS
    shown = pages.picture(panel.pixels, f"{inspection.name}, {panel.name}", photo=panel.photo, longest=longest)
    if panel.exact:
        shown = shown.replace("<img ", '<img class="exact" ', 1)
    layer = f' data-layer="{escape(panel.name)}"' if panel.layer else ""
    field = f' data-field="{panel.field}"' if panel.field is not None else ""
    text = f"{panel.name}: {panel.note}" if panel.note else panel.name
    scale = ""
    if panel.scale:
        colors, low, high = panel.scale
        strip = pages.picture(color_strip(colors), "colours from low to high")
        scale = f'<div class="scale"><span>{escape(low)}</span>{strip}<span>{escape(high)}</span></div>'
    if panel.wheel:
        wheel = pages.picture(color_wheel(), "colour of each direction").replace("<img ", '<img class="wheel" ', 1)
        scale = f'<div class="scale">{wheel}<span>{escape(panel.wheel)}</span></div>'
    return (
        f'<figure><div class="stage"{layer}{field}>{shown}</div><figcaption>{escape(text)}{scale}</figcaption></figure>'
    )
