"""Choice of the images to label next, by what a model does not know and by variety."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy.spatial.distance import cdist

from crispseg.inference import Segmenter
from crispseg.inference.image_files import read_source
from crispseg.inference.segmenter import as_batch
from crispseg.io.progress import progress
from crispseg.models import SegmentationModel

CELLS = 8  # number of cells along the shorter side of an image; uncertainty is averaged in each
UNSURE = 0.1  # share of the cells, the most uncertain ones, that determine the uncertainty of an image


class Candidate(NamedTuple):
    """An image without labels."""

    path: Path
    name: str
    uncertainty: float  # mean entropy of the most uncertain cells, 0 to 1
    distance: float  # distance of its features to those of the nearest image that is labelled or chosen before it


def cell_entropies(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean entropies `(h, w)` of square cells of probabilities `(C, H, W)`; 1 is that of equal classes."""
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-9))).sum(0) / np.log(len(probabilities))
    height, width = entropy.shape
    side = max(1, min(height, width) // CELLS)
    return np.asarray(cv2.resize(entropy, (width // side, height // side), interpolation=cv2.INTER_AREA))


def uncertainty(entropies: NDArray[np.float32]) -> float:
    """Return the mean of the largest `UNSURE` of the entropies of cells `(h, w)`.

    A mean over the whole image would prefer images that are a little uncertain everywhere, such as along boundaries.
    """
    count = max(1, round(UNSURE * entropies.size))
    return float(np.partition(entropies.ravel(), -count)[-count:].mean())


@torch.inference_mode()
def descriptor(model: SegmentationModel, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean features `(C,)` of the backbone's last level for an image `(H, W, C)`."""
    batch = as_batch(image, model.info, next(model.parameters()).device)
    return np.asarray(model.backbone(model.padded(batch))[-1].mean((0, 2, 3)).float().cpu())


def varied(
    worth: Sequence[float], features: NDArray[np.float32], known: NDArray[np.float32], count: int
) -> Iterator[tuple[int, float]]:
    """Yield the indices of chosen images, and their distances to the nearest image that is known or chosen.

    Each choice has the largest product of worth and distance, as in k-means++ but without chance. Features `(n, C)` and
    those of known images `(m, C)` are compared in units of their standard deviation.
    """
    every = np.concatenate([features, known])
    spread = np.maximum(every.std(0), 1e-6)
    own = features / spread
    near = cdist(own, known / spread).min(axis=1, initial=np.inf)
    values, chosen = np.array(worth), np.zeros(len(own), bool)
    for _ in range(min(count, len(own))):
        reach = np.where(np.isinf(near), 1.0, near)
        index = int(np.argmax(np.where(chosen, -1, values * reach)))
        yield index, float(near[index])
        chosen[index] = True
        near = np.minimum(near, np.linalg.norm(own - own[index], axis=1))


def images_to_label(
    model: SegmentationModel,
    segmenter: Segmenter,
    names: Mapping[Path, str],
    labelled: Iterable[Path] = (),
    count: int = 20,
    console: Console | None = None,
) -> list[Candidate]:
    """Return the images to label next, the most useful first; errors are those of `read_source`.

    Args:
        segmenter: segmenter of the model.
        names: images without labels, and their names.
        labelled: images with labels; the choice is unlike them.
        count: number of images to choose.
    """
    model = model.to(segmenter.device)

    def read(path: Path) -> NDArray[np.uint8]:
        return read_source(path, model.info.in_chans, segmenter.value_range)[0]

    worth, features = [], []
    for path in progress(names, "Reading images", len(names), console):
        image = read(path)
        worth.append(uncertainty(cell_entropies(segmenter(image).probabilities())))
        features.append(descriptor(model, image))
    seen = progress([*labelled], "Reading labelled images", console=console)
    known = np.array([descriptor(model, read(path)) for path in seen], np.float32).reshape(-1, len(features[0]))
    paths = [*names]
    return [
        Candidate(paths[index], names[paths[index]], worth[index], distance)
        for index, distance in varied(worth, np.stack(features), known, count)
    ]
