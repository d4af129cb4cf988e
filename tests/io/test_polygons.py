"""Polygons share their borders, stay within a tolerance, and keep holes, corners and single pixels."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.measure import label

from crispseg.data import Aerial, Folder
from crispseg.evaluation.scores import SegmentationScores
from crispseg.io import polygons as module
from crispseg.io.polygons import Coverage, coverage
from crispseg.labels import IGNORE

features = pytest.importorskip("rasterio.features")


def edges(labels: NDArray[np.uint8]) -> shapely.Geometry:
    """The sides of pixels between two labels, and those of the image."""
    padded = np.pad(labels.astype(np.int64), 1, constant_values=-1)
    y, x = np.nonzero(padded[1:] != padded[:-1])
    level = np.stack([(x - 1, y), (x, y)]).transpose(2, 0, 1)
    y, x = np.nonzero(padded[:, 1:] != padded[:, :-1])
    upright = np.stack([(x, y - 1), (x, y)]).transpose(2, 0, 1)
    return shapely.union_all(shapely.linestrings(np.concatenate([level, upright])))


def check(labels: NDArray[np.uint8], tolerance: float, square: bool = False) -> Coverage:
    covered = coverage(labels, tolerance, square)
    assert shapely.coverage_is_valid(covered.polygons) and shapely.is_valid(covered.polygons).all()
    assert shapely.area(covered.polygons).sum() == pytest.approx(labels.size)
    parts = label(labels.astype(np.int64) + 1, connectivity=1)
    whole = sorted(labels[parts == number][0] for number in range(1, parts.max() + 1))
    assert sorted(covered.values.tolist()) == whole
    assert covered.distance <= tolerance and covered.points[1] <= covered.points[0]
    lines = shapely.union_all(shapely.boundary(covered.polygons))
    farthest = shapely.hausdorff_distance(shapely.segmentize(lines, 0.2), edges(labels))
    assert farthest <= tolerance + 1e-6
    if tolerance == 0:
        pairs = zip(covered.polygons, covered.values, strict=True)
        np.testing.assert_array_equal(features.rasterize(pairs, labels.shape, dtype=np.uint8), labels)
    return covered


CORNERS = np.array([[0, 1, 0, 0], [1, 0, 0, 2], [0, 0, 2, 0]], np.uint8)
RINGS = np.pad(np.pad(np.pad([[1]], 1), 1, constant_values=2), 1).astype(np.uint8)
LOOP = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 255]], np.uint8)
labels_16 = stn.arrays(np.uint8, stn.array_shapes(min_dims=2, max_dims=2, max_side=16), elements=st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(
    labels=labels_16, tolerance=st.sampled_from([0, 0.5, 1.5, 4, 1e9]), square=st.booleans(), factor=st.integers(1, 3)
)
@example(labels=CORNERS, tolerance=1.5, square=False, factor=1)
@example(labels=RINGS, tolerance=1.5, square=True, factor=1)
@example(labels=LOOP, tolerance=1.5, square=False, factor=2)
@example(labels=np.zeros((1, 1), np.uint8), tolerance=4, square=True, factor=1)
def test_any_labels_are_covered(labels: NDArray[np.uint8], tolerance: float, square: bool, factor: int) -> None:
    check(labels.repeat(factor, 0).repeat(factor, 1), tolerance, square)


def blobs(side: int, width: float) -> NDArray[np.uint8]:
    random = np.random.default_rng(0)
    fields = [gaussian_filter(random.standard_normal((side, side), np.float32), width) for _ in range(4)]
    return np.argmax(fields, axis=0).astype(np.uint8)


@pytest.mark.slow
def test_strips_leave_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = blobs(150, 5)
    whole = check(labels, 1.5)
    assert whole.points[1] < 0.35 * whole.points[0]
    monkeypatch.setattr(module, "STRIP", 7)
    parts = coverage(labels, 1.5)
    assert shapely.equals(shapely.normalize(parts.polygons), shapely.normalize(whole.polygons)).all()


@pytest.mark.slow
def test_a_large_map_is_covered_exactly() -> None:
    labels = blobs(5000, 20)
    covered = coverage(labels, 1.5)
    assert shapely.coverage_is_valid(covered.polygons)
    assert shapely.area(covered.polygons).sum() == labels.size and covered.distance <= 1.5
    assert len(covered.polygons) == label(labels.astype(np.int64) + 1, connectivity=1).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aerial", "leaf"])
def test_val_masks_stay_as_they_are_in_few_points(name: str, shared: Path) -> None:
    root = shared / "data" / name
    val = (Aerial(root) if name == "aerial" else Folder(root=root)).dataset("val")
    scores, points = SegmentationScores(len(val.labels)), np.zeros(2)
    for labels in map(val.read_labels, range(0, len(val), len(val) // 18)):
        covered = coverage(labels, 1.5)
        assert shapely.coverage_is_valid(covered.polygons) and covered.distance <= 1.5
        assert shapely.area(covered.polygons).sum() == labels.size
        drawn = features.rasterize(zip(covered.polygons, covered.values, strict=True), labels.shape, dtype=np.uint8)
        scores.update(np.where(drawn == IGNORE, labels, drawn)[None], labels[None])
        points += covered.points
    iou = scores.scores().iou
    assert points[1] <= 0.35 * points[0] and iou.mean() >= 97 and iou.min() >= 94


@pytest.mark.parametrize("angle", [0, 10, 33, 45])
def test_buildings_have_right_angles(angle: float) -> None:
    shape = shapely.union(shapely.box(25, 30, 75, 60), shapely.box(25, 60, 50, 80))
    rows, columns = np.indices((100, 100)) + 0.5
    building = shapely.contains_xy(shapely.affinity.rotate(shape, angle), columns, rows).astype(np.uint8)
    covered = check(building, 1.5, square=True)
    points = shapely.get_coordinates(covered.polygons[covered.values == 1][0]) @ (1, 1j)
    steps = np.diff(points)
    turns = np.angle(np.roll(steps, -1) / steps)
    assert len(points) <= 8 and (np.abs(np.sin(2 * turns)) < 1e-4).sum() >= 4  # a ring may begin within a side
