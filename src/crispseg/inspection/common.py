"""What the figures of several papers share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError
from crispseg.imaging import colorize
from crispseg.inspection.quantities import Inspection
from crispseg.labels import LabelSet
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


def distinct_names(ours: Inspection, theirs: Inspection | None) -> list[str]:
    """What titles call the models, theirs first: their names, and where these are the same, what else differs."""
    if theirs is None:
        return [ours.info.name]
    infos = [theirs.info, ours.info]
    names = [info.name for info in infos]
    if names[0] != names[1]:
        return names
    if infos[0].backbone != infos[1].backbone:
        return [f"{info.name}, {info.backbone}" for info in infos]
    keys = [key for key in infos[1].options if infos[0].options.get(key) != infos[1].options[key]]
    if not keys:  # trained in another way
        return [f"{names[0]}, the other", names[1]]
    return [", ".join([info.name, *(f"{key} {info.options.get(key)}" for key in keys[:2])]) for info in infos]


def errors_figure(ours: Inspection, theirs: Inspection | None, *, legend: bool = True) -> Picture:
    """Image, truth, the prediction of each model, and the errors of each."""
    same_images(ours, theirs)
    models = [theirs, ours] if theirs else [ours]
    row = [ours.image, true(ours)] + [predicted(each) for each in models] + [each.errors() for each in models]
    names = distinct_names(ours, theirs)
    titles = ["image", "truth"]
    for what in ("output", "errors"):
        titles += [f"{what}, {name}" for name in names] if theirs else [what]
    return panels([row], titles, shown_classes(ours, theirs) if legend else None)


def outputs_figure(ours: Inspection, theirs: Inspection | None) -> Picture:
    """Image, truth, and the prediction of each model, theirs first."""
    same_images(ours, theirs)
    models = [theirs, ours] if theirs else [ours]
    row = [ours.image, true(ours), *(predicted(each) for each in models)]
    return panels([row], ["image", "truth", *distinct_names(ours, theirs)], shown_classes(ours, theirs))


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
