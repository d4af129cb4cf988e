"""Training and the doctor give generated masks one meaning, or refuse them both."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crispseg.data import Folder, check_split
from crispseg.data.folder import settle
from crispseg.doctor import Severity, diagnose, subject_of
from crispseg.errors import CrispsegError

PALETTES: list[Any] = [None, [(0, 0, 0), (255, 255, 255)], [(0, 0, 0), (128, 64, 128), (0, 128, 0)]]
VALUES = st.lists(st.sampled_from([0, 0, 1, 2, 3, 7, 128, 254, 255, 255]), min_size=1, max_size=4)
MASKS = st.tuples(
    VALUES, st.sampled_from(["plain"] * 4 + ["soft", "strays", "jpeg", "colours", "off", "deep"]), st.integers(0, 99)
)


def draw(values: list[int], kind: str, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    mask = cv2.resize(random.choice(np.array(values, np.uint8), (4, 5)), (40, 32), interpolation=cv2.INTER_NEAREST)
    if kind == "soft":
        mask = cv2.GaussianBlur(mask, (0, 0), 1)
    elif kind == "strays":
        mask[3, random.integers(0, 40, 2)] = random.integers(0, 256, 2)
    elif kind == "deep":
        return mask.astype(np.uint16) * 257
    elif kind in ("colours", "off"):
        colors = np.array(PALETTES[2], np.uint8)[mask % 3]
        return colors + np.uint8(kind == "off") * random.integers(0, 3, 3, np.uint8)
    return mask


@pytest.mark.parametrize("palette", PALETTES, ids=["undeclared", "black and white", "colours"])
@settings(max_examples=60)
@given(
    masks=st.lists(MASKS, min_size=2, max_size=5),
    many=st.sampled_from([1, 60]),
    count=st.sampled_from([None, None, 2, 3]),
)
def test_training_and_doctor_agree(palette: Any, masks: list[Any], many: int, count: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "images").mkdir()
        (root / "masks").mkdir()
        kinds = [*[masks[0]] * many, *masks]  # most say the same, or hardly
        for index, (values, kind, seed) in enumerate(kinds):
            Image.fromarray(np.full((32, 40, 3), index, np.uint8)).save(root / f"images/{index:03}.png")
            mask = Image.fromarray(draw(values, kind, seed))
            mask.save(root / f"masks/{index:03}.{'jpg' if kind == 'jpeg' else 'png'}")
        source = Folder(root / "images", root / "masks", palette=palette, num_classes=None if palette else count)
        diagnosis = diagnose(subject_of(source), workers=1)
        try:
            trained, _ = settle(source)
            reports = {split: check_split(trained.dataset(split), split) for split in trained.splits()}
        except CrispsegError:
            assert diagnosis.severity is Severity.ERROR
            return
        assert diagnosis.severity < Severity.ERROR and diagnosis.reading
        assert diagnosis.reading.labels == trained.label_set() == source.label_set()
        for report in diagnosis.reports:
            assert report.counts.tolist() == reports[report.split].counts.tolist()
            assert report.ignored == reports[report.split].ignored
