"""What the figures of several papers share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crispseg.data.base import LabelSet
from crispseg.errors import CrispsegError
from crispseg.imaging import colorize
from crispseg.inspection.quantities import Inspection
from crispseg.visuals import panels

Picture = NDArray[np.uint8]
"""`(H, W, 3)` RGB."""


def predicted(inspection: Inspection) -> Picture:
    """The labels in their classes' colours."""
    return colorize(inspection.labels, inspection.label_set.palette)


def true(inspection: Inspection) -> Picture:
    """The truth in its classes' colours.

    Raises:
        CrispsegError: the inspection has none.
    """
    return colorize(inspection.known_truth(), inspection.label_set.palette)


def same_images(*inspections: Inspection | None) -> None:
    """See that inspections can stand side by side; None is a model that is left out.

    Raises:
        CrispsegError: their images or their classes differ.
    """
    first, *others = [each for each in inspections if each is not None]
    for other in others:
        if not np.array_equal(first.image, other.image):
            raise CrispsegError(
                f"the inspections of {first.name} and {other.name} show different images; inspect the same one"
            )
        if other.label_set != first.label_set:
            raise CrispsegError(
                f"{other.info.name} and {first.info.name} have different classes; compare models of the same data"
            )


def titled(inspection: Inspection, text: str, other: bool) -> str:
    """A column's title, with the model's name where there is another model beside it."""
    return f"{text}, {inspection.info.name}" if other else text


def errors_figure(ours: Inspection, theirs: Inspection | None, *, legend: bool = True) -> Picture:
    """Image, truth, the prediction of each model, and the errors of each."""
    same_images(ours, theirs)
    models = [theirs, ours] if theirs else [ours]
    row = [ours.image, true(ours)] + [predicted(each) for each in models] + [each.errors() for each in models]
    titles = ["image", "truth"]
    titles += [titled(each, "output", theirs is not None) for each in models]
    titles += [titled(each, "errors", theirs is not None) for each in models]
    return panels([row], titles, shown_classes(ours, theirs) if legend else None)


def outputs_figure(ours: Inspection, theirs: Inspection | None) -> Picture:
    """Image, truth, and the prediction of each model, theirs first."""
    same_images(ours, theirs)
    models = [theirs, ours] if theirs else [ours]
    row = [ours.image, true(ours), *(predicted(each) for each in models)]
    return panels([row], ["image", "truth", *(each.info.name for each in models)], shown_classes(ours, theirs))


def shown_classes(*inspections: Inspection | None) -> LabelSet:
    """The classes in any of the truths and predictions, for a legend."""
    known = [each for each in inspections if each is not None]
    maps = [each for one in known for each in (one.labels, one.truth, one.unrefined) if each is not None]
    classes = known[0].label_set
    present = np.unique(np.concatenate([np.unique(each) for each in maps]))
    chosen = [int(index) for index in present if index < len(classes)]
    if len(chosen) < 2:
        return classes
    return LabelSet(tuple(classes.names[i] for i in chosen), tuple(classes.palette[i] for i in chosen))


def needs(there: object, inspection: Inspection, what: str) -> None:
    """Refuse a figure of what the model does not have.

    Raises:
        CrispsegError: `there` is empty.
    """
    if not there:
        raise CrispsegError(f"{inspection.info.name} has no {what}; this figure shows it, so inspect a model with one")
