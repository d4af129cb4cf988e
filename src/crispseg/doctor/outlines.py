"""Outlines of masks that do not follow the edges of their images: wrong pairs, or masks that are moved or turned.

The gradient of an image on the outlines of its mask, divided by its mean, is about 2 to 11 in sound data. It is about 1
for masks of other images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crispseg.data.dataset import Pair
from crispseg.data.finding import Finding
from crispseg.data.loading import parallel, spread, tried
from crispseg.data.mask_lookup import pack_colors
from crispseg.data.pairing import plain
from crispseg.doctor.facts import PairFacts, readable
from crispseg.doctor.findings import finding, natural
from crispseg.errors import CrispsegError
from crispseg.io.images import read_image, read_mask

PAIRS, FEWEST, PIXELS = 40, 8, 4e7
"""Maximum and minimum number of sampled pairs, and the number of pixels to which the sample is limited."""
SIDE, LEAST = 256, 40
"""Longest side of a thumbnail, and fewest pixels of its outlines."""
CLEAR = 1.4
"""Factor by which an arrangement fits better than all others."""
MOST, SOME = 0.8, 0.2
"""Shares of the pairs in which another arrangement fits better: nearly all, or a part of otherwise fitting masks."""
REACH = (16, 4), (3, 1)
"""Largest shift and step of the search in thumbnails, and of its refinement."""

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


def outline_findings(facts: Sequence[PairFacts]) -> Finding:
    """Return the finding of masks that fit their images clearly better in another arrangement, in a sample of pairs.

    Masks that follow no edges in any arrangement are not reported, unless they pair by their numbers.
    """
    known = {one.pair.image: (one.pair, image.size) for one, image, mask in readable(facts) if image.size == mask.size}
    pairs = sorted((pair for pair, _ in known.values() if pair.image.is_file()), key=natural)
    limit = PIXELS / float(np.median([float(height * width) for _, (height, width) in known.values()] or [1]))
    chosen = spread(len(pairs), int(np.clip(limit, FEWEST, PAIRS)))
    read = parallel(tried(_thumbnail), [pairs[at] for at in chosen], "Comparing outlines")
    sample = {
        at: one
        for at, one in zip(chosen, read, strict=True)
        if isinstance(one, Thumbnail) and one.outlines.sum() >= LEAST
    }
    if len(sample) < FEWEST:
        return finding("unfitting-masks", reason="")
    views = [*sample.values()]
    apart = len(views) // 4, len(views) // 2, 3 * len(views) // 4
    own = _scores(views, [one.outlines for one in views])
    others = np.mean([_scores(views, [one.outlines for one in views[k:] + views[:k]]) for k in apart], 0)
    turned = {name: _scores(views, [turn(one.outlines) for one in views]) for name, turn in TURNS.items()}
    down, right = _best_shift(views[:: len(views) // FEWEST])
    shifted = _scores(views, [np.roll(one.outlines, (down, right), (0, 1)) for one in views])
    step = int(np.median([one.step for one in views]))
    sides = (down, "down", "up"), (right, "to the right", "to the left")
    way = " and ".join(f"{step * abs(by)} pixels {plus if by > 0 else minus}" for by, plus, minus in sides if by)
    arranged = turned | ({f"shifted by about {way}": shifted} if max(abs(down), abs(right)) > 2 else {})
    most, some = MOST * len(views), max(SOME * len(views), FEWEST / 2)
    least = some if np.median(own) >= CLEAR * np.median(others) else most
    for name, scores in arranged.items():
        clear = scores >= CLEAR * np.max([own, others, *(one for key, one in turned.items() if key != name)], 0)
        if clear.sum() >= least:
            files = [pairs[at].mask for at, each in zip(sample, clear, strict=True) if each]
            return _unfitting(f"only if they are {name}", files, len(views), own[clear], scores[clear])
    if np.median(own) >= (1 + CLEAR) / 2 * np.median(others):
        return finding("unfitting-masks", reason="")
    for name, partners in _orders(pairs).items():
        masks = parallel(tried(_outlines), [pairs[partners[at]].mask for at in sample], "Comparing outlines")
        scores = _scores(views, [np.zeros((0, 0), bool) if isinstance(one, CrispsegError) else one for one in masks])
        clear = scores >= CLEAR * np.maximum(own, others)
        if clear.sum() >= most:
            files = [pairs[at].mask for at, each in zip(sample, clear, strict=True) if each]
            how = f"only if they belong to other images, {name}"
            return _unfitting(how, files, len(views), own[clear], scores[clear])
    unpadded = sorted(pairs, key=lambda pair: pair.image.name) != pairs
    if not unpadded or any(plain(pair.image.stem) == plain(pair.mask.stem) for pair in pairs):
        return finding("unfitting-masks", reason="")
    how = f"no better than those of other masks, and pair by number, such as {pairs[0].image.name} and "
    return _unfitting(how + pairs[0].mask.name, [pair.mask for pair in pairs], len(views), own, others)


def _unfitting(
    how: str, files: Sequence[Path], sampled: int, own: NDArray[np.float64], then: NDArray[np.float64]
) -> Finding:
    what = f"{min(len(files), sampled)} of {sampled} sampled masks have outlines that follow the edges of their images"
    gradient = f"gradient {np.median(own):.1f} times the mean of the image; otherwise {np.median(then):.1f}"
    return finding("unfitting-masks", files, reason=f"{what} {how} ({gradient})")


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
    outlines, picture = _outlines(pair.mask), read_image(pair.image)
    step, (height, width) = -(-max(picture.shape) // SIDE), outlines.shape
    small = picture[: height * step, : width * step].reshape(height, step, width, step, 3).mean((1, 3), np.float32)
    padded = np.pad(small, ((1, 1), (1, 1), (0, 0)), "edge")
    smooth = np.sum([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], 0)
    across, along = smooth[1:-1, 2:] - smooth[1:-1, :-2], smooth[2:, 1:-1] - smooth[:-2, 1:-1]
    gradient = np.zeros((height, width))
    gradient[1:-1, 1:-1] = np.sqrt((across**2 + along**2).sum(-1))
    return Thumbnail(gradient / max(float(gradient.mean()), 1e-6), outlines, step)


def _outlines(file: Path) -> Map:
    mask = read_mask(file, lossy=True)
    keys = pack_colors(mask) if mask.ndim == 3 else mask
    step = -(-max(keys.shape) // SIDE)
    labels = keys[step // 2 :: step, step // 2 :: step][: keys.shape[0] // step, : keys.shape[1] // step]
    outlines, inner = np.zeros(labels.shape, bool), labels[1:-1, 1:-1]
    for side in (labels[:-2, 1:-1], labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:]):
        outlines[1:-1, 1:-1] |= inner != side
    return outlines


def _scores(views: Sequence[Thumbnail], outlines: Sequence[Map]) -> NDArray[np.float64]:
    """Return the mean gradient of each image on outlines, 0 for outlines of another size or too few."""
    return np.array(
        [
            one.gradient[each].mean() if each.shape == one.gradient.shape and each.sum() >= LEAST else 0.0
            for one, each in zip(views, outlines, strict=True)
        ]
    )


def _best_shift(views: Sequence[Thumbnail]) -> tuple[int, int]:
    """Return the shift of the outlines, down and to the right, with the largest median score."""
    best = 0, 0
    for reach, step in REACH:
        steps = range(-reach, reach + 1, step)
        shifts = [(best[0] + down, best[1] + right) for down in steps for right in steps]
        moved = {one: [np.roll(view.outlines, one, (0, 1)) for view in views] for one in shifts}
        best = max(shifts, key=lambda one: float(np.median(_scores(views, moved[one]))))
    return best
