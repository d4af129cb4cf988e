"""Does the alignment help? A trained model is scored with what it learned to compute scaled, shuffled or left out.

Nothing is trained again: what is lost here is what this model makes of the quantity, not what a network without it
could learn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from crispseg.data import SegmentationDataset
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.evaluation.boundary import BoundaryScores
from crispseg.evaluation.evaluate import evaluate
from crispseg.inspection.beside import DISTANCE, Scored
from crispseg.models import SegmentationModel
from crispseg.nn.record import Change, alter, taps

Changes: TypeAlias = Mapping[str, Change]
"""For `crispseg.alter`: from the paths of quantities to what is done to them."""


@dataclass(frozen=True)
class Ablation:
    """One way to change a model.

    Args:
        name: for tables.
        explanation: what is done, and what is left.
        changes: paths of all the model's quantities → those changed and how; none if the model has nothing to change.
    """

    name: str
    explanation: str
    changes: Callable[[Sequence[str]], Changes]


# Changes ------------------------------------------------------------------------------------------------------------


def scale(factor: float) -> Change:
    """Times a factor; 1 changes nothing."""
    return lambda x: x * factor


def shuffle(dims: tuple[int, ...], seed: int = 0) -> Change:
    """A fixed random permutation of the positions along some dimensions together: what is where no longer fits."""

    def change(x: Tensor) -> Tensor:
        axes = [dim % x.ndim for dim in dims]
        rest = [dim for dim in range(x.ndim) if dim not in axes]
        moved = x.permute(*rest, *axes)
        flat = moved.flatten(len(rest))  # (..., positions)
        order = torch.randperm(flat.shape[-1], generator=torch.Generator().manual_seed(seed)).to(x.device)
        shuffled = flat[..., order].view(moved.shape)
        inverse = sorted(range(x.ndim), key=[*rest, *axes].__getitem__)
        return shuffled.permute(*inverse)

    return change


def uniform(dims: tuple[int, ...]) -> Change:
    """The mean along some dimensions, everywhere."""
    return lambda x: x.mean(dims, keepdim=True).expand_as(x)


def constant(value: float) -> Change:
    """The same value everywhere."""
    return lambda x: torch.full_like(x, value)


# Which quantities -----------------------------------------------------------------------------------------------------


def each(ending: str, change: Change) -> Callable[[Sequence[str]], Changes]:
    """The change for all quantities whose path ends so."""

    def changes(paths: Sequence[str]) -> Changes:
        return {path: change for path in paths if f".{path}".endswith(f".{ending}")}

    return changes


def replaced(ending: str, source: str) -> Callable[[Sequence[str]], Changes]:
    """Each quantity of an ending by that of another ending in the same module, which is computed before it."""

    def changes(paths: Sequence[str]) -> Changes:
        found: dict[str, Change] = {}
        for path in each(ending, scale(1))(paths):
            before = path.removesuffix(ending) + source
            if before not in paths:
                return {}
            kept: dict[str, Tensor] = {}
            found[before] = _keep(kept)
            found[path] = lambda _, kept=kept: kept["it"]  # type: ignore[misc]
        return found

    return changes


def _keep(kept: dict[str, Tensor]) -> Change:
    def change(x: Tensor) -> Tensor:
        kept["it"] = x
        return x

    return change


def without_part(ending: str, part: str) -> Callable[[Sequence[str]], Changes]:
    """Zero for each quantity of an ending, in modules that have the part which computes it."""

    def changes(paths: Sequence[str]) -> Changes:
        found = each(ending, scale(0))(paths)
        parts = {path: f"{path.removesuffix(ending)}{part}." for path in found}
        return {path: found[path] for path in found if any(other.startswith(parts[path]) for other in paths)}

    return changes


def offsets(change: Change, of_queries: Change) -> Callable[[Sequence[str]], Changes]:
    """The learned offsets of sampled points, wherever a model has them.

    Args:
        change: of maps `(B, …, H, W)`, in DDSM's spatial part and in deformable convolutions.
        of_queries: of lists `(B, Q, …)`, in deformable attention.
    """

    def changes(paths: Sequence[str]) -> Changes:
        convolutions = [path for path in each("offset", change)(paths) if not path.endswith("sampler.offset")]
        return {
            **each("spatial.affinity.sampler.offset", change)(paths),
            **dict.fromkeys(convolutions, change),
            **each("attention.offsets", of_queries)(paths),
        }

    return changes


def weights(paths: Sequence[str]) -> Changes:
    """The same weight for all points of a pixel, in DDSM's spatial part and in deformable attention.

    What DDSM multiplies a sample by is its weight δ times its modulation Δm: both become the mean over the points.
    """
    return {
        **each("spatial.affinity.weights", uniform((1,)))(paths),
        **each("spatial.affinity.sampler.modulation", uniform((1,)))(paths),
        **each("attention.weights", uniform((-2, -1)))(paths),
    }


_PIXELS, _QUERIES = (-2, -1), (1,)
_FLOW = "flow"

ABLATIONS: tuple[Ablation, ...] = (
    # SFNet
    Ablation("flow × 0", "coarse levels are upsampled bilinearly, as without a FAM", each(_FLOW, scale(0))),
    Ablation("flow × 0.5", "half of each displacement", each(_FLOW, scale(0.5))),
    Ablation("flow × 2", "twice each displacement", each(_FLOW, scale(2))),
    Ablation("flow shuffled", "displacements of other pixels of the image", each(_FLOW, shuffle(_PIXELS))),
    # Sampled points: DDSM, UN-EPT, deformable convolutions
    Ablation(
        "offsets × 0",
        "points where they are without learned offsets: on a regular grid, or all on the pixel itself (UN-EPT)",
        offsets(scale(0), scale(0)),
    ),
    Ablation("offsets × 2", "twice as far from there", offsets(scale(2), scale(2))),
    Ablation("offsets shuffled", "offsets of other pixels of the image", offsets(shuffle(_PIXELS), shuffle(_QUERIES))),
    Ablation("weights uniform", "all sampled points of a pixel count the same", weights),
    Ablation("spatial part off", "DDSM without sampled pixels", without_part("x_Sout", "spatial")),
    Ablation("channel part off", "DDSM without sampled channels", without_part("x_Cout", "channel")),
    Ablation("queries shuffled", "UN-EPT's context queries of other pixels", each("context_queries", shuffle(_PIXELS))),
    # AGLN
    Ablation("M × 0", "no descriptors reach the pixels; the gate is a half", each("sdm.M", scale(0))),
    Ablation("M uniform", "all pixels get the same mixture of descriptors", each("sdm.M", uniform(_PIXELS))),
    Ablation("M shuffled", "mixtures of other pixels of the image", each("sdm.M", shuffle(_PIXELS))),
    Ablation("no local refinement", "the encoder's features as they are", replaced("lrm.G", "lrm.B")),
    Ablation("no encoder features", "what local refinement lets through is left out", each("lrm.G", scale(0))),
    # Boundary refinement of any model
    Ablation("no refinement", "no pixel counts as a boundary", each("refiner.boundary", constant(-100.0))),
    Ablation("direction shuffled", "directions of other pixels", each("refiner.direction", shuffle(_PIXELS))),
)
"""What is tried, as far as a model has the quantity."""


def ablations_of(model: SegmentationModel) -> dict[str, Ablation]:
    """Those of `ABLATIONS` whose quantities a model has, by name.

    Of several flow alignment modules each is also switched off alone.

    Raises:
        CrispsegError: the model has no quantity that could be changed.
    """
    paths = list(taps(model))
    found = {ablation.name: ablation for ablation in ABLATIONS if ablation.changes(paths)}
    flows = list(each(_FLOW, scale(0))(paths))
    if len(flows) > 1:
        for path in flows:
            module = path.removesuffix(f".{_FLOW}")
            name = f"flow × 0 in {module}"
            found[name] = Ablation(name, f"{module} alone upsamples bilinearly", each(path, scale(0)))
    if not found:
        raise CrispsegError(
            f"{model.info.name} has no flow, sampled points, descriptors or refinement to change; give a model with one"
        )
    return found


def ablate(
    model: SegmentationModel,
    dataset: SegmentationDataset,
    names: Sequence[str] | None = None,
    **options: Any,
) -> Iterator[Scored]:
    """Score a model as it is and under each change, one after the other.

    Args:
        model: to score; left in eval mode on the device, and otherwise as it was.
        dataset: with the model's classes.
        names: of the ablations; by default all that `ablations_of` gives.
        options: of `evaluate`.

    Raises:
        CrispsegError: an unknown name; nothing to change; as `evaluate`.
    """
    known = ablations_of(model)
    for name in names or ():
        if name not in known:
            raise CrispsegError(f"no ablation '{name}'{did_you_mean(name, known)}")
    chosen = [known[name] for name in names] if names is not None else list(known.values())
    paths = list(taps(model))
    for ablation in (Ablation("intact", "the model as it is", lambda _: {}), *chosen):
        boundary = BoundaryScores(model.info.num_classes, [DISTANCE])
        with alter(model, ablation.changes(paths)):
            scores = evaluate(model, dataset, boundary=boundary, **options)
        yield Scored(ablation.name, ablation.explanation, scores, boundary.scores())
