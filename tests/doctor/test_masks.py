"""Masks that all have one mistake, and what values are measured by."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import save
from PIL import Image

from crispseg.cli.main import main
from crispseg.data.mask_statistics import blended_steps, count_values
from crispseg.doctor import Severity
from crispseg.doctor.report import EXIT_STATUS

from .trees import COLORS, SIZE, Tree, ids, named, only, photo

WHOLE = {
    "black-and-white-masks": (lambda seed: (255 * (ids(seed) > 1)).astype(np.uint8), "data.ignore '[255]'"),
    "rgb-masks": (lambda seed: COLORS[ids(seed)], "'[[0,0,0],[60,0,90],[128,0,0],[200,10,30]]'"),
    "one-based-ids": (lambda seed: ids(seed) + 1, "from 0"),
    "sparse-ids": (lambda seed: np.array([0, 38, 75, 113], np.uint8)[ids(seed)], "'[[0,0,0],[38,38,38],"),
}
SEVERITIES = {"black-and-white-masks": Severity.INFORMATION, "one-based-ids": Severity.WARNING}
"""Of what can be trained on."""


@pytest.mark.parametrize("code", WHOLE)
def test_masks_that_all_have_one_mistake(code: str, tmp_path: Path) -> None:
    mask, remedy = WHOLE[code]
    tree = Tree(tmp_path / "data", mask)
    diagnosis = tree.examine()
    (found,) = diagnosis.findings
    severity = SEVERITIES.get(code, Severity.ERROR)
    assert found.code == code and found.severity is severity and found.count == 12 and remedy in found.remedy
    out = tmp_path / "out"
    assert main(["doctor", str(tmp_path / "data"), "--fix", str(out)]) == EXIT_STATUS[severity]
    assert main(["doctor", str(out)]) == 0
    for path in (tree.root / "masks").iterdir():
        split = "train" if path.stem.startswith("train") else "val"
        fixed = np.asarray(Image.open(out / "masks" / split / path.name))
        raw = np.asarray(Image.open(path)).reshape(*SIZE, -1)[..., 0]
        # in the order of the values, or of the red channel
        firsts = [int(fixed[raw == value][0]) for value in np.unique(raw)]
        assert firsts == sorted(set(firsts)) and np.unique(fixed).tolist() == firsts
        assert firsts[0] == 0 and firsts[-1] == (1 if code == "black-and-white-masks" else 3)


def test_masks_of_16_bits_that_hold_no_class_ids(tmp_path: Path) -> None:
    """Numbers of instances, more ids than there can be classes, and depths."""
    cases: dict[str, Any] = {
        "instances": (lambda seed: 1000 * ids(seed).astype(np.uint16) + 7, "sparse-ids", "7, 1007, 2007, 3007"),
        "many": (lambda _: np.arange(64 * 96).reshape(SIZE).astype(np.uint16) % 300, "object-numbers", "up to 299"),
        "objects": (
            lambda seed: np.resize(np.arange(30 + seed % 5), SIZE).astype(np.uint16),
            "object-numbers",
            "they number objects, not classes",
        ),
        "depth": (
            lambda seed: np.random.default_rng(seed).integers(0, 60000, SIZE).astype(np.uint16),
            "value-out-of-range",
            "out of range 0 to 254",
        ),
    }
    for name, (mask, code, phrase) in cases.items():
        found = only(Tree(tmp_path / name, mask, 3, 2).examine(), code)
        assert found.severity is Severity.ERROR and found.count == 5 and phrase in found.message
        assert "class ids" in found.remedy
    out = tmp_path / "out"
    assert main(["doctor", str(tmp_path / "instances"), "--fix", str(out)]) == 3
    assert main(["doctor", str(out)]) == 0
    np.testing.assert_array_equal(
        np.asarray(Image.open(out / "masks/train/train1.png")),
        np.asarray(Image.open(tmp_path / "instances/masks/train1.png")) // 1000,
    )


def test_grey_pictures_of_ids_keep_the_ignored_values(tmp_path: Path) -> None:
    tree = Tree(tmp_path, lambda seed: np.array([0, 60, 120, 200], np.uint8)[ids(seed)])
    diagnosis = tree.examine(ignore=(200,))
    assert set(named(diagnosis)) == {"sparse-ids"}
    assert diagnosis.reports[0].ignored == 8 * 64 * 96 // 4 and len(diagnosis.reports[0].labels) == 3


def test_one_based_ids_where_classes_are_declared(tmp_path: Path) -> None:
    found = only(Tree(tmp_path / "all", lambda seed: ids(seed) + 1).examine(num_classes=4), "one-based-ids")
    assert "4 is out of range 0 to 3" in found.message
    tree = Tree(tmp_path / "one")
    tree.add("from_one", mask=ids(4) + 1)
    assert named(tree.examine(num_classes=4)) == {"one-based-ids": {"from_one"}}


def test_colours_that_the_palette_lacks(tmp_path: Path) -> None:
    tree = Tree(tmp_path, lambda seed: COLORS[ids(seed)])
    palette = [tuple(color) for color in COLORS.tolist()]
    found = only(tree.examine(palette=palette[:3]), "unknown-color")
    assert found.count == 12 and "[200, 10, 30]" in found.message
    assert tree.examine(palette=palette).findings == ()


@pytest.mark.parametrize(
    ("options", "code", "remedy"),
    [
        ({"num_classes": 3}, "black-and-white-masks", "data.palette"),
        ({"num_classes": 2, "ignore": (255,)}, "one-class-only", "white a class"),
    ],
)
def test_black_and_white_masks_that_may_mean_something_else(
    options: dict[str, Any], code: str, remedy: str, tmp_path: Path
) -> None:
    mask, _ = WHOLE["black-and-white-masks"]
    found = only(Tree(tmp_path, mask).examine(**options), code)
    assert found.severity is Severity.ERROR and remedy in found.remedy


def test_antialiased_black_and_white_masks(tmp_path: Path) -> None:
    def soft(seed: int) -> Image.Image:
        sharp = Image.fromarray(np.where(ids(seed, (256, 384)) > 1, 255, 0).astype(np.uint8))
        return sharp.rotate(7, Image.Resampling.BILINEAR)

    tree = Tree(tmp_path, soft, 3, 2)
    for path in (tmp_path / "images").iterdir():
        save(path, photo(hash(path.name) % 1000, (256, 384)))
    codes = set(named(tree.examine()))
    assert {"black-and-white-masks", "interpolated-edges"} <= codes and "sparse-ids" not in codes


# Measures -----------------------------------------------------------------------------------------------------------


def test_interpolation_is_told_from_thin_classes() -> None:
    coarse = Image.fromarray(4 * (ids(1, (32, 48)) % 2))
    for filter in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.BOX, Image.Resampling.LANCZOS):
        for size in ((96, 64), (110, 75)):
            soft = np.asarray(coarse.resize(size, filter)).astype(np.int32)
            assert (blended_steps(soft) > 0.5) == (filter is not Image.Resampling.BOX)
    sharp = np.asarray(coarse.resize((200, 130), Image.Resampling.NEAREST)).astype(np.int32)
    assert blended_steps(sharp) == 0
    noise = np.random.default_rng(0).integers(0, 5, (64, 96)).astype(np.int32)
    assert blended_steps(noise) == 0
    assert blended_steps(ids(2).astype(np.int32)) == 0


def test_values_are_counted_exactly() -> None:
    random = np.random.default_rng(0)
    for dtype, top in ((np.uint8, 256), (np.uint16, 700), (np.uint32, 1000)):
        values = random.integers(0, top, (37, 53)).astype(dtype)
        found, counts, distinct = count_values(values)
        expected = Counter(values.ravel().tolist())
        assert dict(zip(found.tolist(), counts.tolist(), strict=True)) == expected and distinct == len(expected)
    many = np.arange(5000, dtype=np.uint32).reshape(50, 100) // 2
    many[:5] = 7
    found, counts, distinct = count_values(many)
    assert len(found) == 1024 and 7 in found and (np.diff(found.astype(int)) > 0).all()
    assert distinct == len(np.unique(many)) and counts[found == 7] == (many == 7).sum()
