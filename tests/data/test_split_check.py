"""The check of a split that finds bad pairs before training, and its report."""

from pathlib import Path

import numpy as np
import pytest
from dataset_trees import Masks

from crispseg.data import check_split, class_weights, softened_weights
from crispseg.data.dataset import FileDataset
from crispseg.data.examination import check_splits
from crispseg.errors import CrispsegError
from crispseg.folders.lookup import IdLookup
from crispseg.folders.meaning import Meaning
from crispseg.folders.report import table_lines
from crispseg.folders.survey import Pair
from crispseg.labels import LabelSet

from .own_folders import ids, make_pair


def pairs_of(root: Path, *names: str) -> list[Pair]:
    return [Pair(name, root / "images" / name, (root / "masks" / name).with_suffix(".png")) for name in names]


def test_report_counts(tmp_path: Path) -> None:
    labels = LabelSet.numbered(4)
    masks = [ids(0, 1), ids(0, 0, 0, 2), np.full((3, 20), 255, np.uint8)]
    for index, mask in enumerate(masks):
        make_pair(tmp_path, str(index), mask)
    report = check_split(FileDataset(pairs_of(tmp_path, "0.png", "1.png", "2.png"), labels, IdLookup(4)), "val")
    assert (report.images, report.ignored, report.smallest, report.largest) == (3, 60, (3, 8), (6, 20))
    assert report.counts.dtype == np.int64
    assert report.counts.tolist() == [24 + 36, 24, 12, 0]
    assert report.absent == ("class 3",)
    frequency = np.array([60 / 96, 24 / 48, 12 / 48])
    np.testing.assert_allclose(class_weights(report), [*(0.5 / frequency), 0], rtol=1e-6)
    text = "\n".join(table_lines(Meaning(labels, IdLookup(4)), [report]))
    assert "3 images, 3x8 to 6x20" in text and "class 0  0           62.50%" in text
    assert "class 3  3           never" in text and "255  ignored  255         38.46%" in text


def test_strokes_are_counted_alone(tmp_path: Path) -> None:
    """With 95 % unlabelled, weights, shares and the lines about them are those of the labelled pixels."""
    labels, lookup = LabelSet.numbered(3), IdLookup(3)
    drawn, whole = np.full((40, 40), 255, np.uint8), np.full((40, 40), 255, np.uint8)
    drawn[4, :] = 0
    drawn[8:9, :10] = 1
    whole[:] = np.arange(40) >= 32
    for index, mask in enumerate([drawn, np.full_like(drawn, 255), whole]):
        make_pair(tmp_path, str(index), mask)
    strokes = FileDataset(pairs_of(tmp_path, "0.png", "1.png"), labels, lookup)
    examined, findings = check_splits({"train": strokes})
    report = examined.reports[0]
    full = check_split(FileDataset(pairs_of(tmp_path, "2.png"), labels, lookup), "val")
    assert report.labelled == [50, 0] and report.void > 0.95
    assert report.shares == full.shares == [0.8, 0.2, 0]
    for weigh in (class_weights, softened_weights):
        np.testing.assert_array_equal(weigh(report), weigh(full))
    text = "\n".join(table_lines(Meaning(labels, lookup), [report, full]))
    assert "train: 1.56% of the pixels are labelled" in text and "val: 100" not in text
    codes = {finding.code: finding.values.get("absent") for finding in findings}
    assert codes == {"all-ignored": None, "class-absent": {"train": ("class 2",)}}


def test_datasets_without_files_are_rgb() -> None:
    dataset = Masks(2, ids(0, 1))
    assert dataset.with_channels(3) is dataset.with_channels(1) is dataset
    with pytest.raises(CrispsegError, match="in_chans is 4, but these data are RGB"):
        dataset.with_channels(4)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((1, 255), "'train' has only class 1 and 255, which means ignore"),
        ((1,), "'train' has only class 1;"),
    ],
)
def test_training_on_one_class_is_refused(values: tuple[int, ...], reason: str) -> None:
    with pytest.raises(CrispsegError, match=reason):
        check_split(Masks(2, ids(*values)), "train")
    assert check_split(Masks(2, ids(*values)), "val").images == 1  # a part may well hold one class


def test_datasets_without_files_are_checked_too() -> None:
    assert check_split(Masks(2, ids(0, 1), ids(1, 255)), "train").counts.tolist() == [24, 48]
    for masks, reason in (
        ([ids(0), ids(0, 7)], r"no class: 7 \(24 pixels\); each is out of range 0 to 1.*in sample 1"),
        ([ids(0, 1), ids(0)[:2]], "is 2x8 but its image is 6x8.*in sample 1"),
        ([], "'val' has no samples"),
    ):
        with pytest.raises(CrispsegError, match=reason):
            check_split(Masks(2, *masks), "val")
