"""An inspection as one interactive page that needs no network."""

from __future__ import annotations

import math
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import crispseg
from crispseg import pages
from crispseg.inspection.maps import color_strip, color_wheel
from crispseg.inspection.panels import Panel, sections
from crispseg.inspection.payload import payload
from crispseg.inspection.quantities import Inspection

SCRIPTS = ("data.js", "marks.js", "fields.js", "readout.js", "edges.js", "viewer.js")
SIDE = 2048
"""Pixels of a picture's longer side above which it is reduced: class colours are not, in any usual image."""
SMALL = 320
"""The same of pictures that are not laid over the image: they are shown no wider."""
LOSSLESS = 256
"""The same of these where neither JPEG nor a palette makes them small: the flow's colours."""


def inspection_page(inspection: Inspection) -> str:
    """The page, HTML."""
    data = payload(inspection)
    fields = [str(field["title"]) for field in data["fields"]]
    assets = resources.files("crispseg.inspection") / "assets"
    environment = Environment(
        loader=PackageLoader("crispseg.inspection", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    title = f"{inspection.info.name} on {inspection.info.backbone}: {inspection.name}"
    body = environment.get_template("page.html").render(
        title=title,
        seen=inspection,
        version=crispseg.__version__,
        cards=Markup(pages.cards(cards(inspection))),
        classes=Markup(class_table(inspection)),
        absent=absent_classes(inspection),
        sections=sections(inspection, fields),
        fields=fields,
        first_field=first_field(fields),
        picture=_picture,
        strip=lambda colors: Markup(pages.picture(color_strip(colors), "colours from low to high")),
        wheel=Markup(pages.picture(color_wheel(), "colour of each direction")),
        photo=Markup(pages.picture(inspection.image, f"{inspection.name}, the image", photo=True, longest=SIDE)),
        data=Markup(pages.data_block("inspection", data)),
    )
    script = "\n".join((assets / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return pages.page(title, body, style=(assets / "page.css").read_text(encoding="utf-8"), script=script)


def _picture(inspection: Inspection, panel: Panel) -> Markup:
    longest = SIDE if panel.layer else SMALL if panel.photo or panel.exact else LOSSLESS
    text = f"{inspection.name}, {panel.name}"
    return Markup(pages.picture(panel.pixels, text, photo=panel.photo, longest=longest))


def cards(inspection: Inspection) -> list[tuple[str, str, str]]:
    """The numbers to see first: name, value, and what is small below it."""
    confidence, entropy = inspection.confidence(), inspection.entropy()
    most = math.log(len(inspection.probabilities))
    found = [
        ("mean confidence", f"{confidence.mean():.3f}", "probability of the most likely class"),
        ("mean entropy", f"{entropy.mean():.3f}", f"nats; {most:.2f} if all classes were equally likely"),
    ]
    if inspection.truth is not None:
        found.insert(0, ("pixel accuracy", _shown(100 * inspection.accuracy()), "% of the pixels that count"))
    if inspection.unrefined is not None:
        moved = 100 * float((inspection.unrefined != inspection.labels).mean())
        found.append(("changed by refinement", f"{moved:.2f}", "% of the labels"))
    return found


def _shown(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def first_field(fields: list[str]) -> int:
    """Index of what is drawn at first: the finest level's or the last layer's cross-attention."""
    crossing = [index for index, name in enumerate(fields) if name.endswith("cross-attention")]
    inner = [index for index, name in enumerate(fields) if name != "boundary refinement"]
    return (crossing or inner or [0])[-1]


def class_table(inspection: Inspection) -> str:
    """The legend, HTML: colours and names of the classes with their shares, in percent of the pixels."""
    labels, truth = inspection.label_set, inspection.truth

    def counts(ids: Any) -> Any:
        return np.bincount(ids.ravel(), minlength=256)[: len(labels)]

    predicted = counts(inspection.labels)
    columns = {"% of prediction": 100 * predicted / inspection.labels.size}
    present = predicted > 0
    if truth is not None:
        true, hits = counts(truth), counts(truth[truth == inspection.labels])
        union = true + counts(inspection.labels[truth < len(labels)]) - hits
        columns["% of truth"] = 100 * true / truth.size
        columns["IoU here, %"] = np.where(union > 0, 100 * hits / np.maximum(union, 1), np.nan)
        present |= true > 0
    rows = [
        [pages.named(labels.names[index], labels.palette[index]), *(_shown(each[index]) for each in columns.values())]
        for index in np.argsort(-predicted, kind="stable")
        if present[index]
    ]
    return pages.table(["class", *columns], rows)


def absent_classes(inspection: Inspection) -> list[str]:
    """Names of the classes that are neither in the prediction nor in the truth."""
    maps = [inspection.labels] if inspection.truth is None else [inspection.labels, inspection.truth]
    present = np.unique(np.concatenate([np.unique(each) for each in maps]))
    return [name for index, name in enumerate(inspection.label_set.names) if index not in present]
