"""Doubts about masks that are read by a known lookup."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

import numpy as np

from crispseg.data.finding import Finding, Severity
from crispseg.data.id_checks import fault_of
from crispseg.data.mask_lookup import NONE, MaskLookup, MaskStatistics, as_colors
from crispseg.errors import few
from crispseg.labels import IGNORE, LabelSet

UNLABELLED = {"unlabelled", "unlabeled", "void", "ignore", "ignored", "unknown"}

SIDES = 0.2  # smallest share of the frame if two classes cross it, and largest share of such masks
SWAPPED = 0.05  # smallest share of masks with exchanged classes; a whole object may fill the frames of fewer
BLACK = 0.01  # smallest share of black among the opaque pixels of a mask of which black is a class


def changed_values(lookup: MaskLookup, masks: Sequence[MaskStatistics]) -> Iterator[Finding]:
    """Yield findings about inverted and transparent pixels, whose values differ from those in the file."""
    if inverted := [mask for mask in masks if mask.inverted]:
        what = "0 for white, and are inverted when they are read"
        remedy = "if that is wrong, tifffile.imwrite(file, tifffile.imread(file)) keeps the stored values"
        severity = Severity.ERROR if len(inverted) < len(masks) else Severity.WARNING
        yield fault_of("inverted-masks", inverted, what, remedy, severity)
    by_color = lookup.by_color
    if clear := [mask for mask in masks if mask.transparent and (by_color(mask.palette) or not mask.palette)]:
        what = "transparent pixels, which are read as black (0)"
        remedy = "if the colours beneath them count, save the masks without alpha; if alpha is the mask, save it alone"
        if both := [mask for mask in clear if lookup.colors and mask.in_color.opaque_black > BLACK]:
            clear, what = both, "transparent pixels, which would be read as black like the class (0,0,0)"
            remedy = "save them flattened on another colour, or on black if both are one class, or save alpha alone"
        severity = Severity.ERROR if both else Severity.INFORMATION
        yield fault_of("transparent-pixels", clear, what, remedy, severity, copy=not both)


def swapped(labels: LabelSet, lookup: MaskLookup, masks: Sequence[MaskStatistics]) -> Iterator[Finding]:
    """Yield a warning if class 1 of two surrounds class 0 in some masks, and nearly all others are the opposite."""
    around: list[list[MaskStatistics]] = [[], [], []]  # mostly class 0, mostly class 1, and undecided
    for mask in masks if len(labels) == 2 else ():
        ids = lookup.labels_of(mask)
        kept = ids < 2
        area, frame = (np.bincount(ids[kept], counts[kept], 2) for counts in (mask.counts, mask.frame))
        if area.all() and frame.any():
            outer = int(area.argmax())
            around[outer if frame[1 - outer] < SIDES * frame.sum() else 2].append(mask)
    count, one = sum(map(len, around)), int(len(around[1]) < len(around[0]))
    fewer, more, both = around[one], around[1 - one], around[2]
    if len(fewer) >= max(2, SWAPPED * count) and len(both) <= SIDES * count:
        names = labels.names
        what = f"mostly {names[one]}, also along their frames, but {len(more)} others mostly {names[1 - one]}"
        what += f": some may be inverted ({few(Path(mask.file).name for mask in fewer)})"
        remedy = "compare some of both with their images, and exchange the two values in inverted ones"
        yield fault_of("swapped-masks", fewer, what, remedy, Severity.WARNING)


def without_data(labels: LabelSet, lookup: MaskLookup, masks: Sequence[MaskStatistics]) -> Iterator[Finding]:
    """Yield a warning for each of three or more classes that GDAL marks as no data."""
    marked: dict[tuple[float, int], list[MaskStatistics]] = defaultdict(list)
    for mask in masks if len(labels) > 2 else ():
        for label in lookup.labels_of(mask)[mask.values == mask.nodata] if not mask.colors else ():
            if label < IGNORE:
                marked[mask.nodata or 0, int(label)].append(mask)
    for (value, label), files in marked.items():
        name, some = labels.names[label], few(Path(mask.file).name for mask in files)
        what = f"the value {value:g}, no data by their GDAL_NODATA, but it is class {label}, {name} ({some})"
        remedy = f"give data.drop '[{name}]' to ignore its pixels"
        yield fault_of("nodata-class", files, what, remedy, Severity.WARNING)


def thin_bands(labels: LabelSet, lookup: MaskLookup, masks: Sequence[MaskStatistics]) -> Iterator[Finding]:
    """Yield a warning if a class of three or more is only a thin band between the others, as unlabelled outlines."""
    found: dict[int, list[MaskStatistics]] = defaultdict(list)
    for mask in masks if len(labels) > 2 else ():
        if mask.band is not None:
            found[int(lookup.labels_of(mask)[(as_colors(mask) == mask.band).all(1)][0])].append(mask)
    for label, some in found.items():
        if label < IGNORE and 2 * len(some) > len(masks):
            what = f"class {label}, {labels.names[label]}, only as a thin band between the others"
            remedy = f"give data.drop '[{labels.names[label]}]' if the band is not labelled"
            yield fault_of("thin-band", some, what, remedy, Severity.WARNING)


def unsuitable_names(names: Sequence[str], ignored: Set[str]) -> Iterator[Finding]:
    """Yield warnings about names that do not suit the use of their classes."""
    for index, name in enumerate(names):
        message, plain = f"class {index} is named {name}", name.strip("_ ").casefold()
        if plain in UNLABELLED and name not in ignored:
            remedy = f"it is learned like the others; give data.drop '[{name}]' to ignore its pixels"
            if index == 0 and [each.strip("_ ").casefold() for each in names[1:2]] == ["background"]:
                remedy = f"labelme writes 255 for it; if 0 is {names[1]}, give data.classes '[{','.join(names[1:])}]'"
            yield Finding("class-names", Severity.WARNING, message, remedy, 1)
        if plain == "background" and index and names[0] not in ignored:
            remedy = "check that the names are in the order of the ids"
            yield Finding("class-names", Severity.WARNING, f"{message}, and class 0 {names[0]}", remedy, 1)


def class_folders(lookup: MaskLookup, masks: Sequence[MaskStatistics], folders: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a fault if all masks of several folders have the same class."""
    kept = [mask for mask in masks if mask.file in folders]
    names = sorted({folders[mask.file] for mask in kept})
    found = {label for mask in kept for label in lookup.labels_of(mask).tolist()}
    if len(names) > 1 and NONE not in found and len(found - {0, IGNORE}) < 2:
        what = f"one class only, in folders that the images do not have, {few(names)}: each may be a class"
        remedy = f"merge the masks of each image into one PNG with an id for each class, such as 1 for {names[0]}; or "
        yield fault_of("class-folders", kept, what, remedy + "give data.num_classes 2 if all folders have one class")
