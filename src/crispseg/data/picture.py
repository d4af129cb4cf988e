"""Picture of images with their masks, in which a person sees shifted, mirrored, inverted or exchanged masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from crispseg.config.settings import shortened
from crispseg.data.dataset import FileDataset, Sample, SegmentationDataset
from crispseg.folders.examined import Examined
from crispseg.folders.lookup import NONE
from crispseg.folders.report import SplitReport, percent, report_of
from crispseg.io.images import as_picture
from crispseg.io.parallel import spread
from crispseg.labels import IGNORE, Color, LabelSet
from crispseg.visualization.pictures import LINE, draw_legend, for_display, overlay, text_font

DATA_PICTURE = "data.png"  # file in a run's folder
MOST_IMAGES = 12  # images in the picture
RAREST = 6  # classes of which the image with the most pixels is shown
COLUMNS = 4
TILE, GAP, TEXT = 300, 6, 16  # pixels: longer side of a tile, space between tiles, and height of a line of text
OPACITY = 0.4  # of a mask's colours over its image
DARK = 0.25  # brightness of the image under ignored pixels


def draw_data(dataset: SegmentationDataset, report: SplitReport) -> NDArray[np.uint8]:
    """Draw images of a split with their masks in colour, and a legend with ids, names and shares of pixels.

    The report is that of the dataset, in the same order of images.
    """
    indices, entries = chosen_images(report), legend(report)
    height, width = typical_shape([report.sizes[index] for index in indices])
    columns = min(COLUMNS, len(indices))
    right, bottom = columns * (width + GAP) + GAP, math.ceil(len(indices) / columns) * (height + TEXT + GAP) + GAP
    words = max(1, right // TILE)  # entries of the legend side by side
    picture = Image.new("RGB", (right, bottom + math.ceil(len(entries) / words) * LINE + GAP), "white")
    draw, font = ImageDraw.Draw(picture), text_font(TEXT - 4)
    for place, index in enumerate(indices):
        sample = dataset[index]
        left, top = GAP + place % columns * (width + GAP), GAP + place // columns * (height + TEXT + GAP)
        picture.paste(Image.fromarray(tile(sample, report.labels, (height, width))), (left, top))
        draw.text((left, top + height), shortened(sample.name, 40), "black", font)
    draw_legend(picture, entries, bottom, words)
    return np.asarray(picture)


def draw_examined(data: Examined) -> NDArray[np.uint8] | None:
    """Draw files of all splits; None if no mask can be read. Pairs that training would refuse are left out."""
    if data.meaning is None or not data.files:
        return None
    lookup = data.meaning.lookup
    pairs = [pair for pair in data.decodable if pair.image.size == pair.mask.size]
    pairs = [pair for pair in pairs if (lookup.labels_of(pair.mask) < NONE).all()]
    if not pairs:
        return None
    dataset = FileDataset([pair.pair for pair in pairs], data.meaning.labels, lookup, data.channels)
    return draw_data(dataset, report_of("all", data.meaning, [pair.mask for pair in pairs]))


def chosen_images(report: SplitReport) -> list[int]:
    """Return the images with the most pixels of each of the rarest classes, and others evenly spread."""
    counts = report.quarters.sum((2, 3))  # (images, classes)
    present = [label for label in np.argsort(report.counts).tolist() if report.counts[label]]
    chosen = {int(counts[:, label].argmax()) for label in present[:RAREST]}
    chosen |= {*spread(report.images, MOST_IMAGES - len(chosen))}
    return sorted(chosen)


def typical_shape(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the height and width of all tiles, by the median aspect ratio of the images."""
    ratio = float(np.median([height / width for height, width in sizes]))
    ratio = min(max(ratio, 0.5), 2.0)
    return (TILE, round(TILE / ratio)) if ratio > 1 else (round(TILE * ratio), TILE)


def tile(sample: Sample, labels: LabelSet, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw an image with its mask, at most as large as a shape `(H, W)`."""
    factor = min(shape[0] / sample.size[0], shape[1] / sample.size[1])
    size = max(1, round(sample.size[1] * factor)), max(1, round(sample.size[0] * factor))
    interpolation = cv2.INTER_NEAREST if factor > 1 else cv2.INTER_AREA
    image = cv2.resize(for_display(as_picture(sample.image)), size, interpolation=interpolation)
    ids = cv2.resize(sample.labels, size, interpolation=cv2.INTER_NEAREST)
    return with_mask(np.asarray(image, np.uint8), np.asarray(ids), labels)


def with_mask(image: NDArray[np.uint8], ids: NDArray[np.uint8], labels: LabelSet) -> NDArray[np.uint8]:
    """Draw labels `(H, W)` over an image: classes but the background in colour, ignored pixels dark."""
    drawn = overlay(overlay(image, ids, labels, OPACITY), ids, labels, outlines=True)
    ignored = (ids == IGNORE)[..., None]
    return np.where(ignored, image * DARK, drawn).astype(np.uint8)


def legend(report: SplitReport) -> list[tuple[str, Color]]:
    """Return the id, name and share, and the colour, of each class and of ignored pixels."""
    classes = zip(report.labels.names, report.shares, report.labels.palette, strict=True)
    entries = [(f"{index}  {name}  {percent(share)}", color) for index, (name, share, color) in enumerate(classes)]
    if report.ignored:
        entries.append((f"{IGNORE}  ignored (dark)  {percent(report.void)}", (64, 64, 64)))
    return entries
