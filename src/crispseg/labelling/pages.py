"""Pages of images to label next and of masks that are probably wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import starmap
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crispseg.inference import Segmentation
from crispseg.io.images import as_picture, colorize
from crispseg.labelling.errors import Suspect
from crispseg.labelling.following import Candidate, cell_entropies
from crispseg.labels import LabelSet
from crispseg.visualization import pages

UNCERTAIN = (255, 0, 0)
BOX = (255, 0, 255)


def errors_page(title: str, conditions: str, suspects: Sequence[Suspect]) -> str:
    """Return the HTML page of doubtful masks, each next to its image and the prediction."""
    note = (
        "The masks that the model finds least probable come first. The box surrounds the most doubtful area of each. "
        "The model may be wrong: compare mask and prediction with the image."
    )
    return _page(title, conditions, note, suspects[0].judge.dataset.labels, map(_suspect, suspects))


def next_page(title: str, conditions: str, chosen: Iterable[tuple[Candidate, Segmentation]], labels: LabelSet) -> str:
    """Return the HTML page of images to label, each with its uncertain cells and its prediction."""
    note = "The most useful images, or boxes for strokes, come first. Red cells are the most uncertain ones."
    return _page(title, conditions, note, labels, starmap(_candidate, chosen))


def _page(title: str, conditions: str, note: str, labels: LabelSet, images: Iterable[Any]) -> str:
    classes = zip(labels.names, labels.palette, strict=True)
    group = {"heading": "Images", "about": note, "classes": classes, "images": images}
    about: dict[str, Any] = {"cards": [], "tables": [], "note": "", "confusion": None}
    return pages.render("scores.html", title=title, conditions=conditions, groups=[group], **about)


def _suspect(suspect: Suspect) -> tuple[str, list[tuple[pages.Picture, str]]]:
    sample, labels = suspect.judge.dataset[suspect.place], suspect.judge.dataset.labels
    predicted = suspect.judge.segmenter.labels(sample.image)
    fault: str = suspect.kind
    if suspect.labelled:
        fault += f": {suspect.labelled} looks like {suspect.predicted}"
    drawn = {
        "image": as_picture(sample.image),
        f"mask, quality {suspect.quality:.2f}, {fault}": colorize(sample.labels, labels.palette),
        "prediction": colorize(predicted, labels.palette),
    }
    return suspect.name, [(_embedded(_boxed(pixels, suspect.box), text), text) for text, pixels in drawn.items()]


def _candidate(candidate: Candidate, seen: Segmentation) -> tuple[str, list[tuple[pages.Picture, str]]]:
    entropies = cell_entropies(seen.probabilities())
    height, width = seen.labels.shape
    cells = cv2.resize(entropies / max(entropies.max(), 1e-6), (width, height), interpolation=cv2.INTER_NEAREST)
    share = 0.7 * cells[..., None] ** 2
    heat = (seen.image * (1 - share) + np.array(UNCERTAIN) * share).astype(np.uint8)
    drawn = {"image": seen.image, f"uncertainty {candidate.uncertainty:.2f}": heat, "prediction": seen.overlay()}
    return candidate.name, [(_embedded(_boxed(pixels, candidate.box), text), text) for text, pixels in drawn.items()]


def _boxed(pixels: NDArray[np.uint8], box: tuple[int, ...]) -> NDArray[np.uint8]:
    left, top, width, height = box or (0, 0, 0, 0)
    thick = max(1, max(pixels.shape) // 200)
    shown = np.ascontiguousarray(pixels)
    return cv2.rectangle(shown.copy(), (left, top), (left + width, top + height), BOX, thick) if width else shown


def _embedded(pixels: NDArray[np.uint8], text: str) -> pages.Picture:
    return pages.embedded(pixels, text, photo=True, longest=480)
