"""Scores of a trained model with one of its quantities set to zero, made uniform or left out.

No model is retrained. The drop shows how much the model uses the quantity, not what a network could learn without it.
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
    """Change of a model: name and effect for tables, and the changed quantities.

    Args:
        changes: changes, by a regular expression for the end of a quantity's path.
        part: name of the sibling module that computes the quantity; if it is missing, the quantity stays unchanged.
    """

    name: str
    explanation: str
    changes: Mapping[str, Change]
    part: str = ""

    def of(self, paths: Sequence[str]) -> dict[str, Change]:
        """Return the changes of a model with these quantities' paths, for `crispseg.alter`."""
        return {
            path: change
            for ending, change in self.changes.items()
            for path in paths
            if (found := re.search(rf"(^|.*\.)({ending})$", path))
            and (not self.part or any(other.startswith(f"{found[1]}{self.part}.") for other in paths))
        }


def uniform(dims: tuple[int, ...]) -> Change:
    """Return a change that replaces each value by the mean along some dimensions."""
    return lambda x: x.mean(dims, keepdim=True).expand_as(x)


_PIXELS = (-2, -1)

ABLATIONS: tuple[Ablation, ...] = (
    # SFNet and SFNet-Lite; the fine level of the latter has a flow too
    Ablation("flow × 0", "coarse levels are upsampled bilinearly", {"(fine_)?flow": torch.zeros_like}),
    Ablation("gate uniform", "all pixels mix coarse and fine level in the same proportion", {"gate": uniform(_PIXELS)}),
    # Sampled points: DDSM, UN-EPT, deformable convolutions
    Ablation(
        "offsets × 0",
        "points have no learned offsets: they are on a regular grid, or all on the pixel itself (UN-EPT)",
        {r"spatial\.affinity\.sampler\.offset|(?<!sampler\.)offset|attention\.offsets": torch.zeros_like},
    ),
    Ablation(
        "weights uniform",
        "all sampled points of a pixel have equal weights",
        # DDSM multiplies a sample by its weight δ times its modulation Δm.
        {r"spatial\.affinity\.(weights|sampler\.modulation)": uniform((1,)), r"attention\.weights": uniform((-2, -1))},
    ),
    Ablation("spatial part off", "DDSM without sampled pixels", {"x_Sout": torch.zeros_like}, "spatial"),
    Ablation("channel part off", "DDSM without sampled channels", {"x_Cout": torch.zeros_like}, "channel"),
    # AGLN
    Ablation("M × 0", "no descriptors reach the pixels; the gate is a half", {r"sdm\.M": torch.zeros_like}),
    Ablation("M uniform", "all pixels get the same mixture of descriptors", {r"sdm\.M": uniform(_PIXELS)}),
    Ablation("no encoder features", "the output of local refinement is left out", {r"lrm\.G": torch.zeros_like}),
    # Boundary refinement of any model
    Ablation("no refinement", "no pixel is on a boundary", {r"refiner\.boundary": lambda x: torch.full_like(x, -100)}),
)


def ablations_of(model: SegmentationModel, names: Iterable[str] | None = None) -> dict[str, Ablation]:
    """Return the `ABLATIONS` that apply to a model, by name, or only the named ones.

    An unknown name, or a model without a quantity to change, raises a `CrispsegError`.
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
    """Score a model unchanged and then under each change; the model stays in eval mode on the device.

    `names` are keys of `ablations_of`, by default all; `options` are those of `evaluate`. Errors are those of both.
    """
    chosen = ablations_of(model, names).values()
    paths = list(taps(model))
    for ablation in (Ablation("intact", "the unchanged model", {}), *chosen):
        with alter(model, ablation.of(paths)):
            scored = score_model(model, dataset, boundary=[DISTANCE], **options)
        yield replace(scored, name=ablation.name, explanation=ablation.explanation)
