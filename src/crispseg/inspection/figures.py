"""All figures of the papers that an inspection gives, by name, and as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from crispseg.decoders import DeformableFuse
from crispseg.files import writable_folder
from crispseg.imaging import write_image
from crispseg.inspection import agln, ddsm, sfnet, unept
from crispseg.inspection.common import Picture, same_images
from crispseg.inspection.quantities import Inspection
from crispseg.models.agln import SemanticDistribution
from crispseg.models.ddsm import DDSM
from crispseg.models.sfnet import FlowAlignment


def figures(ours: Inspection, theirs: Inspection | None = None) -> dict[str, Picture]:
    """The figures that the model's parts and the truth allow, `(H, W, 3)` RGB, by names such as "sfnet_figure_2".

    Figures that compare results belong to no part: they take the name of the system.

    Args:
        ours: of the model.
        theirs: of the same image by another model, for the figures that compare.

    Raises:
        CrispsegError: different images or classes.
    """
    same_images(ours, theirs)
    made: dict[str, Callable[[], Picture]] = {}
    system = ours.info.name
    known = ours.truth is not None
    if ours.of(FlowAlignment):
        made["sfnet_figure_2"] = lambda: sfnet.figure_2(ours)
        deformed = theirs if theirs is not None and theirs.of(DeformableFuse) else None
        made["sfnet_figure_4"] = lambda: sfnet.figure_4(ours, deformed)
        made["sfnet_figure_5"] = lambda: sfnet.figure_5(ours)
        made["sfnet_figure_7"] = lambda: sfnet.figure_7(ours)
        made["sfnet_figure_8"] = lambda: sfnet.figure_8(ours)
    if system == "sfnet" and known:
        made["sfnet_figure_6"] = lambda: sfnet.figure_6(ours, theirs)
    if system.startswith("ddsm") and known:
        made["ddsm_figure_1"] = lambda: ddsm.figure_1(ours, theirs)
    if any({f"{part}.x_Sout", f"{part}.x_Cout"} <= ours.taps.keys() for part in ours.of(DDSM)):
        made["ddsm_figure_4"] = lambda: ddsm.figure_4(ours)
    if system.startswith("agln") and known:
        made["agln_figure_1"] = lambda: agln.figure_1(ours, theirs)
        made["agln_figure_6"] = lambda: agln.figure_6(ours, theirs)
    if ours.of(SemanticDistribution):
        made["agln_figure_3"] = lambda: agln.figure_3(ours, theirs)
        made["agln_figure_5"] = lambda: agln.figure_5(ours)
    if system == "unept":
        made["unept_sampling"] = lambda: unept.sampling_figure(ours)
        if known:
            made["unept_figure_1"] = lambda: unept.figure_1(ours)
            made["unept_figure_3"] = lambda: unept.figure_3(ours, theirs)
    if ours.unrefined is not None:
        made["unept_figure_4"] = lambda: unept.figure_4(ours)
    return {name: made[name]() for name in sorted(made)}


def save_figures(folder: str | Path, ours: Inspection, theirs: Inspection | None = None) -> list[Path]:
    """Write `figures` as `IMAGE_FIGURE.png`, and say which files these are.

    Raises:
        CrispsegError: the folder cannot be written; different images or classes.
    """
    target = writable_folder(folder)
    paths = []
    for name, picture in figures(ours, theirs).items():
        paths.append(target / f"{ours.name}_{name}.png")
        write_image(paths[-1], picture)
    return paths
