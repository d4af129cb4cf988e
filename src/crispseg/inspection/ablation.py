"""Scores of a trained model with a quantity that it computes set to zero, made uniform or left out.

Nothing is trained again: the loss shows the model's use of the quantity, not what a network without it could learn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from crispseg.data import SegmentationDataset
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.evaluation.evaluate import score_model
from crispseg.evaluation.summary import DISTANCE, Evaluation
from crispseg.models import SegmentationModel
from crispseg.nn.record import Change, alter, taps


@dataclass(frozen=True)
class Ablation:
    """One way to change a model: its name and its effect, for tables, and what is changed.

    Args:
        changes: by a regular expression for the end of a quantity's path.
        part: name of the part next to a quantity that computes it; without the part, the quantity is left alone.
    """

    name: str
    explanation: str
    changes: Mapping[str, Change]
    part: str = ""

    def of(self, paths: Sequence[str]) -> dict[str, Change]:
        """The changes of a model whose quantities have these paths, for `crispseg.alter`."""
        return {
            path: change
            for ending, change in self.changes.items()
            for path in paths
            if (found := re.search(rf"(^|.*\.)({ending})$", path))
            and (not self.part or any(other.startswith(f"{found[1]}{self.part}.") for other in paths))
        }


def uniform(dims: tuple[int, ...]) -> Change:
    """The mean along some dimensions, everywhere."""
    return lambda x: x.mean(dims, keepdim=True).expand_as(x)


_PIXELS = (-2, -1)

ABLATIONS: tuple[Ablation, ...] = (
    # SFNet and SFNet-Lite, whose fine level has a flow too
    Ablation("flow × 0", "coarse levels are upsampled bilinearly", {"(fine_)?flow": torch.zeros_like}),
    Ablation("gate uniform", "all pixels mix coarse and fine level in the same proportion", {"gate": uniform(_PIXELS)}),
    # Sampled points: DDSM, UN-EPT, deformable convolutions
    Ablation(
        "offsets × 0",
        "points where they are without learned offsets: on a regular grid, or all on the pixel itself (UN-EPT)",
        {r"spatial\.affinity\.sampler\.offset|(?<!sampler\.)offset|attention\.offsets": torch.zeros_like},
    ),
    Ablation(
        "weights uniform",
        "all sampled points of a pixel count the same",
        # DDSM multiplies a sample by its weight δ times its modulation Δm.
        {r"spatial\.affinity\.(weights|sampler\.modulation)": uniform((1,)), r"attention\.weights": uniform((-2, -1))},
    ),
    Ablation("spatial part off", "DDSM without sampled pixels", {"x_Sout": torch.zeros_like}, "spatial"),
    Ablation("channel part off", "DDSM without sampled channels", {"x_Cout": torch.zeros_like}, "channel"),
    # AGLN
    Ablation("M × 0", "no descriptors reach the pixels; the gate is a half", {r"sdm\.M": torch.zeros_like}),
    Ablation("M uniform", "all pixels get the same mixture of descriptors", {r"sdm\.M": uniform(_PIXELS)}),
    Ablation("no encoder features", "what local refinement lets through is left out", {r"lrm\.G": torch.zeros_like}),
    # Boundary refinement of any model
    Ablation("no refinement", "no pixel is on a boundary", {r"refiner\.boundary": lambda x: torch.full_like(x, -100)}),
)


def ablations_of(model: SegmentationModel, names: Iterable[str] | None = None) -> dict[str, Ablation]:
    """Return the `ABLATIONS` whose quantities a model has, by name, or those of the given names.

    Raises:
        CrispsegError: the model has no quantity that could be changed; an unknown name.
    """
    paths = list(taps(model))
    found = {ablation.name: ablation for ablation in ABLATIONS if ablation.of(paths)}
    if not found:
        raise CrispsegError(f"{model.info.name} has no flow, points, descriptors or refinement; give a model with one")
    for name in names or ():
        if name not in found:
            raise CrispsegError(f"no ablation '{name}'{did_you_mean(name, found)}")
    return found if names is None else {name: found[name] for name in names}


def ablate(
    model: SegmentationModel, dataset: SegmentationDataset, names: Iterable[str] | None = None, **options: Any
) -> Iterator[Evaluation]:
    """Score a model as it is and under each change, one after the other; it is left in eval mode on the device.

    Names are of `ablations_of`, by default all; options are those of `evaluate`.

    Raises:
        CrispsegError: as `ablations_of` and `evaluate`.
    """
    chosen = ablations_of(model, names).values()
    paths = list(taps(model))
    for ablation in (Ablation("intact", "the model as it is", {}), *chosen):
        with alter(model, ablation.of(paths)):
            scored = score_model(model, dataset, boundary=[DISTANCE], **options)
        yield replace(scored, name=ablation.name, explanation=ablation.explanation)
