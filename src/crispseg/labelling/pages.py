"""Pages of images to label next and of masks that are probably wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import starmap
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crispseg.data.picture import with_mask
from crispseg.inference import Segmentation
from crispseg.io.images import as_picture
from crispseg.labelling.errors import Suspect
from crispseg.labelling.following import UNSURE, Candidate, cell_entropies
from crispseg.labels import IGNORE, LabelSet
from crispseg.visualization import pages
from crispseg.visualization.pictures import BLACK, WHITE, for_display, overlay

UNCERTAIN = LabelSet(("background", "uncertain"), ((0, 0, 0), (255, 225, 0)))


def errors_page(title: str, conditions: str, suspects: Sequence[Suspect]) -> str:
    """Return the HTML page of doubtful masks, each over its image next to the image and the prediction."""
    note = (
        "The masks that the model finds least probable come first. The box surrounds the most doubtful area of each. "
        "The model may be wrong: compare mask and prediction with the image."
    )
    return _page(title, conditions, note, suspects[0].judge.dataset.labels, map(_suspect, suspects))


def next_page(title: str, conditions: str, chosen: Iterable[tuple[Candidate, Segmentation]], labels: LabelSet) -> str:
    """Return the HTML page of images to label, each with its uncertain cells and its prediction."""
    note = "The most useful images, or boxes for strokes, come first. The most uncertain tenth has a yellow outline."
    return _page(title, conditions, note, labels, starmap(_candidate, chosen))


def _page(title: str, conditions: str, note: str, labels: LabelSet, entries: Iterable[Any]) -> str:
    """Render entries: the name of an image, its pictures by their captions, class ids in them, and a box or nothing."""
    images, shown = [], set[int]()
    for name, drawn, ids, box in entries:
        images.append((name, [(_embedded(pixels, text, box), text) for text, pixels in drawn.items()]))
        shown.update(np.unique(ids).tolist())
    classes = [labels.legend[index] for index in sorted(shown - {IGNORE}) if index != labels.background]
    group = {"heading": "Images", "about": note, "classes": classes, "images": images}
    return pages.render("scores.html", title=title, conditions=conditions, note=pages.BRIGHTENED, groups=[group])


def _suspect(suspect: Suspect) -> tuple[Any, ...]:
    sample, labels = suspect.judge.dataset[suspect.place], suspect.judge.dataset.labels
    predicted, image = suspect.judge.segmenter.labels(sample.image), for_display(as_picture(sample.image))
    fault: str = suspect.kind
    if suspect.labelled:
        fault += f": {suspect.labelled} looks like {suspect.predicted}"
    drawn = {
        "image": image,
        f"mask, quality {suspect.quality:.2f}, {fault}": with_mask(image, sample.labels, labels),
        "prediction": with_mask(image, predicted, labels),
    }
    return suspect.name, drawn, np.stack([sample.labels, predicted]), suspect.box


def _candidate(candidate: Candidate, seen: Segmentation) -> tuple[Any, ...]:
    entropies, image = cell_entropies(seen.probabilities()), for_display(seen.image)
    cells = cv2.resize(entropies, seen.labels.shape[::-1], interpolation=cv2.INTER_NEAREST)
    unsure = (cells >= np.quantile(entropies, 1 - UNSURE)).astype(np.uint8)
    drawn = {
        "image": image,
        f"uncertainty {candidate.uncertainty:.2f}": overlay(image, unsure, UNCERTAIN, outlines=True),
        "prediction": with_mask(image, seen.labels, seen.label_set),
    }
    return candidate.name, drawn, seen.labels, candidate.box


def _embedded(pixels: NDArray[np.uint8], text: str, box: tuple[int, ...]) -> pages.Picture:
    """Embed an image with a box, if any, around an area, white with a black rim."""
    left, top, width, height = box or (0, 0, 0, 0)
    thick = max(2, max(pixels.shape) // 200)
    gap, last = 2 * thick, np.subtract(pixels.shape[1::-1], thick)
    start = np.maximum((left - gap, top - gap), thick).tolist()
    end = np.minimum((left + width + gap, top + height + gap), last).tolist()
    boxed = cv2.rectangle(np.array(pixels), start, end, BLACK, 2 * thick)
    boxed = np.asarray(cv2.rectangle(boxed, start, end, WHITE, thick))
    return pages.embedded(boxed if width else pixels, text, photo=True, longest=480)
