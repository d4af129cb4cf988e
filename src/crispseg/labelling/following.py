"""Choice of images to label next, or of regions for strokes, by what a model does not know and by variety."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from scipy.spatial.distance import cdist

from crispseg.errors import CrispsegError
from crispseg.inference import Segmentation, Segmenter
from crispseg.inference.image_files import read_source
from crispseg.inference.segmenter import as_batch
from crispseg.io.progress import progress
from crispseg.models import SegmentationModel

CELLS = 8  # number of cells along the shorter side of an image; uncertainty is averaged in each
REGIONS = 4  # number of regions along the shorter side in which strokes are proposed
DESCRIBED_SIDE = 2048  # largest side in pixels of an image whose features are computed; others are shrunk
UNSURE = 0.1  # share of the cells, the most uncertain ones, that determine the uncertainty of an image


class Candidate(NamedTuple):
    """An image without labels, or a region of an image."""

    path: Path
    name: str
    uncertainty: float  # mean entropy of the most uncertain cells, or of the region, 0 to 1
    distance: float = 0  # distance of its features to those of the nearest one that is labelled or chosen before it
    box: tuple[int, ...] = ()  # left, top, width and height of the region


def cell_entropies(probabilities: NDArray[np.float32], cells: int = CELLS) -> NDArray[np.float32]:
    """Return the mean entropies `(h, w)` of square cells of probabilities `(C, H, W)`; 1 is that of equal classes."""
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-9))).sum(0) / np.log(len(probabilities))
    height, width = entropy.shape
    side = max(1, min(height, width) // cells)
    return np.asarray(cv2.resize(entropy, (width // side, height // side), interpolation=cv2.INTER_AREA))


def uncertainty(entropies: NDArray[np.float32]) -> float:
    """Return the mean of the largest `UNSURE` of the entropies of cells `(h, w)`.

    A mean over the whole image would prefer images that are a little uncertain everywhere, such as along boundaries.
    """
    count = max(1, round(UNSURE * entropies.size))
    return float(np.partition(entropies.ravel(), -count)[-count:].mean())


def regions(path: Path, name: str, probabilities: NDArray[np.float32]) -> list[Candidate]:
    """Return all regions of an image, row by row."""
    entropies, (height, width) = cell_entropies(probabilities, REGIONS), probabilities.shape[1:]
    rows, columns = entropies.shape
    size = width // columns, height // rows
    candidates = []
    for (row, column), entropy in np.ndenumerate(entropies):
        box = column * width // columns, row * height // rows, *size
        candidates.append(Candidate(path, name, float(entropy), box=box))
    return candidates


def known_probabilities(result: Segmentation) -> NDArray[np.float32]:
    """Return probabilities `(C, H, W)`; for an image in tiles, the largest one and the sum of the others."""
    try:
        return result.probabilities()
    except CrispsegError:
        largest = result.confidence() / np.float32(255)
        return np.stack([largest, 1 - largest])


@torch.inference_mode()
def descriptors(model: SegmentationModel, image: NDArray[np.uint8], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Return the mean features `(cells, C)` of the backbone's last level in a grid of cells of an image `(H, W, C)`."""
    batch = as_batch(image, model.info, next(model.parameters()).device)
    batch = F.interpolate(batch, scale_factor=min(1.0, DESCRIBED_SIDE / max(image.shape[:2])), mode="area")
    feature = F.adaptive_avg_pool2d(model.backbone(model.padded(batch))[-1].float(), grid)
    return np.asarray(feature[0].flatten(1).T.cpu())


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
    strokes: bool = False,
) -> list[Candidate]:
    """Return the images, or the regions for `strokes`, to label next, the most useful first.

    Errors are those of `read_source`.

    Args:
        segmenter: segmenter of the model.
        names: images without labels, and their names.
        labelled: images with labels; the choice is unlike them.
        count: number of images or regions to choose.
    """
    model = model.to(segmenter.device)

    def read(path: Path) -> NDArray[np.uint8]:
        return read_source(path, model.info.in_chans, segmenter.value_range)[0]

    candidates, features = list[Candidate](), list[NDArray[np.float32]]()
    for path in progress(names, "Reading images", len(names), console):
        image = read(path)
        probabilities = known_probabilities(segmenter(image))
        rows, columns = cell_entropies(probabilities, REGIONS).shape if strokes else (1, 1)
        whole = Candidate(path, names[path], uncertainty(cell_entropies(probabilities)))
        candidates += regions(path, names[path], probabilities) if strokes else [whole]
        features.append(descriptors(model, image, (rows, columns)))
    seen = progress([*labelled], "Reading labelled images", console=console)
    every = np.concatenate([*features, *(descriptors(model, read(path), (1, 1)) for path in seen)])
    own, known = np.split(every, [len(candidates)])
    chosen = varied([candidate.uncertainty for candidate in candidates], own, known, count)
    return [candidates[index]._replace(distance=distance) for index, distance in chosen]
