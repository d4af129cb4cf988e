"""What the page shows, as HTML: the picture in layers, the legend, times, and where the model looked for a pixel."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crispseg import pages
from crispseg.demo.alignment import Look, Step
from crispseg.demo.session import Kept
from crispseg.demo.uploads import Limits
from crispseg.inference.segmenter import Segmentation
from crispseg.inspection.flow import arrow_scale
from crispseg.labels import LabelSet

LONGEST = 1280
"""Pixels of the longer side of the picture on the page."""

COLORS = ("#e4572e", "#1a8fe3", "#9b3fd1", "#2a9d3a", "#d99a00", "#c2185b")
"""Of the steps of an alignment."""

MOST_SCALED = 64
"""Arrows are drawn at most so many times as long as they are; shorter ones are as good as none."""

EMPTY = '<div class="cs-empty">The segmentation will be here: give an image, or draw a street scene.</div>'
HINT = (
    '<p class="cs-soft">Click on the picture to see what the model looked at for a pixel, or reach it by Tab and move '
    "by the arrow keys, with Shift by single pixels.</p>"
)


def limits(taken: Limits) -> str:
    """What images the demo takes."""
    size = f"at most {taken.megabytes:g} MB and {taken.pixels / 1e6:g} million pixels"
    return f'<p class="cs-soft">PNG, JPEG, WebP, TIFF, BMP or GIF, {size}.</p>'


def stage(segmentation: Segmentation, longest: int = LONGEST) -> str:
    """The picture in layers: the photo, the classes' colours, their boundaries, and a drawing for `marks`.

    Opacity and boundaries are CSS variables, `--cs-opacity` and `--cs-edges`, which cost no computation to change.
    """
    height, width = segmentation.labels.shape
    factor = min(longest / max(height, width), 1)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    photo, labels = segmentation.image, segmentation.labels
    if factor < 1:
        photo = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8)
        labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    layers = [
        _layer("cs-photo", Image.fromarray(photo), "JPEG", "the image"),
        _layer("cs-labels", _colored(labels, segmentation.label_set.palette), "PNG", "its classes in their colours"),
        _layer("cs-edges", _edges(labels), "PNG", ""),
    ]
    # No wider than a screen is high, or a tall picture would have to be scrolled.
    return (
        f'<div class="cs-stage" data-width="{width}" data-height="{height}" tabindex="0" role="application" '
        'aria-label="The segmented image; arrow keys choose a pixel" '
        f'style="aspect-ratio: {width} / {height}; max-width: calc(80vh * {width / height:.4f})">{"".join(layers)}'
        f'<svg class="cs-marks" viewBox="-0.5 -0.5 {width} {height}" preserveAspectRatio="none"></svg></div>'
    )


def _layer(kind: str, picture: Image.Image, form: str, text: str) -> str:
    file = io.BytesIO()
    picture.save(file, form, **({"quality": 85} if form == "JPEG" else {}))
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img class="{kind}" src="data:image/{form.lower()};base64,{data}" alt="{escape(text)}" draggable="false">'


def _colored(labels: NDArray[np.uint8], palette: Sequence[Sequence[int]]) -> Image.Image:
    picture = Image.fromarray(labels)
    picture.putpalette([level for color in palette for level in color])
    return picture


def _edges(labels: NDArray[np.uint8]) -> Image.Image:
    """A white line between classes with a dark rim, so that it is seen on everything; the rest is transparent."""
    edge = np.zeros(labels.shape, np.uint8)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    rim = np.asarray(cv2.dilate(edge, np.ones((3, 3), np.uint8)), np.uint8)
    picture = Image.fromarray(rim + edge)  # 0 nothing, 1 rim, 2 line
    picture.putpalette([0, 0, 0, 0, 0, 0, 255, 255, 255])
    picture.info["transparency"] = bytes([0, 150, 255])
    return picture


def legend(shares: Mapping[str, float], label_set: LabelSet) -> str:
    """Colour, name and share of each class in the image, the largest first; the classes that are not in it below."""
    colors = dict(zip(label_set.names, label_set.palette, strict=True))
    present = sorted((name for name in colors if shares[name]), key=lambda name: -shares[name])
    rows = "".join(
        f'<tr><td>{pages.named(name, colors[name])}</td><td class="cs-share">{_percent(shares[name])}</td>'
        f'<td class="cs-bar"><i style="width: {100 * shares[name]:.2f}%"></i></td></tr>'
        for name in present
    )
    absent = [name for name in label_set.names if not shares[name]]
    others = f'<p class="cs-soft">Not in this image: {escape(", ".join(absent))}.</p>' if absent else ""
    head = '<thead><tr><th scope="col">Class</th><th scope="col" class="cs-share">Share of pixels</th><th></th></tr>'
    return f'<table class="cs-legend">{head}</thead><tbody>{rows}</tbody></table>{others}'


def _percent(share: float) -> str:
    return "<0.1 %".replace("<", "&lt;") if share < 0.0005 else f"{100 * share:.1f} %"


def times(seconds: Mapping[str, float], size: tuple[int, int], original: tuple[int, int], device: str) -> str:
    """How long each part took, in milliseconds, and at which size, height and width, the network saw the image."""
    parts = " · ".join(f"{escape(name)} <b>{1000 * value:.0f} ms</b>" for name, value in seconds.items())
    shown = f"{size[1]}×{size[0]} pixels"
    if size != original:
        shown += f", reduced from {original[1]}×{original[0]}; the mask has the image's own size"
    return f'<p class="cs-times">{parts}</p><p class="cs-soft">{shown}, on {escape(device)}</p>'


def pixel(kept: Kept, x: float, y: float) -> str:
    """What is known about a pixel: its class, and for each step of the alignment where it looked, as text and drawing.

    Args:
        kept: the result.
        x, y: in pixels of the image that the network saw; put inside where they are outside.
    """
    height, width = kept.labels.shape
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    column, row = round(x), round(y)
    label = int(kept.labels[row, column])
    name = pages.named(kept.label_set.names[label], kept.label_set.palette[label])
    lines = [f'<p class="cs-pixel">Pixel x {column}, y {row}: {name}</p>']
    looks = [step.at(x, y) for step in kept.steps]
    vectors = [look for look in looks if look.vector is not None]
    longest = max((math.dist(look.start, look.points[0]) for look in vectors), default=0.0)
    scale = min(arrow_scale(longest, max(height, width) / 12), MOST_SCALED)
    if looks:
        rows = (_row(look, step, color) for look, step, color in zip(looks, kept.steps, _colors(looks), strict=True))
        lines.append('<table class="cs-looks"><tbody>' + "".join(rows) + "</tbody></table>")
        if vectors:
            exact = f"Arrows are drawn {scale} times as long as they are." if scale > 1 else "Arrows have their length."
            lines.append(f'<p class="cs-soft">{exact} Levels are numbered as in the papers: F5 is the coarsest.</p>')
        if len(vectors) < len(looks):
            lines.append('<p class="cs-soft">The larger a circle, the more its point weighs.</p>')
    else:
        lines.append('<p class="cs-soft">This model computes no flow and samples no points.</p>')
    return "".join(lines) + f'<svg class="cs-source" hidden>{marks(looks, (column, row), (height, width), scale)}</svg>'


def _colors(looks: Sequence[Look]) -> list[str]:
    return [COLORS[index % len(COLORS)] for index in range(len(looks))]


def _row(look: Look, step: Step, color: str) -> str:
    swatch = f'<span class="swatch" style="background: {color}"></span>'
    height, width = step.size
    if look.vector is not None:
        dx, dy = look.vector
        far = math.dist(look.start, look.points[0])
        text = f"flow ({_signed(dx)}, {_signed(dy)}) pixels of its {width}×{height} level, {far:.1f} of the image"
    else:
        distances = np.hypot(*(look.points - look.start).T)
        weights = np.where(np.isfinite(distances), look.weights, 0)
        mean = float((np.nan_to_num(distances, posinf=0) * weights).sum() / max(float(weights.sum()), 1e-12))
        text = f"{len(look.points)} points, {mean:.1f} pixels of the image away on weighted average"
    return f"<tr><td>{swatch}{escape(look.title)}</td><td>{text}</td></tr>"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def marks(looks: Sequence[Look], place: tuple[float, float], size: tuple[int, int], scale: int = 1) -> str:
    """The inside of an SVG in pixels of the image: a cross at the pixel, an arrow for a flow, circles for points.

    Args:
        looks: of the steps.
        place: x and y of the pixel.
        size: height and width of the image.
        scale: how many times as long as they are arrows are drawn.
    """
    unit = max(size) / 200
    drawn = []
    for look, color in zip(looks, _colors(looks), strict=True):
        if look.vector is not None:
            drawn.append(_arrow(look, color, scale, unit))
            continue
        largest = max(float(look.weights.max()), 1e-12)
        for (px, py), weight in zip(look.points, look.weights, strict=True):
            if np.isfinite((px, py)).all():
                radius = unit * (0.4 + 0.9 * math.sqrt(max(float(weight), 0) / largest))
                drawn.append(f'<circle cx="{px:.2f}" cy="{py:.2f}" r="{radius:.2f}" fill="{color}"/>')
    x, y = place
    cross = f"M{x - 2 * unit:.2f} {y:.2f}H{x + 2 * unit:.2f}M{x:.2f} {y - 2 * unit:.2f}V{y + 2 * unit:.2f}"
    drawn += [f'<path d="{cross}" stroke="#fff" stroke-width="4"/>', f'<path d="{cross}" stroke="#000"/>']
    return "".join(drawn)


def _arrow(look: Look, color: str, scale: int, unit: float) -> str:
    (x, y), (ex, ey) = look.start, look.points[0]
    dx, dy = scale * (float(ex) - x), scale * (float(ey) - y)
    length = math.hypot(dx, dy)
    if not math.isfinite(length):
        return ""
    tip, path = (x + dx, y + dy), f"M{x:.2f} {y:.2f}L{x + dx:.2f} {y + dy:.2f}"
    if length > unit / 2:
        head = min(2.5 * unit, length)
        for turn in (2.6, -2.6):
            angle = math.atan2(dy, dx) + turn
            path += f"M{tip[0]:.2f} {tip[1]:.2f}l{head * math.cos(angle):.2f} {head * math.sin(angle):.2f}"
    return f'<path d="{path}" stroke="#fff" stroke-width="5"/><path d="{path}" stroke="{color}" stroke-width="2.5"/>'
