"""Checks of single faults; a new check takes a function and a row."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from commands import Capture
from PIL import Image

from crispseg.cli.main import main
from crispseg.folders.finding import Severity
from crispseg.folders.wording import line

from .trees import SIZE, Tree, ids


def geotiffs(root: Path, mask: Callable[[int], np.ndarray], nodata: str) -> Tree:
    """All masks as TIFFs; the metadata of the first 8 mark a value as no data."""
    tree = Tree(root, mask)
    for path in sorted((tree.root / "masks").iterdir()):
        tag = [(42113, "s", 0, nodata, True)] if path.stem.startswith("train") else []
        tifffile.imwrite(path.with_suffix(".tif"), np.asarray(Image.open(path)), extratags=tag)
        path.unlink()
    return tree


def test_a_value_without_data_is_a_class(tmp_path: Path) -> None:
    tree = geotiffs(tmp_path, ids, "0")
    finding = tree.findings()["nodata-class"]
    assert finding.count == 8 and "class 0, class 0; give data.drop '[class 0]'" in line(finding)
    for options in ({"drop": ["class 0"]}, {"ignore": (0,)}):
        assert "nodata-class" not in tree.findings(**options)


@pytest.mark.parametrize("nodata", ["255", "nan", "none", "7"])
def test_other_values_without_data_are_not_reported(nodata: str, tmp_path: Path) -> None:
    assert "nodata-class" not in geotiffs(tmp_path, ids, nodata).findings()


@pytest.mark.parametrize("ignore", [(0,), ((0, 0, 0),)])
def test_an_ignored_colour_of_the_palette_is_refused(ignore: Any, tmp_path: Path, refuses: Any) -> None:
    tree = Tree(tmp_path)
    palette = [(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)]
    with refuses("data.palette and data.ignore both have the colour [0, 0, 0]", "data.drop"):
        tree.source(palette=palette, ignore=ignore).label_set()


def test_16_bits_near_no_colour_of_a_palette(tmp_path: Path) -> None:
    """More values than facts list, so that the file is read again."""
    tree = Tree(tmp_path, lambda seed: np.array([(0, 0, 0), (255, 0, 0)], np.uint8)[ids(seed, classes=2)])
    deep = np.arange(math.prod(SIZE), dtype=np.uint16).reshape(SIZE) * 9
    Image.fromarray(deep).save(min((tree.root / "masks").iterdir()))
    finding = tree.findings(palette=[(0, 0, 0), (255, 0, 0)], palette_tolerance=30)["unknown-color"]
    assert finding.count == 1 and "8 bits" in line(finding) and not finding.settings


def test_exact_colors_are_no_noise(tmp_path: Path) -> None:
    """Such as bits of outlines in red, and several bits of classes in blue (DIVA-HisDB)."""
    wide, narrow = [(0, 0, 1), (0, 0, 4), (0, 0, 8)], (128, 0, 8)

    def mask(seed: int) -> np.ndarray:
        drawn = np.array(wide, np.uint8)[ids(seed, classes=3)]
        drawn[np.diff(drawn[..., 2], axis=1, append=drawn[:, -1:, 2]) != 0] = narrow
        return drawn

    tree = Tree(tmp_path, mask)
    assert tree.findings()["unclear-masks"].settings == [{"data.palette": [*wide, narrow]}]
    finding = tree.findings(palette=wide)["unknown-color"]
    assert finding.severity is Severity.ERROR and finding.values["pixels"].keys() == {str([*narrow])}
    assert finding.settings == [{"data.palette_tolerance": 128}]


def test_an_id_more_than_classes(tmp_path: Path, capsys: Capture) -> None:
    """Pairs that a copy would leave out are counted."""
    tree, out, declared = Tree(tmp_path / "data"), tmp_path / "out", ["--data.classes=[road,tree,car]"]
    tree.source()
    assert main(["doctor", str(tree.root), *declared]) == 3
    printed = capsys.readouterr().out
    assert "no class: 3 (" in printed and "with the background if it is 0" in printed and "--fix" not in printed
    assert main(["doctor", str(tree.root), *declared, "--fix", str(out)]) == 2 and not out.exists()
    assert main(["train", str(tree.root), *declared]) == 2
    assert "no class: 3 (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("group", "known", "severity"),
    [(None, 2, Severity.INFORMATION), (None, 3, Severity.WARNING), ("*_slice*", 2, Severity.WARNING)],
)
def test_patients_of_val_that_are_in_train(group: str | None, known: int, severity: Severity, tmp_path: Path) -> None:
    """Of five or six images of val, two or three are of patients in train."""
    tree = Tree(tmp_path, train=0, val=0)
    for patient in range(8):
        for number in range(3):
            in_val = (number == 0 and patient < known) or patient == 7
            tree.add(f"P{patient:02}_slice_{number}", "val" if in_val else "train")
    finding = tree.findings(group=group)["parts-in-two-splits"]
    assert finding.severity is severity and finding.count == known
