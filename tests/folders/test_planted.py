"""Doctor finds every planted fault and nothing else, and a corrected copy has none of those that it mends.

Data without faults have no findings.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import save
from PIL import Image

from crispseg.cli.main import main
from crispseg.data import CamVid, Folder, check_split
from crispseg.folders.finding import FINDING_KINDS, Finding, Severity
from crispseg.folders.wording import line
from tests.cli.test_bad_input import files

from .trees import SIZE, Tree, findings_of, ids, names_of, photo


def plant(tree: Tree) -> dict[str, set[str]]:
    """Faults of many kinds in one folder. Returns code → the files that have it."""
    root = tree.root
    turned = Image.Exif()
    turned[0x0112] = 6
    over = Image.Exif()
    over[0x0112] = 3
    cut = tree.add("cut")[0]
    cut.write_bytes(cut.read_bytes()[:2000])
    tree.add("empty")[1].write_bytes(b"")
    tree.add("text")[0].write_bytes(b"no image")
    Image.new("1", (12000, 12000)).save(tree.add("bomb")[0])  # a small file of 144 million pixels
    tree.add("float", image=np.linspace(0, 1, 64 * 96, dtype=np.float32).reshape(SIZE), suffixes=("tif", "png"))
    tree.add("cmyk", mask=Image.fromarray(photo(3)).convert("CMYK"), suffixes=("png", "tif"))
    tree.add("pgm", mask=ids(4), suffixes=("png", "pgm"))
    for path in tree.add("gone"):
        path.unlink()
        path.symlink_to(root / "nowhere.png")
    save(root / "images/lonely_photo.png", photo(900))
    save(root / "masks/lonely_map.png", ids(900))
    for folder in ("images/twice.png", "images/twice.bmp"):
        save(root / folder, photo(901))
    save(root / "masks/twice.png", ids(901))
    tree.split["train"].append("missing")
    tree.add("smaller", mask=ids(1, (60, 96)))
    tree.add("turned", image=photo(902), exif=turned)
    tree.add("mask_turned", mask=ids(904), exif=turned)
    tree.add("over", image=photo(906), exif=over)
    save(tree.add("square", image=photo(907, (64, 64)), exif=turned)[1], ids(907, (64, 64)))
    tree.add("both_turned", image=photo(908), mask=ids(908), exif=over)
    stray = ids(5).copy()
    stray[3, 4:9] = 77
    tree.add("stray", mask=stray)
    tree.add("colours", mask=np.array([(128, 0, 0), (0, 128, 0), (0, 0, 0), (9, 8, 7)], np.uint8)[ids(7)])
    tree.add("jpeg", mask=60 * ids(8), suffixes=("png", "jpg"))
    tree.add("jpeg_in_tiff", mask=60 * ids(31), suffixes=("png", "tif"), compression="jpeg")
    tree.add("void", mask=np.full(SIZE, 255, np.uint8))
    tree.add("leak", image=photo(16), mask=ids(16))
    # other bytes, other name, the same pixels
    tree.add("leaked", "val", image=photo(16), mask=ids(16), suffixes=("bmp", "png"))
    tree.add("again1", image=photo(17), mask=ids(17))
    tree.add("again2", image=photo(17), mask=ids(18))
    tree.add("half1", image=photo(19), mask=ids(19))
    tree.add("half2", "val", image=np.rot90(photo(19), 2), mask=np.rot90(ids(19), 2))
    tree.add("pear", image=photo(20)), tree.add("pear_aug_2", "val", image=photo(21))
    tree.add("black", image=np.zeros((*SIZE, 3), np.uint8))
    late = ids(28).copy()
    late[:40, :90] = 4  # a class that train lacks
    tree.add("late", "val", mask=late)
    return {
        "unusable-file": {"cut", "empty", "text", "bomb", "float", "gone", "cmyk", "jpeg", "jpeg_in_tiff"},
        "image-without-mask": {"lonely_photo"},
        "mask-without-image": {"lonely_map"},
        "ambiguous-names": {"twice"},
        "listed-file-missing": {"train"},
        "sizes-differ": {"smaller", "turned", "mask_turned"},
        "turned-images": {"over", "square"},
        "value-out-of-range": {"stray"},
        "rgb-masks": {"colours"},
        "all-ignored": {"void"},
        "image-in-two-splits": {"leak", "leaked"},
        "duplicate-image": {"again1", "again2"},
        "contradicting-masks": {"again1", "again2"},
        "copies-in-two-splits": {"half1", "half2", "pear", "pear_aug_2"},
        "constant-image": {"black"},
        "class-absent": set(),
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tree, dict[str, set[str]], dict[str, Finding]]:
    tree = Tree(tmp_path_factory.mktemp("planted"), train=20, val=8)
    expected = plant(tree)
    return tree, expected, tree.findings(num_classes=6)


def test_every_planted_fault_is_found_and_nothing_else(planted: Any) -> None:
    _, expected, findings = planted
    assert len(expected) >= 15
    assert names_of(findings) == expected
    reasons = findings["unusable-file"].values["reasons"]
    shown = {Path(file).stem: reason for file, reason in reasons.items()}
    for name, reason in {"empty": "is empty", "text": "is not an image", "bomb": "134,217,728 pixels"}.items():
        assert reason in shown[name]
    assert findings["value-out-of-range"].values["pixels"] == {77: 5}
    lacking = {"train": ("class 4", "class 5"), "val": ("class 5",)}
    assert findings["class-absent"].values["absent"] == lacking
    for finding in findings.values():
        assert line(finding) and "\n" not in line(finding) and "{" not in line(finding)


def test_masks_of_many_kinds_are_asked_about_without_declared_classes(planted: Any) -> None:
    tree, expected, _ = planted
    findings = tree.findings()
    of_meaning = {"rgb-masks", "value-out-of-range", "all-ignored", "class-absent"}
    assert {*findings} >= {*expected} - of_meaning and "unclear-masks" in findings


def test_a_fixed_copy_is_clean_and_the_data_are_untouched(
    planted: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, expected, _ = planted
    tree.source()
    before = files(tree.root)
    out = tmp_path / "new" / "fixed"
    assert main(["doctor", str(tree.root), "--data.num_classes", "6", "--fix", str(out)]) == 3
    assert files(tree.root) == before
    assert [path.name for path in out.parent.iterdir()] == ["fixed"]  # nothing temporary is left
    capsys.readouterr()
    status = main(["doctor", str(out), "--json", "-"])
    left = {finding["code"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert status == 1  # nothing that stops training
    assert left == {code for code in expected if not FINDING_KINDS[code].fix}
    assert (out / "images/train/train0.png").read_bytes() == (tree.root / "images/train0.png").read_bytes()
    assert not (out / "images/train/leak.png").exists() and (out / "images/val/leaked.bmp").exists()
    listing = (out / "left_out.txt").read_text()
    reasons = ("jpeg.jpg: unusable-file", "lonely_map.png: mask-without-image", "stray.png: value-out-of-range")
    for name in ("cut.png: unusable-file", *reasons):
        assert name in listing
    source = Folder(root=out)
    for split in ("train", "val"):
        assert check_split(source.dataset(split), split).images > 5


@pytest.mark.slow
def test_camvid_has_nothing_above_information(shared: Path) -> None:
    source = CamVid(shared / "data/camvid")
    findings = findings_of(source)
    known = {"parts-in-two-splits"}  # frames of sequence 0016E5 are in both splits of CamVid
    others = [finding for code, finding in findings.items() if code not in known]
    assert all(finding.severity is Severity.INFORMATION for finding in others)


def test_neither_sound_data_nor_noise_have_findings(tmp_path: Path) -> None:
    assert not Tree(tmp_path / "sound").findings()
    random = np.random.default_rng(0)
    tree = Tree(tmp_path, lambda _: random.integers(0, 3, SIZE, np.uint8), 3, 2)
    for name in (*tree.split["train"], *tree.split["val"]):
        save(tmp_path / f"images/{name}.png", random.integers(0, 256, (*SIZE, 3), np.uint8))
    assert not tree.findings()
