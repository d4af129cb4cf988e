"""Scores of a trained model with one of its quantities set to zero, made uniform or left out.

No model is retrained. The drop shows how much the model uses the quantity, not what a network could learn without it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crispseg.data import SegmentationDataset
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.evaluation.evaluate import score_model
from crispseg.evaluation.summary import DISTANCE, Evaluation
from crispseg.labels import IGNORE
from crispseg.models import SegmentationModel
from crispseg.nn.record import Change, alter, taps


@dataclass(frozen=True)
class Ablation:
    """Change of a model: name and effect for tables, and the changed quantities.

    Args:
        changes: changes, by a regular expression for the end of a quantity's path.
        part: path from the quantity's module to what computes it; if it is missing, the quantity stays unchanged.
        needs: ending of a path that the model must have; without it, nothing changes.
    """

    name: str
    explanation: str
    changes: Mapping[str, Change]
    part: str = ""
    needs: str = ""

    def of(self, paths: Sequence[str]) -> dict[str, Change]:
        """Return the changes of a model with these quantities' paths, for `crispseg.alter`."""
        changes: dict[str, Change] = {}
        if not any(path.endswith(self.needs) for path in paths):
            return changes
        for ending, change in self.changes.items():
            for path in paths:
                match = re.search(rf"(^|.*\.)({ending})$", path)
                if match and any(other.startswith(f"{match[1]}{self.part}") for other in paths):
                    changes[path] = change
        return changes


def uniform(dims: tuple[int, ...]) -> Change:
    """Return a change that replaces each value by the mean along some dimensions."""
    return lambda x: x.mean(dims, keepdim=True).expand_as(x)


def _nowhere(boundary: Tensor) -> Tensor:
    return torch.full_like(boundary, -100)


_SIDES = (-2, -1)
_ALL_WEIGHTS = r"(\w+_)?attention\.weights"

ABLATIONS: tuple[Ablation, ...] = (
    # SFNet and SFNet-Lite; the fine level of the latter has a flow too
    Ablation("flow × 0", "coarse levels are upsampled bilinearly", {"(fine_)?flow": torch.zeros_like}),
    Ablation(
        "gate uniform",
        "all pixels mix coarse and fine level in the same proportion",
        {"gate": uniform(_SIDES)},
    ),
    Ablation("no pooling", "pyramid pooling without its pooled maps", {r"context\.pooled": torch.zeros_like}),
    # Sampled points: DDSM, UN-EPT, deformable convolutions
    Ablation(
        "offsets × 0",
        "points have no learned offsets: they are on a regular grid, or all on the pixel itself (UN-EPT)",
        {r"spatial\.affinity\.sampler\.offset|(?<!sampler\.)offset|(\w+_)?attention\.offsets": torch.zeros_like},
    ),
    Ablation(
        "weights uniform",
        "all sampled points of a pixel have equal weights",
        # DDSM multiplies a sample by its weight δ times its modulation Δm.
        {r"spatial\.affinity\.(weights|sampler\.modulation)": uniform((1,)), _ALL_WEIGHTS: uniform((-2, -1))},
    ),
    Ablation("spatial part off", "DDSM without sampled pixels", {"x_Sout": torch.zeros_like}, "spatial."),
    Ablation("channel part off", "DDSM without sampled channels", {"x_Cout": torch.zeros_like}, "channel."),
    # AGLN
    Ablation("M × 0", "no descriptors reach the pixels; the gate is a half", {r"sdm\.M": torch.zeros_like}),
    Ablation("M uniform", "all pixels get the same mixture of descriptors", {r"sdm\.M": uniform(_SIDES)}),
    Ablation("no encoder features", "the output of local refinement is left out", {r"lrm\.G": torch.zeros_like}),
    Ablation("no refined features", "encoder features are added unrefined", {r"lrm\.R": torch.zeros_like}),
    Ablation(
        "blocks off",
        "Context Fusion Blocks without descriptors and refined features: only their convolutions",
        {r"sdm\.M": torch.zeros_like, r"lrm\.R": torch.zeros_like},
    ),
    # UN-EPT
    Ablation(
        "no encoder attention",
        "the encoder's pixels do not see other pixels and levels",
        {r"encoder\.\d+\.attention\.weights": torch.zeros_like},
    ),
    Ablation("no attention", "the transformer is left with its queries", {_ALL_WEIGHTS: torch.zeros_like}),
    Ablation("queries uniform", "all pixels have the same query", {"context_queries": uniform(_SIDES)}),
    Ablation(
        "no spatial branch",
        "queries are zero, and no pixel is on a boundary",
        {"context_queries": torch.zeros_like, r"refiner\.boundary": _nowhere},
        needs="context_queries",
    ),
    # Boundary refinement of any model
    Ablation("no refinement", "no pixel is on a boundary", {r"refiner\.boundary": _nowhere}),
)


def ablations_of(model: SegmentationModel, names: Iterable[str] | None = None) -> dict[str, Ablation]:
    """Return the `ABLATIONS` that apply to a model, by name, or only the named ones.

    An unknown name, or a model without a quantity to change, raises a `CrispsegError`.
    """
    paths = list(taps(model))
    known = {ablation.name: ablation for ablation in ABLATIONS if ablation.of(paths)}
    if not known:
        raise CrispsegError(f"{model.info.name} has no flow, points, descriptors or refinement; give a model with one")
    for name in names or ():
        if name not in known:
            raise CrispsegError(f"no ablation '{name}'{did_you_mean(name, known)}")
    return known if names is None else {name: known[name] for name in names}


class LabelChanges:
    """Pixels whose label differs from that in the first evaluation; `evaluate` updates it like a metric."""

    def __init__(self) -> None:
        self.first: dict[int, bytes] = {}  # labels of each image, compressed
        self.changed = self.pixels = 0

    def update(self, prediction: Tensor, truth: Tensor, ids: Sequence[int]) -> None:
        """Add an image; ignored pixels do not count."""
        labels = prediction[truth != IGNORE].to(torch.uint8).numpy()
        first = self.first.setdefault(ids[0], zlib.compress(labels.tobytes(), 1))
        self.changed += int(np.count_nonzero(labels != np.frombuffer(zlib.decompress(first), np.uint8)))
        self.pixels += labels.size

    def percent(self) -> float:
        """Return the percentage of changed pixels, and begin to count again."""
        percent = round(100 * self.changed / max(self.pixels, 1), 4)
        self.changed = self.pixels = 0
        return percent


def ablate(
    model: SegmentationModel,
    dataset: SegmentationDataset,
    names: Iterable[str] | None = None,
    **options: Any,
) -> Iterator[Evaluation]:
    """Score a model unchanged and then under each change; the model stays in eval mode on the device.

    `names` are keys of `ablations_of`, by default all; `options` are those of `evaluate`. Errors are those of both.
    """
    chosen = ablations_of(model, names).values()
    paths, labels = list(taps(model)), LabelChanges()
    for ablation in (Ablation("intact", "the unchanged model", {}), *chosen):
        with alter(model, ablation.of(paths)):
            scored = score_model(model, dataset, boundary=[DISTANCE], labels=labels, **options)
        columns = {"relabelled": labels.percent()}
        yield replace(scored, name=ablation.name, explanation=ablation.explanation, columns=columns)
