"""Outlines of masks that do not follow the edges of their images: wrong pairs, or masks that are moved or turned.

The gradient of an image on the outlines of its mask, divided by its mean, is about 2 to 11 in sound data. It is about 1
for masks of other images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries

from crispseg.data.copies import natural
from crispseg.data.finding import Finding
from crispseg.doctor.facts import PairScan, readable
from crispseg.doctor.findings import finding
from crispseg.errors import CrispsegError
from crispseg.folders.facts import pack_colors
from crispseg.folders.survey import Pair
from crispseg.io.images import read_image, read_mask
from crispseg.io.parallel import parallel, spread, tried

PAIRS, FEWEST, PIXELS = 40, 8, 4e7  # largest and smallest number of sampled pairs, and largest number of their pixels
SIDE, LEAST = 256, 40  # longest side of a thumbnail, and fewest pixels of its outlines
CLEAR = 1.4  # factor by which an arrangement fits clearly better than all others
MOST, SOME = 0.8, 0.2  # shares of pairs that another arrangement fits better: of all, or of masks that fit otherwise
REACH = 19  # largest shift in thumbnails, in pixels

Map = NDArray[np.bool_]
TURNS: Mapping[str, Callable[[Map], Map]] = {
    "transposed": np.transpose,
    "mirrored left to right": np.fliplr,
    "mirrored top to bottom": np.flipud,
    "turned by 180 degrees": lambda mask: np.rot90(mask, 2),
    "turned by 90 degrees to the left": np.rot90,
    "turned by 90 degrees to the right": lambda mask: np.rot90(mask, 3),
}


class Thumbnail(NamedTuple):
    """Length of the gradient, divided by its mean, and outlines `(H, W)` of a pair that is `step` times smaller."""

    gradient: NDArray[np.float64]
    outlines: Map
    step: int


def outline_findings(facts: Sequence[PairScan]) -> Iterator[Finding]:
    """Yield the finding of masks that fit their images clearly better in another arrangement, in a sample of pairs.

    Masks that follow no edges in any arrangement are not reported.
    """
    known = {
        one.pair.image: (one.pair, image.size)
        for one, image, mask in readable(facts)
        if image.size == mask.size and mask.band is None
    }
    pairs = sorted((pair for pair, _ in known.values() if pair.image.is_file()), key=lambda pair: natural(pair.image))
    limit = PIXELS / float(np.median([float(height * width) for _, (height, width) in known.values()] or [1]))
    chosen = spread(len(pairs), int(np.clip(limit, FEWEST, PAIRS)))
    read = parallel(tried(_thumbnail), [pairs[at] for at in chosen], "Comparing outlines")
    sample = {
        at: one
        for at, one in zip(chosen, read, strict=True)
        if isinstance(one, Thumbnail) and one.outlines.sum() >= LEAST
    }
    if len(sample) < FEWEST:
        return
    views = [*sample.values()]
    outlines = [one.outlines for one in views]
    own, apart = _scores(views, outlines), [len(views) * quarter // 4 for quarter in (1, 2, 3)]
    others = np.mean([_scores(views, outlines[by:] + outlines[:by]) for by in apart], 0)
    turned = {name: _scores(views, [*map(turn, outlines)]) for name, turn in TURNS.items()}
    arranged = {f"only if they are {name}": scores for name, scores in turned.items()}
    down, right = _best_shift(views)
    if max(abs(down), abs(right)) > 2:
        step = int(np.median([one.step for one in views]))
        sides = (down, "down", "up"), (right, "to the right", "to the left")
        way = " and ".join(f"{step * abs(by)} pixels {plus if by > 0 else minus}" for by, plus, minus in sides if by)
        shifts = (down, right), (-down, -right)  # masks that are wider than their objects fit both ways
        shifted, opposite = (_scores(views, [np.roll(one, by, (0, 1)) for one in outlines]) for by in shifts)
        arranged[f"only if they are shifted by about {way}"] = np.where(shifted > CLEAR * opposite, shifted, 0)
    fit = float(np.median(own) / max(np.median(others), 1e-6))
    orders = {}
    for name, partners in _orders(pairs).items():
        files = [pairs[partners[at]].mask for at in sample]
        found = parallel(tried(_outlines), files, "Comparing outlines")
        masks = [np.zeros((0, 0), bool) if isinstance(one, CrispsegError) else one for one in found]
        orders[f"only if they belong to other images, {name}"] = _scores(views, masks)
    for how, scores in (arranged | orders).items():
        part = fit >= CLEAR and how in arranged
        least = max(SOME * len(views), FEWEST / 2) if part else MOST * len(views)
        clear = scores > CLEAR * np.max([own, others, *(one for one in turned.values() if one is not scores)], 0)
        if clear.sum() >= least:
            files = [pairs[at].mask for at, each in zip(sample, clear, strict=True) if each]
            what = f"{len(files)} of {len(views)} sampled masks have outlines that follow the edges of their images"
            gradient = f"gradient {np.median(own[clear]):.1f} times the mean of the image"
            reason = f"{what} {how} ({gradient}; otherwise {np.median(scores[clear]):.1f})"
            yield finding("unfitting-masks", files, reason=reason)
            return


def _orders(pairs: Sequence[Pair]) -> dict[str, list[int]]:
    """Return name → index of the mask of each image, for orders that differ from that of the pairs."""
    count = len(pairs)
    by_name = sorted(range(count), key=lambda at: pairs[at].image.name)
    shown = ", ".join(pairs[at].image.stem for at in by_name[:3])
    orders = {
        f"whose order was {shown}, … when the masks were numbered": sorted(range(count), key=by_name.__getitem__),
        "each to the image after its own": [max(at - 1, 0) for at in range(count)],
        "each to the image before its own": [min(at + 1, count - 1) for at in range(count)],
    }
    return {name: order for name, order in orders.items() if order != [*range(count)]}


def _thumbnail(pair: Pair) -> Thumbnail:
    outlines, picture = _outlines(pair.mask), read_image(pair.image, value_range=(0, 0xFFFF))
    step, (height, width) = -(-max(picture.shape) // SIDE), outlines.shape
    small = cv2.resize(picture[: height * step, : width * step], (width, height), interpolation=cv2.INTER_AREA)
    across_and_along = np.gradient(cv2.blur(small.astype(np.float64), (3, 3)), axis=(0, 1))
    gradient = np.sqrt(np.square(across_and_along).sum((0, 3)))  # (2, H, W, 3) to (H, W)
    return Thumbnail(gradient / max(float(gradient.mean()), 1e-6), outlines, step)


def _outlines(file: Path) -> Map:
    keys = pack_colors(read_mask(file, lossy=True))
    step = -(-max(keys.shape) // SIDE)
    labels = keys[step // 2 :: step, step // 2 :: step][: keys.shape[0] // step, : keys.shape[1] // step]
    return find_boundaries(labels)  # type: ignore[no-any-return]


def _scores(views: Sequence[Thumbnail], outlines: Sequence[Map]) -> NDArray[np.float64]:
    """Return the mean gradient of each image on outlines, 0 for outlines of another size or too few."""
    scores = np.zeros(len(views))
    for index, (one, each) in enumerate(zip(views, outlines, strict=True)):
        if each.shape == one.gradient.shape and each.sum() >= LEAST:
            scores[index] = one.gradient[each].mean()
    return scores


def _best_shift(views: Sequence[Thumbnail]) -> tuple[int, int]:
    """Return the shift of the outlines, down and to the right, with the largest median score."""
    found, near = [], range(-REACH, REACH + 1)
    for view in views:
        product = np.fft.fft2(view.gradient) * np.fft.fft2(view.outlines).conj()
        scores = np.fft.ifft2(product).real / view.outlines.sum()  # of every circular shift
        found.append(scores.take(near, 0, mode="wrap").take(near, 1, mode="wrap"))
    down, right = divmod(int(np.median(found, 0).argmax()), len(near))
    return near[down], near[right]
