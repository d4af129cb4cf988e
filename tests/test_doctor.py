"""Doctor finds every planted fault and nothing else, and writes corrected copies."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import make_mapillary
from PIL import Image
from test_bad_input import bomb, files

from crispseg.cli.main import main
from crispseg.data import CamVid, Folder, Scenes, check_split
from crispseg.doctor import KINDS, Diagnosis, Finding, Severity, diagnose, subject_of
from crispseg.doctor.report import EXIT_STATUS, as_json
from crispseg.doctor.scan import blended_steps, count_values

SIZE = (64, 96)
DOCS = Path(__file__).resolve().parents[1] / "docs/doctor.md"


def photo(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A smooth picture of its own for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def ids(seed: int, size: tuple[int, int] = SIZE, classes: int = 4) -> np.ndarray:
    """A mosaic of all class ids, of its own for each seed."""
    random = np.random.default_rng(seed + 1000)
    coarse = np.concatenate([random.permutation(classes) for _ in range(-(-48 // classes))])[:48]
    return np.asarray(
        Image.fromarray(coarse.reshape(6, 8).astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
    )


def save(path: Path, array: np.ndarray | Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    picture.save(path, **options)
    return path


class Tree:
    """`images` and `masks`, with lists of train and val."""

    def __init__(self, root: Path, mask: Callable[[int], Any] = ids, train: int = 8, val: int = 4) -> None:
        self.root = root
        self.split: dict[str, list[str]] = {"train": [], "val": []}
        self.seed = 0
        for split, count in (("train", train), ("val", val)):
            for index in range(count):
                self.add(f"{split}{index}", split, mask=mask(index + 3000 + 100 * (split == "val")))

    def add(self, name: str, split: str = "train", image: Any = None, mask: Any = None) -> tuple[Path, Path]:
        """A sound pair, but for what is given; its paths without suffixes tell no story."""
        self.seed += 1
        self.split[split].append(name)
        picture = save(self.root / f"images/{name}.png", photo(2000 + self.seed) if image is None else image)
        return picture, save(self.root / f"masks/{name}.png", ids(2000 + self.seed) if mask is None else mask)

    def source(self, **options: Any) -> Folder:
        for split, names in self.split.items():
            (self.root / f"{split}.txt").write_text("\n".join(names) + "\n")
        lists = {f"{split}_list": self.root / f"{split}.txt" for split in self.split}
        return Folder(self.root / "images", self.root / "masks", **lists, **options)

    def examine(self, **options: Any) -> Diagnosis:
        return diagnose(subject_of(self.source(**options)))


def named(diagnosis: Diagnosis) -> dict[str, set[str]]:
    """Code → names of its files."""
    return {one.code: {Path(file).stem for file in one.files} for one in diagnosis.findings}


def only(diagnosis: Diagnosis, code: str) -> Finding:
    (found,) = (one for one in diagnosis.findings if one.code == code)
    return found


def plant(tree: Tree) -> dict[str, set[str]]:
    """Faults of many kinds in one folder. Returns code → the files that have it."""
    root = tree.root
    turned = Image.Exif()
    turned[0x0112] = 6
    cut = tree.add("cut")[0]
    cut.write_bytes(cut.read_bytes()[:2000])
    tree.add("empty")[1].write_bytes(b"")
    tree.add("text")[0].write_bytes(b"no image")
    tree.add("bomb")[0].write_bytes(bomb())
    tree.add("float", image=Image.fromarray(np.linspace(0, 1, 64 * 96, dtype=np.float32).reshape(SIZE)).convert("L"))
    (root / "images/float.png").unlink()
    save(root / "images/float.tif", np.linspace(0, 1, 64 * 96, dtype=np.float32).reshape(SIZE))
    (tree.add("cmyk")[1]).unlink()
    save(root / "masks/cmyk.tif", Image.fromarray(photo(3)).convert("CMYK"))
    (tree.add("pgm")[1]).unlink()
    save(root / "masks/pgm.pgm", ids(4))
    for path in tree.add("gone"):
        path.unlink()
        path.symlink_to(root / "nowhere.png")
    save(root / "images/unlisted.png", photo(899))
    save(root / "masks/unlisted.png", ids(899))
    save(root / "images/lonely_image.png", photo(900))
    save(root / "masks/lonely_mask.png", ids(900))
    for folder in ("images/twice.png", "images/twice.bmp"):
        save(root / folder, photo(901))
    save(root / "masks/twice.png", ids(901))
    tree.split["train"].append("missing")
    tree.add("smaller", mask=ids(1, (60, 96)))
    save(tree.add("turned")[0], photo(902), exif=turned)
    save(tree.add("mask_turned")[1], ids(904), exif=turned)
    turned_over = Image.Exif()
    turned_over[0x0112] = 3
    save(tree.add("mask_over")[1], ids(905), exif=turned_over)
    save(tree.add("square", image=photo(903, (64, 64)), mask=ids(903, (64, 64)))[0], photo(903, (64, 64)), exif=turned)
    stray = ids(5).copy()
    stray[3, 4:9] = 77
    tree.add("stray", mask=stray)
    tree.add("binary", mask=np.where(ids(6) > 1, 255, 0).astype(np.uint8))
    tree.add("colours", mask=np.array([(128, 0, 0), (0, 128, 0), (0, 0, 0), (9, 8, 7)], np.uint8)[ids(7)])
    tree.add("jpeg")[1].unlink()
    save(root / "masks/jpeg.jpg", 60 * ids(8))
    tree.add("jpeg_in_tiff")[1].unlink()
    save(root / "masks/jpeg_in_tiff.tif", 60 * ids(31), compression="jpeg")
    coarse = Image.fromarray(3 * (ids(9, (16, 24)) > 1).astype(np.uint8))
    tree.add("soft", mask=coarse.resize(SIZE[::-1], Image.Resampling.BILINEAR))
    for name, colors in (("p1", range(12)), ("p2", range(12)), ("p3", range(12, 0, -1))):
        palette = Image.fromarray(ids(950 + int(name[1]))).convert("L")
        palette.putpalette(bytes(colors))
        tree.add(name, mask=palette)
    clear = np.dstack([np.repeat(ids(14)[..., None], 3, -1), np.full(SIZE, 255, np.uint8)])
    clear[:9, :9, 3] = 0
    tree.add("clear", mask=clear)
    shared = ids(15)
    tree.add("shared1", mask=shared)
    tree.add("shared2", mask=shared)
    tree.add("void", mask=np.full(SIZE, 255, np.uint8))
    tree.add("plain", mask=np.full(SIZE, 2, np.uint8))
    tree.add("leak", image=photo(16), mask=ids(16))
    (root / "images/leaked.bmp").parent.mkdir(exist_ok=True)
    save(root / "images/leaked.bmp", photo(16))  # other bytes, other name, the same pixels
    save(root / "masks/leaked.png", ids(16))
    tree.split["val"].append("leaked")
    tree.add("again1", image=photo(17), mask=ids(17))
    tree.add("again2", image=photo(17), mask=ids(18))
    tree.add("near1", image=photo(19), mask=ids(19))
    save(root / "images/near2.jpg", photo(19), quality=90)
    save(root / "masks/near2.png", ids(20))
    tree.split["val"].append("near2")
    alpha = np.dstack([photo(21), np.full(SIZE, 255, np.uint8)])
    alpha[:5, :5, 3] = 0
    tree.add("alpha", image=alpha)
    tree.add("inks")[0].unlink()
    save(root / "images/inks.jpg", Image.fromarray(photo(29)).convert("CMYK"))
    tree.add("infrared")[0].unlink()
    save(root / "images/infrared.tif", Image.fromarray(photo(30)).convert("RGBX"))
    deep = (photo(22)[..., 0].astype(np.uint16) << 2) + 1
    tree.add("deep", image=deep)
    tree.add("grey", image=photo(23)[..., 0])
    tree.add("black", image=np.zeros((*SIZE, 3), np.uint8))
    tree.add("tiny", image=photo(24, (20, 96)), mask=ids(24, (20, 96)))
    save(root / "images/suffix.jpg", photo(25), format="PNG")
    save(root / "masks/suffix.png", ids(25))
    tree.split["train"].append("suffix")
    frames = [Image.fromarray(photo(seed)) for seed in (26, 27)]
    frames[0].save(root / "images/frames.tif", save_all=True, append_images=frames[1:])
    save(root / "masks/frames.png", ids(26))
    tree.split["train"].append("frames")
    late = ids(28).copy()
    late[:40, :90] = 4  # a class that train lacks
    tree.add("late", "val", mask=late)
    return {
        "unreadable-file": {"cut"},
        "empty-file": {"empty"},
        "no-image-format": {"text"},
        "too-large": {"bomb"},
        "value-range-unknown": {"float"},
        "missing-file": {"gone"},
        "unusable-mask": {"cmyk", "pgm"},
        "image-without-mask": {"lonely_image"},
        "mask-without-image": {"lonely_mask"},
        "ambiguous-names": {"twice"},
        "listed-file-missing": {"train"},
        "in-no-split": {"unlisted"},
        "sizes-differ": {"smaller"},
        "exif-rotation": {"turned", "mask_turned"},
        "exif-unclear": {"square", "mask_over"},
        "value-out-of-range": {"stray"},
        "black-and-white-mask": {"binary"},
        "rgb-masks": {"colours"},
        "lossy-mask": {"jpeg", "jpeg_in_tiff"},
        "interpolated-edges": {"soft"},
        "mask-palettes-differ": {"p3"},
        "mask-alpha": {"clear"},
        "shared-mask": {"shared1", "shared2"},
        "all-ignored": {"void"},
        "single-class-mask": {"plain", "binary"},
        "image-in-two-splits": {"leak", "leaked"},
        "duplicate-image": {"again1", "again2"},
        "contradicting-masks": {"again1", "again2"},
        "near-duplicate": {"near1", "near2"},
        "image-alpha": {"alpha"},
        "odd-channels": {"inks", "infrared"},
        "deep-image": {"deep"},
        "mixed-depth": {"deep"},
        "grey-among-color": {"deep", "grey"},
        "constant-image": {"black"},
        "tiny-image": {"tiny"},
        "sizes-vary": set(),
        "wrong-suffix": {"suffix"},
        "several-frames": {"frames"},
        "class-in-one-split": set(),
        "class-never-occurs": set(),
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tree, dict[str, set[str]], Diagnosis]:
    tree = Tree(tmp_path_factory.mktemp("planted"), train=20, val=8)
    expected = plant(tree)
    return tree, expected, tree.examine(num_classes=6)


def test_every_planted_fault_is_found_and_nothing_else(planted: tuple[Tree, dict[str, set[str]], Diagnosis]) -> None:
    _, expected, diagnosis = planted
    assert len(expected) >= 20
    assert named(diagnosis) == expected
    assert only(diagnosis, "value-out-of-range").details["values"] == {"77": 5}
    assert only(diagnosis, "class-never-occurs").details["classes"] == ["class 5"]
    assert only(diagnosis, "class-in-one-split").details["lacking"] == {"train": ["class 4"], "val": []}
    for one in diagnosis.findings:
        assert one.message and one.remedy and "\n" not in one.message + one.remedy


def test_without_declared_classes_the_same_faults_are_found(
    planted: tuple[Tree, dict[str, set[str]], Diagnosis],
) -> None:
    tree, expected, _ = planted
    assert named(tree.examine()) == {code: found for code, found in expected.items() if code != "class-never-occurs"}


def test_threads_change_nothing(planted: tuple[Tree, dict[str, set[str]], Diagnosis]) -> None:
    tree, _, _ = planted
    one, four = (as_json(diagnose(subject_of(tree.source()), workers)) for workers in (1, 4))
    assert one == four


def test_a_sound_folder_has_no_findings(tmp_path: Path) -> None:
    assert Tree(tmp_path).examine().findings == ()


def test_scenes_have_nothing_above_information() -> None:
    source = Scenes(train=12, val=6, test=6, height=96, width=128)
    diagnosis = diagnose(subject_of(source))
    assert diagnosis.severity is Severity.INFORMATION
    report = check_split(source.dataset("train"), "train")
    np.testing.assert_array_equal(diagnosis.reports[0].counts, report.counts)


@pytest.mark.slow
def test_camvid_has_nothing_above_information(shared: Path) -> None:
    source = CamVid(shared / "data/camvid")
    diagnosis = diagnose(subject_of(source))
    assert sum(map(len, diagnosis.subject.splits)) == 468
    assert {one.code for one in diagnosis.findings} <= {"class-imbalance", "near-duplicate"}
    assert diagnosis.severity is Severity.INFORMATION


# All masks have one mistake -----------------------------------------------------------------------------------------

COLORS = np.array([(0, 0, 0), (60, 0, 90), (128, 0, 0), (200, 10, 30)], np.uint8)

WHOLE = {
    "black-and-white-masks": (
        lambda seed: np.where(ids(seed) > 1, 255, 0).astype(np.uint8),
        {},
        "[[0,0,0],[255,255,255]]",
    ),
    "rgb-masks": (lambda seed: COLORS[ids(seed)], {}, "'[[0,0,0],[60,0,90],[128,0,0],[200,10,30]]'"),
    "one-based-ids": (lambda seed: ids(seed) + 1, {}, "from 0"),
    "sparse-ids": (lambda seed: np.array([0, 38, 75, 113], np.uint8)[ids(seed)], {}, "'[[0,0,0],[38,38,38],"),
}


@pytest.mark.parametrize("code", WHOLE)
def test_masks_that_all_have_one_mistake(code: str, tmp_path: Path) -> None:
    mask, options, remedy = WHOLE[code]
    tree = Tree(tmp_path / "data", mask)
    diagnosis = tree.examine(**options)
    (found,) = diagnosis.findings
    assert found.code == code and found.severity is Severity.ERROR and found.count == 12 and remedy in found.remedy
    out = tmp_path / "out"
    assert main(["doctor", str(tmp_path / "data"), "--fix", str(out)]) == EXIT_STATUS[Severity.ERROR]
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
        "many": (lambda _: np.arange(64 * 96).reshape(SIZE).astype(np.uint16) % 300, "value-out-of-range", "0 to 254"),
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
    tree, out = Tree(tmp_path / "again", cases["instances"][0]), tmp_path / "out"
    tree.source()
    assert main(["doctor", str(tree.root), "--fix", str(out)]) == 3
    assert main(["doctor", str(out)]) == 0
    np.testing.assert_array_equal(
        np.asarray(Image.open(out / "masks/train/train1.png")),
        np.asarray(Image.open(tree.root / "masks/train1.png")) // 1000,
    )


def test_grey_pictures_of_ids_keep_the_ignored_values(tmp_path: Path) -> None:
    tree = Tree(tmp_path, lambda seed: np.array([0, 60, 120, 200], np.uint8)[ids(seed)])
    diagnosis = tree.examine(ignore=(200,))
    assert set(named(diagnosis)) == {"sparse-ids"}
    assert diagnosis.reports[0].ignored == 8 * 64 * 96 // 4 and len(diagnosis.reports[0].labels) == 3


def test_one_based_ids_where_classes_are_declared(tmp_path: Path) -> None:
    found = only(Tree(tmp_path, lambda seed: ids(seed) + 1).examine(num_classes=4), "one-based-ids")
    assert "4 is out of range 0 to 3" in found.message


def test_one_mask_of_one_based_ids(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.add("from_one", mask=ids(4) + 1)
    assert named(tree.examine(num_classes=4)) == {"one-based-ids": {"from_one"}}


def test_colours_that_the_palette_lacks(tmp_path: Path) -> None:
    tree = Tree(tmp_path, lambda seed: COLORS[ids(seed)])
    palette = [tuple(color) for color in COLORS[:3].tolist()]
    diagnosis = tree.examine(palette=palette)
    found = only(diagnosis, "unknown-color")
    assert found.count == 12 and "[200, 10, 30]" in found.message
    whole = [tuple(color) for color in COLORS.tolist()]
    assert tree.examine(palette=whole).findings == ()


def test_antialiased_black_and_white_masks(tmp_path: Path) -> None:
    def soft(seed: int) -> Image.Image:
        sharp = Image.fromarray(np.where(ids(seed, (512, 768)) > 1, 255, 0).astype(np.uint8))
        return sharp.rotate(7, Image.Resampling.BILINEAR)

    tree = Tree(tmp_path, lambda seed: soft(seed), 3, 2)
    for path in (tmp_path / "images").iterdir():
        save(path, photo(hash(path.name) % 1000, (512, 768)))
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


# Corrected copies ---------------------------------------------------------------------------------------------------


def test_a_fixed_copy_is_clean_and_the_data_are_untouched(
    planted: tuple[Tree, dict[str, set[str]], Diagnosis], tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
    left = {one["code"] for one in json.loads(capsys.readouterr().out)["findings"]}
    assert status == 1  # nothing that stops training
    gone = {"mask-alpha", "mask-palettes-differ", "in-no-split"}
    assert left == {code for code in expected if not KINDS[code].fix} - gone | {
        "image-alpha",  # its pixels are transparent, so it is not safe to drop
        "duplicate-image",  # whose masks contradict each other
    }
    # lossless: what is kept has its old pixels, and a mask is turned with its image
    assert (out / "images/train/train0.png").read_bytes() == (tree.root / "images/train0.png").read_bytes()
    turned = np.asarray(Image.open(out / "masks/train/turned.png"))
    np.testing.assert_array_equal(turned, np.rot90(np.asarray(Image.open(tree.root / "masks/turned.png")), -1))
    for name in ("mask_turned", "mask_over"):  # the one that does not fit as EXIF turns it is as it was stored
        stored = np.asarray(Image.open(tree.root / f"masks/{name}.png"))
        upright = np.rot90(stored, 0 if name == "mask_turned" else 2)
        np.testing.assert_array_equal(np.asarray(Image.open(out / f"masks/train/{name}.png")), upright)
    stray = np.asarray(Image.open(out / "masks/train/stray.png"))
    assert (stray[3, 4:9] == 255).all() and (stray == 255).sum() == 5
    assert not (out / "images/train/leak.png").exists() and (out / "images/val/leaked.bmp").exists()
    listing = (out / "left_out.txt").read_text()
    for name in ("cut.png: unreadable-file", "jpeg.jpg: lossy-mask", "lonely_mask.png: mask-without-image"):
        assert name in listing
    source = Folder(
        out / "images",
        out / "masks",
        classes=out / "classes.txt",
        train_list=out / "train.txt",
        val_list=out / "val.txt",
    )
    for split in ("train", "val"):
        assert check_split(source.dataset(split), split).images > 5


def test_where_a_copy_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = Tree(tmp_path / "data", train=3, val=2)
    tree.source()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    before = files(tmp_path)
    for out, phrase in (
        (tmp_path / "full", "not empty"),
        (tmp_path / "full/file", "is a file"),
        (tmp_path / "data/fixed", "lies in the data"),
        (tmp_path / "data/images/fixed", "lies in the data"),
    ):
        capsys.readouterr()
        assert main(["doctor", str(tmp_path / "data"), "--fix", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert phrase in line and str(out) in line
    assert files(tmp_path) == before
    scenes = ["--data.train=2", "--data.val=2", "--data.test=2", "--data.height=64", "--data.width=64"]
    assert main(["doctor", "scenes", *scenes, "--fix", str(tmp_path / "out")]) == 2
    assert "not made of files" in capsys.readouterr().err


def test_copies_into_an_empty_folder_and_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Tree(tmp_path / "data", train=3, val=2).source()
    for name in ("here", "disk"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.chdir(tmp_path / "here")
    for out, folder in ((".", "here"), (str(tmp_path / "link"), "disk")):
        assert main(["doctor", str(tmp_path / "data"), "--fix", out]) == 0
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == [
            "classes.txt",
            "images",
            "masks",
            "train.txt",
            "val.txt",
        ]
        assert main(["doctor", out]) == 0
    (tmp_path / "loose").symlink_to(tmp_path / "nowhere")
    assert main(["doctor", str(tmp_path / "data"), "--fix", str(tmp_path / "loose")]) == 2
    assert "link that leads nowhere" in capsys.readouterr().err


def test_a_file_that_is_listed_twice_is_copied_once(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "data", train=4, val=2)
    tree.split["val"].append("train1")
    assert set(named(tree.examine())) == {"image-in-two-splits"}
    assert main(["doctor", str(tree.root), "--fix", str(tmp_path / "out")]) == 3
    assert main(["doctor", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out/images/train/train1.png").exists()
    assert (tmp_path / "out/images/val/train1.png").exists()


def test_a_copy_for_four_channels_keeps_the_fourth(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "data", train=3, val=2)
    for path in (tree.root / "images").iterdir():
        save(path, np.dstack([photo(len(path.stem) + ord(path.stem[-1])), np.full(SIZE, 255, np.uint8)]))
    tree.source()
    out = tmp_path / "out"
    assert main(["doctor", str(tree.root), "--in_chans=4", "--fix", str(out)]) == 0
    assert {Image.open(path).mode for path in (out / "images").rglob("*.png")} == {"RGBA"}


def test_a_copy_of_names_with_dots_and_of_names_that_no_list_can_hold(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "data", train=4, val=3)
    for name, stored in (("train0", "a.png"), ("val0", "b\udcff")):  # the second is a byte that is not UTF-8
        for folder in ("images", "masks"):
            (tree.root / f"{folder}/{name}.png").rename(tree.root / f"{folder}/{stored}.png")
    out = tmp_path / "out"
    assert main(["doctor", str(tree.root), "--fix", str(out)]) == 0
    assert b"b\xff.png: a name that is not UTF-8" in (out / "left_out.txt").read_bytes()
    lists = {f"{split}_list": out / f"{split}.txt" for split in ("train", "val")}
    source = Folder(out / "images", out / "masks", **lists)
    assert sum(len(source.dataset(split)) for split in ("train", "val")) == 6


def test_a_failing_copy_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Tree(tmp_path / "data", train=3, val=2).source()

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(OSError, match="disk full"):
        main(["doctor", str(tmp_path / "data"), "--fix", str(tmp_path / "out")])
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


# The command --------------------------------------------------------------------------------------------------------


def test_exit_status_json_and_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = Tree(tmp_path / "data")
    tree.source()
    command = ["doctor", str(tree.root), "--json", str(tmp_path / "report.json")]
    assert main(command) == 0
    assert "Nothing to report." in capsys.readouterr().out
    tree.add("black", image=np.zeros((*SIZE, 3), np.uint8))
    tree.source()
    assert main(command) == 1
    save(tree.root / "masks/train0.png", np.full(SIZE, 200, np.uint8))
    assert main([*command, "--data.num_classes=4"]) == 3
    text = capsys.readouterr().out
    for phrase in (
        "error  value-out-of-range",
        "200 (6144 pixels)",
        "masks/train0.png",
        "→ correct",
        "1 error and 1 warning",
    ):
        assert phrase in text
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["severity"] == "error" and report["splits"]["train"]["pairs"] == 9
    first = report["findings"][0]
    assert first["code"] == "value-out-of-range" and first["files"] == [str(tree.root / "masks/train0.png")]


@pytest.mark.parametrize(
    ("argv", "phrases"),
    [
        ([], ["give the data first"]),
        (["nowhere"], ["nowhere is missing", "--data"]),
        (["--data", "scene"], ["unknown data 'scene'", "'scenes'"]),
        (["scenes", "--data.hight=9"], ["unknown key --data.hight", "data.height"]),
        (["scenes", "--workers=0"], ["workers is 0"]),
        (["scenes", "--in_chans=2"], ["in_chans is 2"]),
        (["--data=camvid", "--data.root=nowhere"], ["nowhere is not a CamVid folder"]),
    ],
)
def test_mistakes_of_the_user(argv: list[str], phrases: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for phrase in phrases:
        assert phrase in line


def test_a_folder_without_a_known_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path)]) == 2
    assert "no layout that is known" in capsys.readouterr().err


def test_what_a_path_may_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folders of splits, a YAML file and a run's folder."""
    for layout in ("{split}/{kind}", "{kind}/{split}"):
        root = tmp_path / layout[1:6]
        for split, count in (("train", 4), ("val", 2), ("test", 3)):
            for index in range(count):
                seed = index + 50 * count
                save(root / layout.format(split=split, kind="images") / f"{index}.png", photo(seed))
                save(root / layout.format(split=split, kind="masks") / f"{index}.png", ids(seed))
        assert main(["doctor", str(root), "--json", "-"]) == 0
        pairs = {split: one["pairs"] for split, one in json.loads(capsys.readouterr().out)["splits"].items()}
        assert pairs == {"train": 4, "val": 2, "test": 3}
    run = tmp_path / "run"
    run.mkdir()
    data = {"name": "scenes", "train": 8, "val": 8, "test": 8, "height": 64, "width": 96}
    (run / "config.yaml").write_text(json.dumps({"model": "fpn", "data": data}))
    for target in (run, run / "config.yaml"):
        assert main(["doctor", str(target), "--json", "-"]) <= 1
        assert json.loads(capsys.readouterr().out)["data"] == "scenes"


def test_a_public_layout_with_gaps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CamVid as lists: what is missing is listed, not raised."""
    for split, count in (("train", 3), ("val", 2)):
        lines = []
        for index in range(count):
            name = f"{split}{index}.png"
            save(tmp_path / split / name, photo(index + 10 * count))
            save(tmp_path / f"{split}annot" / name, ids(index + 10 * count, classes=11))
            lines.append(f"{split}/{name} {split}annot/{name}")
        (tmp_path / f"{split}.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "trainannot/train1.png").unlink()
    save(tmp_path / "trainannot/train2.png", COLORS[ids(1)])
    assert main(["doctor", str(tmp_path), "--json", "-"]) == 3
    report = json.loads(capsys.readouterr().out)
    errors = {one["code"]: one for one in report["findings"] if one["severity"] == "error"}
    assert set(errors) == {"listed-file-missing", "rgb-masks"}
    assert "--data.masks colors" in errors["rgb-masks"]["remedy"]


def test_a_split_of_which_one_folder_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no reason to leave the split out in silence; images to test on need no masks."""
    for layout in ("{split}/{kind}", "{kind}/{split}"):
        root = tmp_path / layout[1:6]
        for split, kinds in (
            ("train", ("images", "masks")),
            ("val", ("images",)),
            ("test", ("images", "masks")),
        ):
            for seed in range(4):
                for kind in kinds:
                    file = root / layout.format(split=split, kind=kind) / f"{seed}.png"
                    save(file, {"images": photo, "masks": ids}[kind](seed + 10 * len(split)))
        assert main(["doctor", str(root), "--json", "-"]) == 3
        report = json.loads(capsys.readouterr().out)
        assert "split-unavailable" in {one["code"] for one in report["findings"]}
        (found,) = (one for one in report["findings"] if one["code"] == "split-unavailable")
        assert found["message"] == f"val: {root / layout.format(split='val', kind='masks')} is missing"
        assert set(report["splits"]) == {"train", "test"}
        (root / layout.format(split="test", kind="masks")).rename(root / layout.format(split="val", kind="masks"))
        status = main(["doctor", str(root), "--json", "-"])
        report = json.loads(capsys.readouterr().out)
        assert status == 0 and set(report["splits"]) == {"train", "val"}
        beside = {one["code"]: one["count"] for one in report["findings"]}
        assert beside == ({} if layout.startswith("{split") else {"in-no-split": 4})


def test_mapillary_has_a_config_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which is no saved model's."""
    make_mapillary(tmp_path)
    assert main(["doctor", str(tmp_path), "--json", "-"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["data"] == "mapillary" and report["splits"]["val"]["pairs"] == 1


def test_names_that_the_terminal_cannot_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree(tmp_path, train=3, val=2)
    tree.source()
    save(tmp_path / "images/\udcff.png", photo(1))
    for encoding in ("utf-8", "cp1252"):
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding, write_through=True))
        assert main(["doctor", str(tmp_path)]) == 3
        assert b"\\udcff.png" in written.getvalue()


def test_where_nothing_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "images/a.png", photo(1))
    save(tmp_path / "masks/b.png", ids(1))
    assert main(["doctor", str(tmp_path), "--json", "-"]) == 3
    found = json.loads(capsys.readouterr().out)["findings"]
    assert {one["code"] for one in found} == {"image-without-mask", "mask-without-image"}


def test_noise_is_no_fault(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tree = Tree(tmp_path, lambda _: random.integers(0, 3, SIZE, np.uint8), 3, 2)
    for name in (*tree.split["train"], *tree.split["val"]):
        save(tmp_path / f"images/{name}.png", random.integers(0, 256, (*SIZE, 3), np.uint8))
    assert tree.examine().findings == ()


def test_every_kind_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for code, kind in KINDS.items():
        assert f"| `{code}` | {kind.severity} |" in text, code
