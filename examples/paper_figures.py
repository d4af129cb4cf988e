"""Figures in the manner of the papers of SFNet, DDSM, AGLN and UN-EPT, of whatever parts a model has.

python examples/paper_figures.py runs/sfnet photo.jpg figures/
"""

import math
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import crispseg
from crispseg.inspection import Inspection, inspect_image
from crispseg.inspection.fields import SampledPoints, flow_of, pixel_pitch, sampled_points
from crispseg.inspection.maps import at_image, flow_image
from crispseg.inspection.page import sections
from crispseg.io.images import write_image
from crispseg.visualization.pictures import panels

Row = dict[str, NDArray[np.uint8]]
ARROW, PIXEL, POINT = (20, 20, 20), (30, 100, 255), (230, 20, 20)


def shown(seen: Inspection, kind: str, *names: str) -> list[Row]:
    """Pictures of the inspection page: a row for each part of a kind, of these panels or of all."""
    rows = [{panel.name: panel.pixels for panel in part} for _, part in sections(seen)[kind]]
    return [{name: row[name] for name in names or row} for row in rows if set(names) <= set(row)]


def enlarged(image: NDArray[np.uint8], zoom: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR), np.uint8)


def arrows(flow: torch.Tensor, seen: Inspection, count: int = 24, zoom: int = 2) -> NDArray[np.uint8]:
    """A flow as arrows on the paled image, as many along its longer side, longer than true by a power of two."""
    height, width = seen.size
    picture = enlarged(255 - (255 - seen.image) // 5 * 2, zoom)
    pitch = torch.tensor(pixel_pitch((flow.shape[1], flow.shape[2]), seen))
    field = (at_image(flow, seen) * pitch[:, None, None]).numpy()  # in pixels of the image
    spacing = max(height, width) / count
    longest = float(np.linalg.norm(field, axis=0).max())
    scale = 2 ** max(0, math.floor(math.log2(spacing / longest))) if longest else 1
    for y in np.arange(spacing / 2, height - 0.5, spacing):
        for x in np.arange(spacing / 2, width - 0.5, spacing):
            start = np.array([round(x), round(y)])
            ends = [(place + 0.5) * zoom * 16 for place in (start, start + scale * field[:, start[1], start[0]])]
            first, last = (np.rint(end).astype(int).tolist() for end in ends)
            cv2.arrowedLine(picture, first, last, ARROW, 1, cv2.LINE_AA, 4, 0.3)
    return picture


def crosses(seen: Inspection, points: SampledPoints, group: int = 0, zoom: int = 3) -> NDArray[np.uint8]:
    """A blue cross at the level's pixel in the middle of the image, red ones at what it samples, larger by weight."""
    height, width = seen.size
    picture = enlarged(seen.image, zoom)
    row, column = np.abs(points.ys - height / 2).argmin(), np.abs(points.xs - width / 2).argmin()
    xy, weights = points.xy[row, column, group], points.weights[row, column, group]
    arm = max(width, height) * zoom / 30
    sizes = arm * (1 + 2 * np.sqrt(weights / weights.max())) / 3
    marks = [(place, size, POINT) for place, size in zip(xy, sizes, strict=True)]
    for place, size, color in [*marks, (np.array([points.xs[column], points.ys[row]]), arm, PIXEL)]:
        centre = np.rint((place + 0.5) * zoom).astype(int).tolist()
        cv2.drawMarker(picture, centre, color, cv2.MARKER_CROSS, round(size), max(1, round(arm / 10)), cv2.LINE_AA)
    return picture


def figures(seen: Inspection) -> dict[str, list[Row]]:
    """Name of each figure that the model's parts allow, and its rows of titled pictures."""
    image, points = {"image": seen.image}, sampled_points(seen)
    drawings = {}
    if flows := {seen.parts[part].title: flow_of(seen, part) for part in seen.of("fam")}:
        growing = {title: flow_image(at_image(flow, seen)) for title, flow in flows.items()}
        last = arrows(list(flows.values())[-1], seen)
        drawings["sfnet_figure_5"] = [{**image, **growing, "arrows": last, "result": seen.colors()}]
    levels = shown(seen, "ddsm", "coarse x_h", "fine x_l", "spatial x_Sout", "x_Sout + x_Cout")
    if levels:
        sampled = [{"sampled for a pixel": crosses(seen, sampling)} for sampling in points]
        drawings["ddsm_figure_4"] = [{**picture, **level} for picture, level in zip(sampled, levels, strict=True)]
    blocks = shown(seen, "cfb", "decoder feature A", "descriptor map M", "enhanced feature E")
    if blocks:
        drawings["agln_figure_3"] = [{**image, **blocks[-1], "result": seen.colors()}]
    drawings["unept_figure_4"] = [{**image, **row} for row in shown(seen, "refinement")]
    if crossing := [sampling for sampling in points if sampling.title.endswith("cross-attention")]:
        heads = enumerate(crossing[-1].groups)
        drawings["unept_sampling"] = [
            {name: crosses(seen, crossing[-1], group) for group, name in heads if name.startswith("head 1")}
        ]
    return {name: rows for name, rows in drawings.items() if rows}


def main(model: str, image: str, folder: str) -> None:
    """Write `IMAGE_FIGURE.png` for each figure."""
    seen = inspect_image(crispseg.from_pretrained(model), image)
    for name, rows in figures(seen).items():
        titles = [title.replace("→", "to") for title in rows[0]]
        write_image(Path(folder) / f"{seen.name}_{name}.png", panels([list(row.values()) for row in rows], titles))


if __name__ == "__main__":
    main(*sys.argv[1:])
