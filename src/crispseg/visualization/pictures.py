"""Pictures of results: labels over their image, errors, figures that compare, and sheets of labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from crispseg.errors import CrispsegError
from crispseg.io.images import colorize
from crispseg.labels import IGNORE, Color, LabelSet

if TYPE_CHECKING:
    pass

RIGHT = (0, 0, 0)
IGNORED = (48, 48, 48)
DIMMEST = 110
"""Brightness of a wrong pixel, at least: 0.299 R + 0.587 G + 0.114 B."""

PAPER, INK, FRAME = (255, 255, 255), (31, 35, 40), (208, 215, 222)


def overlay(
    image: NDArray[np.uint8], labels: NDArray[Any], classes: LabelSet, opacity: float = 0.5
) -> NDArray[np.uint8]:
    """An image under the colours of its labels; the background and pixels labelled 255 (ignore) stay as they are.

    Args:
        image: `(H, W, 3)` RGB.
        labels: `(H, W)` class ids.
        classes: names and colours of the classes; the background is the one that is called so.
        opacity: opacity of the colours, 0 to 1.

    Raises:
        CrispsegError: another opacity.
    """
    if not 0 <= opacity <= 1:
        raise CrispsegError(f"opacity is {opacity}; give a number from 0, the image alone, to 1, the colours alone")
    colors = colorize(labels, classes.palette)
    clear = labels == IGNORE
    if classes.background is not None:
        clear |= labels == classes.background
    colors[clear] = image[clear]
    blended: NDArray[np.uint8] = cv2.addWeighted(image, 1 - opacity, colors, opacity, 0)
    return blended


def error_map(labels: NDArray[Any], truth: NDArray[Any], palette: Sequence[Color]) -> NDArray[np.uint8]:
    """What went wrong, `(H, W, 3)` RGB: wrong pixels in their true class's colour, right ones black, ignored ones grey.

    Dark colours are mixed with white, so that a wrong pixel is seen whatever its class.

    Args:
        labels: `(H, W)` predicted class ids.
        truth: `(H, W)` true ones; 255 is ignored.
        palette: a colour for each class.
    """
    colors = np.array(palette, float)
    brightness = colors @ (0.299, 0.587, 0.114)
    white = (DIMMEST - brightness).clip(0) / (255 - brightness).clip(1)  # share of it in the mixture
    errors = colorize(truth, (colors + white[:, None] * (255 - colors)).round().astype(int).tolist())
    errors[labels == truth] = RIGHT
    errors[truth == IGNORE] = IGNORED
    return errors


def panels(
    rows: Sequence[Sequence[NDArray[np.uint8]]], titles: Sequence[str], legend: LabelSet | None = None
) -> NDArray[np.uint8]:
    """A figure: images in rows and columns on white, titles above, the classes' colours and names below.

    Args:
        rows: `(H, W, 3)` RGB images, as many a row as there are titles. Columns share one width; each row takes the
            height that its first image has at that width.
        titles: titles of the columns.
        legend: the classes to explain.

    Returns:
        `(H, W, 3)` RGB.
    """
    column = min(max(240, *(image.shape[1] for row in rows for image in row)), 400)
    gap = column // 40
    size = column // 14  # of the titles: readable when the whole figure is shown on a page
    heights = [max(round(row[0].shape[0] * column / row[0].shape[1]), 1) for row in rows]
    lefts = [gap + index * (column + gap) for index in range(len(titles))]
    top = 2 * size
    bottom = top + sum(height + gap for height in heights)
    figure = Image.new("RGB", (lefts[-1] + column + gap, bottom), PAPER)

    draw, font = ImageDraw.Draw(figure), _font(titles, size, column)
    for left, title in zip(lefts, titles, strict=True):
        draw.text((left + column / 2, top / 2), title, INK, font, anchor="mm")
    y = top
    for row, height in zip(rows, heights, strict=True):
        for left, image in zip(lefts, row, strict=True):
            figure.paste(Image.fromarray(image).resize((column, height), Image.Resampling.HAMMING), (left, y))
        y += height + gap
    if legend is None:
        return np.array(figure)
    return np.concatenate([figure, _legend(legend, figure.width, round(0.9 * size), gap)])


def _legend(classes: LabelSet, width: int, size: int, margin: int) -> NDArray[np.uint8]:
    """Colours and names in even columns, centred, of text `size` pixels high."""
    swatch, space = size, size // 2
    font = _font(classes.names, size, width - 2 * margin - swatch - 3 * space)
    cell = swatch + 3 * space + max(round(font.getlength(name)) for name in classes.names)
    lines = ceil(len(classes) / max((width - 2 * margin) // cell, 1))
    columns = ceil(len(classes) / lines)
    left = (width - columns * cell + 2 * space) // 2  # the last column's space is no part of the block
    line = 2 * size
    picture = Image.new("RGB", (width, lines * line + margin), PAPER)
    draw = ImageDraw.Draw(picture)
    for index, (name, color) in enumerate(zip(classes.names, classes.palette, strict=True)):
        x, y = left + index % columns * cell, (index // columns + 0.5) * line
        draw.rectangle((x, y - swatch // 2, x + swatch, y + swatch // 2), color, FRAME)
        draw.text((x + swatch + space, y), name, INK, font, anchor="lm")
    return np.array(picture)


def _font(texts: Sequence[str], size: int, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, of `size` pixels or as much smaller as the longest of `texts` needs to fit into `width`."""
    font = ImageFont.load_default(size)
    longest = max(map(font.getlength, texts))
    return font if longest <= width else ImageFont.load_default(size * width / longest)
