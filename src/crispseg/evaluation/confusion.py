"""The confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from crispseg.errors import CrispsegError
from crispseg.evaluation.per_image import ratio
from crispseg.visuals import FRAME, INK, PAPER

HIT, MISS, ABSENT = (33, 102, 172), (178, 24, 43), (225, 228, 232)
LONGEST = 24  # letters of a name
LEGEND = 400  # pixels that the legend needs

_CELLS = ((12, 46), (30, 34), (60, 22), (255, 14))
"""Up to so many classes, a cell is so many pixels; 14 leave names of 12 pixels."""
_NUMBERS = 30  # classes up to which cells have room for numbers


def draw_confusion(confusion: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.uint8]:
    """A confusion matrix in percent of its rows: what the pixels of each class were predicted as.

    Right pixels are blue, wrong ones red; colours grow with the root of the share, so that 1 % can be seen. Up to 30
    classes, cells have their numbers. The row of a class that is not in the truth is grey.

    Args:
        confusion: `(C, C)` pixel counts; rows are the truth, columns the prediction.
        names: of the `C` classes.

    Returns:
        `(H, W, 3)` RGB, 400 pixels wide for 2 classes and 2300 for 150.

    Raises:
        CrispsegError: the matrix is not square, or there is not one name a class.
    """
    classes = len(names)
    if confusion.shape != (classes, classes):
        raise CrispsegError(f"a confusion matrix of shape {confusion.shape} for {classes} names; give one name a class")
    shares = 100 * ratio(confusion, confusion.sum(1, keepdims=True))  # (C, C)
    cell = next(size for most, size in _CELLS if classes <= most)
    font = ImageFont.load_default(min(cell - 2, 16))
    labels = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    margin, gap = max(round(max(map(font.getlength, labels))), 40) + 12, 24
    side = classes * cell
    left = top = 2 * gap + margin
    picture = Image.new("RGB", (max(left + side + gap, LEGEND), top + side + 3 * gap), PAPER)
    draw = ImageDraw.Draw(picture)

    matrix = Image.fromarray(_colors(shares)).resize((side, side), Image.Resampling.NEAREST)
    picture.paste(matrix, (left, top))
    for line in range(classes + 1):
        draw.line((left + line * cell, top, left + line * cell, top + side), FRAME)
        draw.line((left, top + line * cell, left + side, top + line * cell), FRAME)
    for index, label in enumerate(labels):
        middle = (index + 0.5) * cell
        draw.text((left - 6, top + middle), label, INK, font, anchor="rm")
        upright = _upright(label, font)
        picture.paste(upright, (round(left + middle - upright.width / 2), top - 6 - upright.height))
    if classes <= _NUMBERS:
        _write_numbers(draw, shares, (left, top), cell)

    caption = ImageFont.load_default(16)
    draw.text((left + side / 2, gap), "predicted class", INK, caption, anchor="mm")
    sideways = _upright("true class", caption)
    picture.paste(sideways, (gap - sideways.width // 2, round(top + side / 2 - sideways.height / 2)))
    _draw_legend(draw, (gap, top + side + gap))
    return np.array(picture)


def _colors(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """`(C, C, 3)`: white at 0 % to blue on the diagonal and red off it at 100 %."""
    full = np.where(np.eye(len(shares), dtype=bool)[..., None], np.array(HIT), np.array(MISS))
    depth = np.sqrt(np.nan_to_num(shares) / 100)[..., None]
    colors = np.array(PAPER) * (1 - depth) + full * depth
    colors[np.isnan(shares)] = ABSENT
    result: NDArray[np.uint8] = colors.round().astype(np.uint8)
    return result


def _write_numbers(draw: ImageDraw.ImageDraw, shares: NDArray[np.float64], corner: tuple[int, int], cell: int) -> None:
    """Percent into the cells, none where there are no pixels."""
    font = ImageFont.load_default(cell * 0.36)
    for row, column in zip(*np.nonzero(np.nan_to_num(shares)), strict=True):
        share = shares[row, column]
        text = f"{share:.1f}" if cell >= 40 and share < 99.95 else f"{share:.0f}"
        x, y = corner[0] + (column + 0.5) * cell, corner[1] + (row + 0.5) * cell
        text = {"0": "<1", "0.0": "<0.1"}.get(text, text)
        draw.text((x, y), text, PAPER if share > 35 else INK, font, anchor="mm")


def _upright(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    """A text that is read from below, on white."""
    _, above, width, below = font.getbbox(text)
    picture = Image.new("RGB", (round(width) + 2, round(below - above) + 2), PAPER)
    ImageDraw.Draw(picture).text((1, 1 - above), text, INK, font)
    return picture.transpose(Image.Transpose.ROTATE_90)


def _draw_legend(draw: ImageDraw.ImageDraw, corner: tuple[int, int]) -> None:
    """Two ramps of colours, right and wrong, from 0 to 100 percent of a row."""
    font, (left, top), length, height = ImageFont.load_default(13), corner, 200, 13
    for line, (name, color) in enumerate((("right", HIT), ("wrong", MISS))):
        y = top + line * (height + 2)
        draw.text((left, y + height / 2), name, INK, font, anchor="lm")
        for x in range(length):
            depth = (x / (length - 1)) ** 0.5
            mixed = [round(p * (1 - depth) + c * depth) for p, c in zip(PAPER, color, strict=True)]
            draw.line((left + 50 + x, y, left + 50 + x, y + height - 1), (mixed[0], mixed[1], mixed[2]))
    y = top + 2 * (height + 2) + 8
    for percent in (0, 25, 50, 100):
        text = "100 % of the row" if percent == 100 else str(percent)
        draw.text((left + 50 + length * percent / 100, y), text, INK, font, anchor="mm" if percent < 100 else "lm")
