"""The figures of AGLN: Li et al., *Attention Guided Global Enhancement and Local Refinement Network*, TIP 2022.

arXiv 2204.04363. Each function makes one figure and returns `(H, W, 3)` RGB. The paper does not say how it turns
features into pictures; ours of the decoder are principal components, where alike is of one colour, and single encoder
channels are heat maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.inspection.common import (
    Picture,
    distinct_names,
    needs,
    outputs_figure,
    predicted,
    same_images,
    shown_classes,
    true,
)
from crispseg.inspection.maps import HEAT, at_image, pca_maps, scaled
from crispseg.inspection.quantities import Inspection
from crispseg.models.agln import SemanticDistribution
from crispseg.visuals import panels

CHANNELS = 8
"""Encoder channels that Fig. 5 shows."""


def figure_1(ours: Inspection, theirs: Inspection | None = None) -> Picture:
    """Fig. 1: image, truth, and the results of both models.

    Raises:
        CrispsegError: no truth; different images or classes.
    """
    return outputs_figure(ours, theirs)


def figure_3(ours: Inspection, theirs: Inspection | None = None) -> Picture:
    """Fig. 3: image, decoder features A, descriptor map M, enhanced features E, results of both models and truth.

    The features are those of the last block of the last step. A and E share their principal components and the scale
    of these, so that their colours compare; M has its own.

    Raises:
        CrispsegError: no distribution module; different images or classes.
    """
    same_images(ours, theirs)
    a, m, e = global_enhancement(ours, last_block(ours))
    models = [theirs, ours] if theirs else [ours]
    row = [ours.image, a, m, e, *(predicted(each) for each in models)]
    titles = ["image", "decoder A", "descriptors M", "enhanced E", *distinct_names(ours, theirs)]
    if ours.truth is not None:
        row.append(true(ours))
        titles.append("truth")
    return panels([row], titles, shown_classes(ours, theirs))


def figure_5(inspection: Inspection, channels: Sequence[int] | None = None) -> Picture:
    """Fig. 5: encoder channels before (B) and after (G) local refinement, at the highest resolution.

    Args:
        inspection: of an AGLN.
        channels: to show; by default `CHANNELS` of them, those that change most and least.

    Raises:
        CrispsegError: no local refinement; a channel that is not there.
    """
    b, g, chosen = refined_channels(inspection, last_block(inspection), channels)
    picture = channel_rows(inspection, b, g)
    return panels(picture, [f"channel {index}" for index in chosen])


def figure_6(ours: Inspection, theirs: Inspection | None = None) -> Picture:
    """Fig. 6: image, truth, and the results of both models (side by side here, one below the other in the paper).

    Raises:
        CrispsegError: no truth; different images or classes.
    """
    return outputs_figure(ours, theirs)


def last_block(inspection: Inspection) -> str:
    """Path of the last semantic distribution module that ran.

    Raises:
        CrispsegError: there is none.
    """
    blocks = inspection.of(SemanticDistribution)
    needs(blocks, inspection, "semantic distribution module")
    return blocks[-1]


def global_enhancement(inspection: Inspection, block: str) -> tuple[Picture, Picture, Picture]:
    """A, M and E of a block as principal components; those of A and E are the same, on one scale."""
    a, m, e = decoder_feature(inspection, block), inspection.tap(block, "M"), inspection.tap(block, "E")
    shown_a, shown_e = pca_maps([_standardised(a), _standardised(e)], inspection)
    return shown_a, pca_maps([m], inspection)[0], shown_e


def decoder_feature(inspection: Inspection, block: str) -> Tensor:
    """A, `(C, h, w)`: what the block is given by the decoder. With one descriptor, A + αM, which Ψ is given."""
    key = "A" if f"{block}.A" in inspection.taps else "A_M"
    return inspection.tap(block, key)


def _standardised(values: Tensor) -> Tensor:
    """Each channel without its mean, and the whole with a standard deviation of 1: two features then share axes."""
    centred = values - values.mean((1, 2), keepdim=True)
    return centred / centred.std().clamp(min=1e-12)


def refined_channels(
    inspection: Inspection, block: str, channels: Sequence[int] | None = None
) -> tuple[Tensor, Tensor, list[int]]:
    """B and G of a block at some channels, `(k, h, w)` each, and which these are; see `figure_5`.

    Raises:
        CrispsegError: no local refinement; a channel that is not there.
    """
    holder = block.rpartition(".")[0]
    needs(f"{holder}.lrm.B" in inspection.taps, inspection, "local refinement module")
    b, g = (inspection.taps[f"{holder}.lrm.{name}"] for name in ("B", "G"))
    if channels is None:
        order = torch.argsort(_alike(b, g), stable=True)
        half = min(CHANNELS // 2, len(order) // 2)
        chosen = sorted({*order[:half].tolist(), *order[len(order) - half :].tolist()})
    else:
        chosen = list(channels)
        if any(not 0 <= index < len(b) for index in chosen):
            needs(False, inspection, f"channel {max(chosen)} (they are 0 to {len(b) - 1})")
    return b[chosen], g[chosen], chosen


def _alike(b: Tensor, g: Tensor) -> Tensor:
    """Correlation of each channel before and after, `(C,)`; 0 for a channel without structure."""
    before, after = (each.flatten(1) - each.flatten(1).mean(1, keepdim=True) for each in (b, g))
    return F.cosine_similarity(before, after, dim=1)


def channel_rows(inspection: Inspection, b: Tensor, g: Tensor) -> list[list[Picture]]:
    """Heat maps of channels, `b` above `g`; each on its own scale."""
    return [[scaled(each, colors=HEAT) for each in np.asarray(at_image(maps, inspection))] for maps in (b, g)]
