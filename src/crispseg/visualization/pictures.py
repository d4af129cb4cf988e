"""Images of results: overlays of labels, error maps and comparison figures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import ceil
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import regionprops

from crispseg.errors import CrispsegError
from crispseg.io.images import colorize, side_factor
from crispseg.io.value_range import OF_IMAGE, percentile_range, sampled, to_8_bits
from crispseg.labels import IGNORE, Color, LabelSet

RIGHT = (0, 0, 0)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
DIM = 128  # 99.8 % of the values of a dark image are below it
OBJECT_CLASSES = LabelSet.numbered(40)  # colours in images of objects; further objects repeat them
FALSE_ALARM, MISSED, WRONG_CLASS, IGNORED = (228, 60, 50), (60, 130, 250), (250, 205, 50), (128, 128, 128)
COLUMN, GAP, LINE = 320, 4, 24  # pixels: width of a column with its gaps, around each image; height of a text line


def overlay(
    image: NDArray[np.uint8], labels: NDArray[Any], classes: LabelSet, opacity: float = 0.5, outlines: bool = False
) -> NDArray[np.uint8]:
    """Draw the colours of labels `(H, W)` over an RGB image; background and ignored pixels (255) are unchanged.

    With `outlines`, only the edges of areas are coloured, two pixels wide and opaque. Another `opacity` than 0 to 1
    raises a `CrispsegError`.
    """
    if not 0 <= opacity <= 1:
        raise CrispsegError(f"opacity is {opacity}; give a number from 0, the image alone, to 1, the colours alone")
    colors = colorize(labels, classes.palette)
    clear = labels == IGNORE
    if classes.background is not None:
        clear |= labels == classes.background
    if outlines:
        area = np.ones((5, 5), np.uint8)
        clear |= cv2.dilate(labels.astype(np.uint8), area) == cv2.erode(labels.astype(np.uint8), area)
        opacity = 1.0
    colors = cv2.copyTo(image, clear.astype(np.uint8), colors)
    return np.asarray(cv2.addWeighted(image, 1 - opacity, colors, opacity, 0))


def for_display(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image with its contrast stretched from 1 to 99.8 percent of its values, if it is dark."""
    low, high = percentile_range([sampled(image)], OF_IMAGE)
    return to_8_bits(image, (low, high)) if high < DIM else image


def object_colors(ids: NDArray[np.int32]) -> NDArray[Any]:
    """Return the class of `OBJECT_CLASSES` for each object `(H, W)`, 1 to N, or 0, which is ignored."""
    return np.where(ids > 0, (ids - 1) % len(OBJECT_CLASSES), IGNORE)


def numbered(image: NDArray[np.uint8], ids: NDArray[np.int32], longest: int | None = None) -> NDArray[np.uint8]:
    """Draw outlines and numbers of objects `(H, W)` over an RGB image `for_display`, with no side above `longest`."""
    factor = side_factor(ids.shape, longest, None)
    height, width = np.maximum(1, np.multiply(ids.shape, min(factor, 1))).round().astype(int).tolist()
    image = np.asarray(cv2.resize(for_display(image), (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    ids = np.asarray(cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST))
    drawn = overlay(image, object_colors(ids), OBJECT_CLASSES, outlines=True)
    for region in regionprops(ids):
        y, x = (round(center) for center in region.centroid)
        text = str(region.label)
        style = (x - 4 * len(text), y + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.35  # digits of 8 x 8 pixels around the centre
        cv2.putText(drawn, text, *style, BLACK, 3, cv2.LINE_AA)
        cv2.putText(drawn, text, *style, WHITE, 1, cv2.LINE_AA)
    return drawn


def error_colors(labels: NDArray[Any], truth: NDArray[Any], classes: LabelSet) -> NDArray[np.uint8]:
    """Return the colour of each pixel's kind of error, `(H, W, 3)` RGB; correct pixels are black."""
    errors = np.zeros((*truth.shape, 3), np.uint8)
    errors[labels != truth] = WRONG_CLASS
    if classes.background is not None:
        errors[(labels != truth) & (truth == classes.background)] = FALSE_ALARM
        errors[(labels != truth) & (labels == classes.background)] = MISSED
    errors[truth == IGNORE] = IGNORED
    return errors


def error_map(
    image: NDArray[np.uint8], labels: NDArray[Any], truth: NDArray[Any], classes: LabelSet
) -> NDArray[np.uint8]:
    """Draw the colours of errors over an RGB image, which is grey and half as bright."""
    errors = error_colors(labels, truth, classes)
    grey = (image.mean(2, keepdims=True) / 2).astype(np.uint8)
    return np.where((errors != RIGHT).any(2, keepdims=True), errors, grey)


def error_legend(errors: NDArray[np.uint8]) -> dict[str, Color]:
    """Return the kinds of errors that an error map `(H, W, 3)` shows, with their colours."""
    kinds = {"false alarm": FALSE_ALARM, "missed": MISSED, "wrong class": WRONG_CLASS, "ignored": IGNORED}
    return {name: color for name, color in kinds.items() if (errors == color).all(2).any()}


def panels(
    rows: Sequence[Sequence[NDArray[np.uint8]]], titles: Sequence[str], legend: Sequence[tuple[str, Color]] = ()
) -> NDArray[np.uint8]:
    """Draw RGB images in rows and columns on white, with titles of columns and a legend of names, as `(H, W, 3)`.

    All columns have one width; the height of a row is the height of its first image at this width.
    """
    columns, lines = len(titles), []
    for row in rows:
        assert len(row) == columns, titles
        lines.append(np.hstack([_fitted(image, row[0].shape) for image in row]))
    image = np.vstack(lines)
    picture = Image.new("RGB", (image.shape[1], len(image) + LINE * (1 + ceil(len(legend) / columns))), "white")
    picture.paste(Image.fromarray(image), (0, LINE))
    draw = ImageDraw.Draw(picture)
    for column, title in enumerate(titles):
        draw.text(((column + 0.5) * COLUMN, LINE / 2), title, "black", text_font(16), "mm")
    draw_legend(picture, legend, len(image) + LINE, columns)
    return np.array(picture)


def draw_legend(picture: Image.Image, entries: Sequence[tuple[str, Color]], top: int, columns: int) -> None:
    """Draw names next to their colours, in columns from `top` on."""
    draw = ImageDraw.Draw(picture)
    for index, (name, color) in enumerate(entries):
        row, column = divmod(index, columns)
        left, middle = column * picture.width // columns + GAP, top + (row + 0.5) * LINE
        draw.rectangle((left, middle - 7, left + LINE, middle + 7), fill=tuple(color), outline="black")
        draw.text((left + LINE + 2 * GAP, middle), name, "black", text_font(14), "lm")


def text_font(size: int) -> ImageFont.FreeTypeFont:
    """Return a font that has the letters of most languages."""
    from matplotlib import font_manager  # imported here, because few callers need it

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def _fitted(image: NDArray[np.uint8], shape: Sequence[int]) -> NDArray[np.uint8]:
    """Resize an image to a column's width and the aspect ratio of `shape`, with white gaps around it."""
    width = COLUMN - 2 * GAP
    resized = cv2.resize(image, (width, max(1, round(width * shape[0] / shape[1]))), interpolation=cv2.INTER_AREA)
    return np.pad(np.asarray(resized, np.uint8), ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=255)


def drawn(figure: Any, **options: Any) -> NDArray[np.uint8]:
    """Return a figure of matplotlib as RGB `(H, W, 3)`; the options are those of its `savefig`."""
    file = io.BytesIO()
    figure.savefig(file, pil_kwargs={"compress_level": 0}, **options)
    return np.array(Image.open(file).convert("RGB"))
