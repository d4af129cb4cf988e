"""An inspection as one interactive page that needs no network."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch

import crispseg
from crispseg.evaluation.scores import SegmentationScores
from crispseg.evaluation.tables import percent
from crispseg.inspection.activations import Inspection
from crispseg.inspection.maps import color_wheel, scaled
from crispseg.inspection.panels import Panel, sections
from crispseg.inspection.payload import payload
from crispseg.labels import IGNORE
from crispseg.visualization import pages

SIDE = 2048
"""Pixels of a picture's longer side above which it is reduced: class colours are not, in any usual image."""
SMALL = 320
"""The same of pictures that are not laid over the image: they are shown no wider."""
LOSSLESS = 256
"""The same of these where neither JPEG nor a palette makes them small: the flow's colours."""
RAMP = np.linspace(0, 1, 256)[None]
"""The numbers of a legend, `(1, 256)`."""


def inspection_page(inspection: Inspection) -> str:
    """The page, HTML."""
    data = payload(inspection)
    fields = [str(field["title"]) for field in data["fields"]]
    return pages.render(
        "inspection.html",
        title=f"{inspection.info.name} on {inspection.info.backbone}: {inspection.name}",
        seen=inspection,
        version=crispseg.__version__,
        numbers=cards(inspection),
        classes=classes(inspection),
        sections=sections(inspection, fields),
        fields=fields,
        first_field=first_field(fields),
        embedded=partial(_embedded, inspection.name),
        strip=lambda colors: pages.embedded(scaled(RAMP, 0, 1, colors), "colours from low to high"),
        wheel=pages.embedded(color_wheel(), "colour of each direction"),
        photo=pages.embedded(inspection.image, f"{inspection.name}, the image", photo=True, longest=SIDE),
        data=data,
    )


def _embedded(name: str, panel: Panel) -> pages.Picture:
    """A panel of the image of this name."""
    longest = SIDE if panel.layer else SMALL if panel.photo or panel.exact else LOSSLESS
    return pages.embedded(panel.pixels, f"{name}, {panel.name}", photo=panel.photo, longest=longest, clear=panel.clear)


def cards(inspection: Inspection) -> list[tuple[str, str, str]]:
    """The numbers to see first: name, value, and what is small below it."""
    confidence, entropy = inspection.confidence(), inspection.entropy()
    most = math.log(len(inspection.probabilities))
    found = [
        ("mean confidence", f"{confidence.mean():.3f}", "probability of the most likely class"),
        ("mean entropy", f"{entropy.mean():.3f}", f"nats; {most:.2f} if all classes were equally likely"),
    ]
    if inspection.truth is not None:
        right = (inspection.labels == inspection.truth)[inspection.truth != IGNORE]
        accuracy = 100 * float(right.mean()) if right.size else math.nan
        found.insert(0, ("pixel accuracy", percent(accuracy), "% of the pixels that count"))
    if inspection.unrefined is not None:
        moved = 100 * float((inspection.unrefined != inspection.labels).mean())
        found.append(("changed by refinement", f"{moved:.2f}", "% of the labels"))
    return found


def first_field(fields: list[str]) -> int:
    """Index of what is drawn at first: the finest level's or the last layer's cross-attention."""
    crossing = [index for index, name in enumerate(fields) if name.endswith("cross-attention")]
    inner = [index for index, name in enumerate(fields) if name != "boundary refinement"]
    return (crossing or inner or [0])[-1]


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
