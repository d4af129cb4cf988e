"""The figures of SFNet: Li et al., *Semantic Flow for Fast and Accurate Scene Parsing*, ECCV 2020 (arXiv 2002.10120).

Each function makes one figure and returns `(H, W, 3)` RGB. Features are heat maps of their mean over channels, as in
the paper (Fig. 2): from the least value, blue, to the largest, red, each map for itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from crispseg.decoders import DeformableFuse
from crispseg.inspection.common import (
    Picture,
    errors_figure,
    needs,
    outputs_figure,
    predicted,
    same_images,
    shown_classes,
)
from crispseg.inspection.flow import Flow, arrows, flow_colors, flows
from crispseg.inspection.maps import heat_map
from crispseg.inspection.quantities import Inspection
from crispseg.visuals import INK, PAPER, panels


def figure_1(rows: Sequence[tuple[str, float, float]], *, unit: str = "images / s") -> Picture:
    """Fig. 1: speed against mIoU.

    Args:
        rows: name, speed and mIoU in percent of each model, such as `crispseg benchmark` and `evaluate` measure.
        unit: of the speed.
    """
    width, height, left, right, top, bottom = 720, 440, 70, 20, 20, 60
    picture = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    x0, x1 = _range([speed for _, speed, _ in rows])
    y0, y1 = _range([score for _, _, score in rows])

    def place(speed: float, score: float) -> tuple[float, float]:
        x = left + (speed - x0) / (x1 - x0) * (width - left - right)
        return x, height - bottom - (score - y0) / (y1 - y0) * (height - top - bottom)

    draw.rectangle((left, top, width - right, height - bottom), outline=INK)
    for share in np.linspace(0, 1, 5):
        speed, score = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
        x, y = place(speed, score)
        draw.text((x, height - bottom + 6), f"{speed:.3g}" if speed < 100 else f"{speed:.0f}", INK, font, anchor="mt")
        draw.text((left - 6, y), f"{score:.1f}", INK, font, anchor="rm")
        draw.line((x, height - bottom, x, height - bottom + 4), INK)
        draw.line((left - 4, y, left, y), INK)
    draw.text(((left + width - right) / 2, height - 12), f"speed, {unit}", INK, font, anchor="mb")
    draw.text((left + 8, top + 8), "mIoU, %", INK, font)
    for name, speed, score in rows:
        x, y = place(speed, score)
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), (30, 100, 255), INK)
        on_right = x + 10 + font.getlength(name) < width - right
        draw.text((x + 9, y) if on_right else (x - 9, y), name, INK, font, anchor="lm" if on_right else "rm")
    return np.array(picture)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis: an eighth of the range beyond the points, or something where there is no range."""
    room = (max(values) - min(values)) / 8 or max(abs(values[0]) / 8, 0.5)
    return min(values) - room, max(values) + room


def figure_2(inspection: Inspection) -> Picture:
    """Fig. 2: for each FAM the coarse level F_l upsampled bilinearly, the fine level F_(l-1), the flow, and F_l warped.

    One FAM a row, the coarsest level first.

    Raises:
        CrispsegError: the model has no FAM.
    """
    rows = [
        [
            heat_map(inspection.tap(flow.part, "coarse"), inspection),
            heat_map(inspection.tap(flow.part, "fine"), inspection),
            flow_colors(flow, inspection),
            heat_map(inspection.tap(flow.part, "warped"), inspection),
        ]
        for flow in _flows(inspection)
    ]
    return panels(rows, ["coarse, upsampled", "fine", "semantic flow", "coarse, warped"])


def figure_4(ours: Inspection, dcn: Inspection | None = None) -> Picture:
    """Fig. 4: the coarse level upsampled bilinearly, what a deformable convolution makes of it, and warped by the FAM.

    Args:
        ours: of a model with FAMs; its finest one is shown.
        dcn: of the same image by the same model with `fuse=dcn`; without it that column is left out.

    Raises:
        CrispsegError: no FAM; no deformable convolution in `dcn`; different images.
    """
    same_images(ours, dcn)
    finest = _flows(ours)[-1].part
    row = [ours.image, heat_map(ours.tap(finest, "coarse"), ours)]
    titles = ["image", "bilinear"]
    if dcn is not None:
        needs(dcn.of(DeformableFuse), dcn, "deformable convolution")
        row.append(heat_map(dcn.tap(dcn.of(DeformableFuse)[-1], "fused"), dcn))
        titles.append("DCN")
    return panels([[*row, heat_map(ours.tap(finest, "warped"), ours)]], [*titles, "FAM"])


def figure_5(*inspections: Inspection) -> Picture:
    """Fig. 5: image, the flow of each FAM with growing resolution, arrows of the last one, and the result.

    Raises:
        CrispsegError: a model has no FAM, or not as many as the first one.
    """
    rows, titles, scales = [], [], []
    for inspection in inspections:
        fields = _flows(inspection)
        pictured, scale = arrows(fields[-1], inspection)
        scales.append(scale)
        colors = [flow_colors(flow, inspection) for flow in fields]
        rows.append([inspection.image, *colors, pictured, predicted(inspection)])
        times = f"{min(scales)}x" if len({*scales}) == 1 else f"{min(scales)}x to {max(scales)}x"
        titles = ["image", *map(_title, fields), f"arrows, {times} as long", "result"]
    return panels(rows, titles, shown_classes(*inspections))


def figure_6(ours: Inspection, theirs: Inspection | None = None) -> Picture:
    """Fig. 6: (a) image, truth, errors of both models, right pixels black; (b) the results of both.

    Raises:
        CrispsegError: no truth; different images or classes.
    """
    upper, lower = errors_figure(ours, theirs, legend=False), outputs_figure(ours, theirs)
    width = max(upper.shape[1], lower.shape[1])
    filled = [
        np.pad(each, [(0, 0), (0, width - each.shape[1]), (0, 0)], constant_values=255) for each in (upper, lower)
    ]
    return np.concatenate(filled)


def figure_7(*inspections: Inspection) -> Picture:
    """Fig. 7: the coarse level upsampled and warped, of the last FAM but one (above) and of the last one.

    Raises:
        CrispsegError: a model has no FAM.
    """
    rows = [
        [
            inspection.image,
            heat_map(inspection.tap(flow.part, "coarse"), inspection),
            heat_map(inspection.tap(flow.part, "warped"), inspection),
        ]
        for back in (-2, -1)
        for inspection in inspections
        for flow in _flows(inspection)[back : back + 1 or None]
    ]
    return panels(rows, ["image", "bilinear", "FAM"])


def figure_8(*inspections: Inspection) -> Picture:
    """Fig. 8: images, and the flow of each FAM with growing resolution.

    Raises:
        CrispsegError: a model has no FAM.
    """
    rows, titles = [], []
    for inspection in inspections:
        fields = _flows(inspection)
        rows.append([inspection.image, *(flow_colors(flow, inspection) for flow in fields)])
        titles = ["image", *map(_title, fields)]
    return panels(rows, titles)


def _title(flow: Flow) -> str:
    """In the letters that Pillow's own font has."""
    return flow.title.replace("→", "to")


def _flows(inspection: Inspection) -> list[Flow]:
    found = flows(inspection)
    needs(found, inspection, "flow alignment module")
    return found
