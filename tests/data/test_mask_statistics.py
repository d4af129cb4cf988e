"""What masks are measured by."""

from __future__ import annotations

from collections import Counter

import numpy as np
from PIL import Image

from crispseg.data.mask_lookup import blended_steps, count_values


def test_interpolation_is_told_from_thin_classes() -> None:
    random = np.random.default_rng(1)
    coarse = Image.fromarray(np.kron(4 * random.integers(0, 2, (6, 8), np.uint8), np.ones((6, 6), np.uint8)))
    for kind in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.BOX, Image.Resampling.LANCZOS):
        for size in ((96, 64), (110, 75)):
            soft = np.asarray(coarse.resize(size, kind))
            assert (blended_steps(soft) > 0.5) == (kind is not Image.Resampling.BOX)
    assert blended_steps(np.asarray(coarse.resize((200, 130), Image.Resampling.NEAREST))) == 0
    assert blended_steps(random.integers(0, 5, (64, 96), np.uint8)) == 0  # noise


def test_values_are_counted_exactly() -> None:
    random = np.random.default_rng(0)
    for dtype, top in ((np.uint8, 256), (np.uint16, 700), (np.uint32, 1000)):
        values = random.integers(0, top, (37, 53)).astype(dtype)
        found, counts, distinct = count_values(values)
        expected = Counter(values.ravel().tolist())
        assert dict(zip(found.tolist(), counts.sum((1, 2)).tolist(), strict=True)) == expected
        lower_left = Counter(values[19:, :27].ravel().tolist())
        assert distinct == len(expected) and counts[:, 1, 0].tolist() == [lower_left[each] for each in found.tolist()]
    many = np.arange(5000, dtype=np.uint32).reshape(50, 100) // 2
    many[:5] = 7
    found, counts, distinct = count_values(many)
    assert len(found) == 1024 and 7 in found and (np.diff(found.astype(int)) > 0).all()
    assert distinct == len(np.unique(many)) and counts[found == 7].sum() == (many == 7).sum()
