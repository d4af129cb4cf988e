"""The papers' figures, drawn from inspections: by name, and as files.

    figure("sfnet_figure_5", seen)

Features are heat maps of their mean over channels, each on its own scale, as in the papers of SFNet (Fig. 2) and DDSM
(§3.3). The paper of AGLN does not say how it turns features into pictures: ours of the decoder are principal
components, where alike is of one colour, and single encoder channels are heat maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError, did_you_mean
from crispseg.inspection.flow import arrows, flow_colors, flows
from crispseg.inspection.maps import heat_map, most_refined
from crispseg.inspection.panels import PANELS, Panel, refinement
from crispseg.inspection.points import ddsm_points, draw_points, sampled_points
from crispseg.inspection.quantities import Inspection
from crispseg.io.files import writable_folder
from crispseg.io.images import write_image
from crispseg.labels import LabelSet
from crispseg.visualization.charts import drawn, new_figure
from crispseg.visualization.pictures import panels

Picture: TypeAlias = NDArray[np.uint8]
"""`(H, W, 3)` RGB."""
Row: TypeAlias = dict[str, Picture]
"""Pictures side by side, by their titles."""


class Figure(NamedTuple):
    """How a figure is made.

    Args:
        rows: an inspection, one of the same image by another model or None, and options → the rows of the figure.
        part: what the model must have, one of `PARTS`.
        system: models whose name begins so have this figure among theirs.
        truth: whether it shows the truth.
        legend: whether it shows classes, whose colours are then explained.
    """

    rows: Callable[..., list[Row]]
    part: str = ""
    system: str = ""
    truth: bool = False
    legend: bool = True


PARTS: dict[str, Callable[[Inspection], Any]] = {
    "": lambda seen: True,
    "flow alignment module": lambda seen: seen.of("fam"),
    "DDSM with both affinities": lambda seen: [part for part in seen.of("ddsm") if seen.has(part, "x_Sout", "x_Cout")],
    "context fusion block": lambda seen: seen.of("cfb"),
    "boundary refinement": lambda seen: seen.unrefined is not None,
    "cross-attention": lambda seen: [each for each in sampled_points(seen) if each.part.endswith("cross_attention")],
}
"""What a figure is about, for people, and where an inspection has it."""


def figure(name: str, *seen: Inspection, beside: Inspection | None = None, **options: Any) -> Picture:
    """One of `FIGURES`.

    Args:
        name: name of the figure.
        seen: inspections by the model that the figure is about; each has rows of its own.
        beside: an inspection of the same image by another model, where a figure compares two.
        options: `x` and `y`, the pixel in pixels of the image, of "ddsm_figure_4" and "unept_sampling", by default its
            centre; `channels` of "agln_figure_5", by default those that refinement changes most and least.

    Raises:
        CrispsegError: no such figure; the model does not have what it shows; no truth; different images or classes.
    """
    if name not in FIGURES:
        raise CrispsegError(f"no figure '{name}'{did_you_mean(name, FIGURES)}")
    made = FIGURES[name]
    rows: list[Row] = []
    for each in seen:
        if not PARTS[made.part](each):
            raise CrispsegError(
                f"{each.info.name} has no {made.part}; this figure shows it, so inspect a model with one"
            )
        if not np.array_equal(each.image, (beside or each).image):
            raise CrispsegError(f"the inspections of {each.name} show different images; inspect the same one")
        if (beside or each).label_set != each.label_set:
            raise CrispsegError(
                f"the model beside {each.info.name} has different classes; compare models of the same data"
            )
        rows += made.rows(each, beside, **options)
    titles = [" / ".join(dict.fromkeys(names)).replace("→", "to") for names in zip(*rows, strict=True)]
    legend = shown_classes(*seen, *([beside] if beside else [])) if made.legend else None
    return panels([list(row.values()) for row in rows], titles, legend)


def figures(ours: Inspection, beside: Inspection | None = None) -> dict[str, Picture]:
    """The figures that the model's parts and the truth allow, by name; arguments as for `figure`.

    Figures that compare results belong to no part: they take the name of the system.
    """
    return {
        name: figure(name, ours, beside=beside)
        for name, made in FIGURES.items()
        if PARTS[made.part](ours)
        and ours.info.name.startswith(made.system)
        and (ours.truth is not None or not made.truth)
    }


def save_figures(folder: str | Path, ours: Inspection, beside: Inspection | None = None) -> list[Path]:
    """Write `figures` as `IMAGE_FIGURE.png`, and say which files these are.

    Raises:
        CrispsegError: the folder cannot be written; different images or classes.
    """
    target = writable_folder(folder)
    paths = []
    for name, picture in figures(ours, beside).items():
        paths.append(target / f"{ours.name}_{name}.png")
        write_image(paths[-1], picture)
    return paths


def speed_figure(rows: Sequence[tuple[str, float, float]]) -> Picture:
    """Speed against mIoU (SFNet, Fig. 1).

    Args:
        rows: name, images a second and mIoU in percent of each model, as `crispseg benchmark` and `evaluate` measure.

    Raises:
        CrispsegError: matplotlib is not installed.
    """
    drawing = new_figure(720, 440)
    axes = drawing.subplots()
    axes.scatter([speed for _, speed, _ in rows], [score for *_, score in rows], color="#1e64ff", edgecolor="black")
    for name, speed, score in rows:
        axes.annotate(name, (speed, score), (6, 0), textcoords="offset points", va="center")
    axes.margins(0.15)
    axes.set(xlabel="speed, images / s", ylabel="mIoU, %")
    return drawn(drawing)


# What several figures share -------------------------------------------------------------------------------------------


def names_of(ours: Inspection, theirs: Inspection) -> list[str]:
    """What titles call two models: their names, and where these are the same, what else differs.

    Only options that both have tell them apart: those of an exchanged part say nothing of the other model.
    """
    if ours.info.name != theirs.info.name:
        return [ours.info.name, theirs.info.name]
    first, second = ({"backbone": each.info.backbone, **each.info.options} for each in (ours, theirs))
    differing = [key for key in first if key in second and first[key] != second[key]][:2]
    if not differing:  # trained in another way
        return [ours.info.name, f"{theirs.info.name}, the other"]
    return [", ".join([ours.info.name, *(f"{key} {told[key]}" for key in differing)]) for told in (first, second)]


def shown_classes(*seen: Inspection) -> LabelSet:
    """The classes in any of the truths and predictions, for a legend."""
    maps = [each for one in seen for each in (one.labels, one.truth, one.unrefined) if each is not None]
    classes = seen[0].label_set
    chosen = [index for index in np.unique(np.concatenate([np.unique(each) for each in maps])) if index < len(classes)]
    if len(chosen) < 2:
        return classes
    return LabelSet(tuple(classes.names[i] for i in chosen), tuple(classes.palette[i] for i in chosen))


def _of_both(
    ours: Inspection,
    theirs: Inspection | None,
    picture: Callable[[Inspection], Picture] = Inspection.colors,
    what: str = "",
) -> Row:
    """A picture of each model, theirs first; `what` stands before their names, or alone where there is one model."""
    if theirs is None:
        return {what or ours.info.name: picture(ours)}
    own, other = names_of(ours, theirs)
    return {f"{what}, {name}".removeprefix(", "): picture(each) for name, each in ((other, theirs), (own, ours))}


def _image_and_truth(seen: Inspection) -> Row:
    return {"image": seen.image, "truth": seen.colors(seen.known_truth())}


def _shown(panels: Iterable[Panel], *names: str) -> Row:
    """Some of the page's pictures, by default all."""
    found = {panel.name: panel.pixels for panel in panels}
    return {name: found[name] for name in names or found}


def results(ours: Inspection, theirs: Inspection | None) -> list[Row]:
    """Image, truth, and the results of both models; side by side here, AGLN's Fig. 6 has them below each other."""
    return [{**_image_and_truth(ours), **_of_both(ours, theirs)}]


# SFNet ----------------------------------------------------------------------------------------------------------------


def sfnet_figure_2(seen: Inspection, _: Inspection | None) -> list[Row]:
    """For each FAM the coarse level F_l upsampled bilinearly, the fine level F_(l-1), the flow, and F_l warped."""
    return [_shown(PANELS["fam"](seen, part)) for part in seen.of("fam")]


def _aligned(seen: Inspection, part: str, deformed: Row) -> Row:
    """Image and coarse level, upsampled bilinearly, in other ways if there are, and by the FAM."""
    levels = _shown(PANELS["fam"](seen, part))
    bilinear, warped = levels["coarse level, upsampled"], levels["coarse level, warped"]
    return {"image": seen.image, "bilinear": bilinear, **deformed, "FAM": warped}


def sfnet_figure_4(ours: Inspection, dcn: Inspection | None) -> list[Row]:
    """The coarse level upsampled bilinearly, by a deformable convolution where `dcn` has one, and by the last FAM."""
    deformed: Row = {}
    if dcn is not None and dcn.of("dcn"):
        deformed = {"DCN": _shown(PANELS["dcn"](dcn, dcn.of("dcn")[-1]))["output"]}
    return [_aligned(ours, ours.of("fam")[-1], deformed)]


def sfnet_figure_5(seen: Inspection, _: Inspection | None) -> list[Row]:
    """Image, the flow of each FAM with growing resolution, arrows of the last one, and the result."""
    drawn, scale = arrows(flows(seen)[-1], seen)
    (growing,) = sfnet_figure_8(seen, None)
    return [{**growing, f"arrows, {scale}x as long": drawn, "result": seen.colors()}]


def sfnet_figure_6(ours: Inspection, theirs: Inspection | None) -> list[Row]:
    """Image, truth, and for both models (a) the errors, right pixels black, and (b) the results."""
    known = _image_and_truth(ours)
    return [{**known, **_of_both(ours, theirs, Inspection.errors)}, {**known, **_of_both(ours, theirs)}]


def sfnet_figure_7(seen: Inspection, _: Inspection | None) -> list[Row]:
    """The coarse level upsampled and warped, of the last FAM but one (above) and of the last one."""
    return [_aligned(seen, part, {}) for part in seen.of("fam")[-2:]]


def sfnet_figure_8(seen: Inspection, _: Inspection | None) -> list[Row]:
    """Image, and the flow of each FAM with growing resolution."""
    return [{"image": seen.image, **{flow.title: flow_colors(flow, seen) for flow in flows(seen)}}]


# DDSM -----------------------------------------------------------------------------------------------------------------


def ddsm_figure_1(ours: Inspection, theirs: Inspection | None) -> list[Row]:
    """Image, truth, the outputs of both models, the errors of both."""
    outputs = _of_both(ours, theirs, what="output")
    return [{**_image_and_truth(ours), **outputs, **_of_both(ours, theirs, Inspection.errors, "errors")}]


def ddsm_figure_4(seen: Inspection, _: Inspection | None, **place: Any) -> list[Row]:
    """For each DDSM the positions sampled for a pixel, x_h, x_l, x_Sout, and the sum x_Sout + x_Cout."""
    return [
        {
            "sampled for a pixel": draw_points(seen.image, ddsm_points(seen, part), **place),
            **_shown(PANELS["ddsm"](seen, part), "coarse x_h", "fine x_l", "spatial x_Sout", "x_Sout + x_Cout"),
        }
        for part in PARTS["DDSM with both affinities"](seen)
    ]


# AGLN -----------------------------------------------------------------------------------------------------------------


def agln_figure_3(ours: Inspection, theirs: Inspection | None) -> list[Row]:
    """Image, A, M and E of the last block of the last step, results of both models, and the truth if there is one."""
    levels = PANELS["cfb"](ours, ours.of("cfb")[-1])
    shown = _shown(levels, "decoder feature A", "descriptor map M", "enhanced feature E")
    truth = {"truth": ours.colors(ours.truth)} if ours.truth is not None else {}
    return [{"image": ours.image, **shown, **_of_both(ours, theirs), **truth}]


def agln_figure_5(seen: Inspection, _: Inspection | None, channels: Iterable[int] | None = None) -> list[Row]:
    """Encoder channels before (B) and after (G) the local refinement of the last block."""
    block = seen.of("cfb")[-1]
    chosen = most_refined(seen, block) if channels is None else list(channels)
    count = len(seen.tap(block, "lrm.B"))
    if wrong := [index for index in chosen if not 0 <= index < count]:
        raise CrispsegError(f"{seen.info.name} has no channel {wrong[0]} to show; they are 0 to {count - 1}")
    return [
        {f"channel {index}": heat_map(seen.tap(block, tap)[index, None], seen) for index in chosen}
        for tap in ("lrm.B", "lrm.G")
    ]


# UN-EPT ---------------------------------------------------------------------------------------------------------------


def unept_figure_1(seen: Inspection, _: Inspection | None) -> list[Row]:
    """Image, prediction, truth, and where they differ, in the truth's colours on black."""
    truth = seen.colors(seen.known_truth())
    return [{"image": seen.image, "prediction": seen.colors(), "truth": truth, "difference": seen.errors()}]


def unept_figure_4(seen: Inspection, _: Inspection | None) -> list[Row]:
    """The result before and after boundary refinement; beside it what decides, boundaries and directions.

    Boundaries are probabilities, 0 dark to 1 yellow. Directions have the hue of the optical-flow colours.
    """
    return [{"image": seen.image, **_shown(refinement(seen))}]


def unept_sampling(seen: Inspection, _: Inspection | None, **place: Any) -> list[Row]:
    """What the first head of the last cross-attention samples for a pixel, by level; no figure of the paper."""
    last = PARTS["cross-attention"](seen)[-1]
    return [
        {
            name: draw_points(seen.image, last, group=index, **place)
            for index, name in enumerate(last.groups)
            if name.startswith("head 1")
        }
    ]


FIGURES = {
    "agln_figure_1": Figure(results, system="agln", truth=True),
    "agln_figure_3": Figure(agln_figure_3, "context fusion block"),
    "agln_figure_5": Figure(agln_figure_5, "context fusion block", legend=False),
    "agln_figure_6": Figure(results, system="agln", truth=True),
    "ddsm_figure_1": Figure(ddsm_figure_1, system="ddsm", truth=True),
    "ddsm_figure_4": Figure(ddsm_figure_4, "DDSM with both affinities", legend=False),
    "sfnet_figure_2": Figure(sfnet_figure_2, "flow alignment module", legend=False),
    "sfnet_figure_4": Figure(sfnet_figure_4, "flow alignment module", legend=False),
    "sfnet_figure_5": Figure(sfnet_figure_5, "flow alignment module"),
    "sfnet_figure_6": Figure(sfnet_figure_6, system="sfnet", truth=True),
    "sfnet_figure_7": Figure(sfnet_figure_7, "flow alignment module", legend=False),
    "sfnet_figure_8": Figure(sfnet_figure_8, "flow alignment module", legend=False),
    "unept_figure_1": Figure(unept_figure_1, system="unept", truth=True),
    "unept_figure_3": Figure(results, system="unept", truth=True),
    "unept_figure_4": Figure(unept_figure_4, "boundary refinement"),
    "unept_sampling": Figure(unept_sampling, "cross-attention", system="unept", legend=False),
}
"""All figures, by name."""
