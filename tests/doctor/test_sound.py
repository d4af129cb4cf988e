"""Data without faults have no findings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_trees import save
from drawn import drawn

from crispseg.data import CamVid, check_split
from crispseg.doctor import Severity, diagnose, subject_of

from .trees import SIZE, Tree


def test_drawn_images_have_nothing_above_information() -> None:
    source = drawn(train=8, val=4, test=4, height=64, width=96)
    diagnosis = diagnose(subject_of(source))
    assert {one.code for one in diagnosis.findings} <= {"class-absent"}
    report = check_split(source.dataset("train"), "train")
    np.testing.assert_array_equal(diagnosis.reports[0].counts, report.counts)


@pytest.mark.slow
def test_camvid_has_nothing_above_information(shared: Path) -> None:
    source = CamVid(shared / "data/camvid")
    diagnosis = diagnose(subject_of(source))
    assert sum(map(len, diagnosis.subject.splits.values())) == 468
    assert {one.code for one in diagnosis.findings} <= {"copies-in-two-splits"}
    assert diagnosis.severity is Severity.INFORMATION


def test_neither_sound_data_nor_noise_have_findings(tmp_path: Path) -> None:
    assert Tree(tmp_path / "sound").examine().findings == ()
    random = np.random.default_rng(0)
    tree = Tree(tmp_path, lambda _: random.integers(0, 3, SIZE, np.uint8), 3, 2)
    for name in (*tree.split["train"], *tree.split["val"]):
        save(tmp_path / f"images/{name}.png", random.integers(0, 256, (*SIZE, 3), np.uint8))
    assert tree.examine().findings == ()
