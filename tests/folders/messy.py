"""Folders as users have them, drawn by a few lines each, with the class that each pixel truly has.

`python tests/folders/messy.py` prints what becomes of each: its labels are right, or the user is asked with commands to
choose from, or the folder is refused, or the fault is shown, in the table of classes or in the picture of the data.
None may train on wrong labels with neither.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
import tifffile
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from crispseg.data import DataSource, FileDataset
from crispseg.data.examination import check_splits
from crispseg.data.named import build_data
from crispseg.data.picture import draw_data
from crispseg.errors import CrispsegError, Question
from crispseg.evaluation.recorded import named_data
from crispseg.folders.report import SplitReport
from crispseg.labels import IGNORE

Labels = NDArray[np.uint8]
Encode = Callable[[Labels, int], Any]
Truth = dict[str, Labels]  # path of an image in its folder → class ids, 255 for ignored pixels

RIGHT, ASKED, REFUSED, SHOWN, WRONG = "right", "asked", "refused", "shown", "wrong"
SIZE = (48, 64)
COUNT = 10
VISIBLE = 0.01  # share of the pixels that differ, of the picture or of a class


class Messy(NamedTuple):
    """A kind of folder: what becomes of it, and how it is drawn."""

    outcome: str
    draw: Callable[[Path], Truth]
    settings: Mapping[str, Any] = MappingProxyType({})  # of `data`


def scene(index: int, classes: int = 3) -> tuple[NDArray[np.uint8], Labels]:
    """A noisy picture of rectangles on a background, and their classes."""
    random = np.random.default_rng(index)
    labels = np.zeros(SIZE, np.uint8)
    for label in range(1, classes):
        top, left = random.integers(2, 26), random.integers(2, 40)
        labels[top : top + 16, left : left + 18] = label
    colors = np.array([(60, 80, 60), (200, 90, 60), (80, 110, 220), (220, 210, 70), (160, 60, 160)], np.int16)
    image = colors[labels % len(colors)] + random.integers(-20, 20, (*SIZE, 3))
    return image.clip(0, 255).astype(np.uint8), labels


def values(*table: Any, dtype: Any = np.uint8) -> Encode:
    """Each class has this value or colour."""
    return lambda labels, index: np.array(table, dtype)[labels]


def alternating(*encoders: Encode) -> Encode:
    """Masks of several tools, in turn."""
    return lambda labels, index: encoders[index % len(encoders)](labels, index)


def some(encode: Encode, others: Encode, every: int = COUNT) -> Encode:
    """One mask of `every` is different."""
    return lambda labels, index: (encode if index % every == 0 else others)(labels, index)


IDS = values(0, 1, 2)


def pairs(
    encode: Encode = IDS,
    truth: Sequence[int] = (0, 1, 2),
    image: str = "images/{:02}.png",
    mask: str = "masks/{:02}.png",
    count: int = COUNT,
    **saving: Any,
) -> Callable[[Path], Truth]:
    """Images and masks in files of these names."""

    def draw(root: Path) -> Truth:
        drawn: Truth = {}
        for index in range(count):
            picture, labels = scene(index, len(truth))
            write(root / image.format(index), picture)
            write(root / mask.format(index), encode(labels, index), **saving)
            drawn[image.format(index)] = np.array(truth, np.uint8)[labels]
        return drawn

    return draw


def also(draw: Callable[[Path], Truth], *steps: Callable[[Path], Any]) -> Callable[[Path], Truth]:
    """Further files."""

    def both(root: Path) -> Truth:
        drawn = draw(root)
        for step in steps:
            step(root)
        return drawn

    return both


def write(path: Path, content: Any, **saving: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, content, **saving)
    elif isinstance(content, Image.Image):
        content.save(path, **saving)
    else:
        Image.fromarray(content).save(path, **saving)


def text(name: str, content: str) -> Callable[[Path], Any]:
    return lambda root: (root / name).write_text(content, encoding="utf-8")


def turned(change: Callable[[Labels], Any], every: int = 1) -> Encode:
    """Masks that are shifted, mirrored or turned."""
    return lambda labels, index: np.ascontiguousarray(change(labels) if index % every == 0 else labels)


def resized(labels: Labels, index: int) -> NDArray[np.uint8]:
    """Class ids that were resized with interpolation."""
    small = cv2.resize(labels * 2, (43, 32), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def softened(encode: Encode) -> Encode:
    """Soft edges, as of drawing programs."""
    return lambda labels, index: cv2.GaussianBlur(encode(labels, index), (5, 5), 1)


def palette_file(*colors: tuple[int, int, int], order: Sequence[int] = (0, 1, 2)) -> Encode:
    """Palette PNGs, whose indices are in this order."""

    def encode(labels: Labels, index: int) -> Image.Image:
        picture = Image.fromarray(np.argsort(order).astype(np.uint8)[labels])
        picture.putpalette(list(chain.from_iterable(colors[label] for label in order)))
        return picture

    return encode


def shuffled_palettes(labels: Labels, index: int) -> Image.Image:
    return palette_file(BLACK, RED, BLUE, order=[(0, 1, 2), (1, 2, 0), (2, 0, 1)][index % 3])(labels, index)


def numbered(labels: Labels, index: int) -> NDArray[np.uint8]:
    """Objects of one class, numbered from 1; another number of them in each mask."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    numbers = (y // 8) * 8 + x // 8 + 1
    return np.where((y % 8 < 6) & (x % 8 < 6) & (numbers <= 22 + index), numbers, 0).astype(np.uint8)


def stretched(labels: Labels, index: int) -> NDArray[np.uint8]:
    """Saved by plt.imsave, each mask to its own maximum."""
    labels = np.minimum(labels, 1 + index % 2)
    return (labels * (255 // max(labels.max(), 1))).astype(np.uint8)


def colored(name: str) -> Encode:
    """In a colour map of matplotlib."""
    return lambda labels, index: (colormaps[name](labels / 2)[..., :3] * 255).astype(np.uint8)


def transparent(labels: Labels, index: int) -> NDArray[np.uint8]:
    """Red, blue and black ink on transparent pixels."""
    ink = np.array([(255, 255, 255, 0), (*RED, 255), (*BLUE, 255)], np.uint8)
    return ink[labels]


def blended(labels: Labels, index: int) -> NDArray[np.uint8]:
    """Colours over the photograph."""
    return scene(index)[0] // 2 + np.array([BLACK, RED, BLUE], np.uint8)[labels] // 2


def objects_in_color(labels: Labels, index: int) -> NDArray[np.uint8]:
    """A random colour for each object of each mask."""
    colors = np.random.default_rng(index).integers(0, 256, (256, 3)).astype(np.uint8)
    return colors[numbered(labels, index)]


def without(*indices: int) -> Callable[[Path], Any]:
    """Masks that are lost."""
    return lambda root: [(root / f"masks/{index:02}.png").unlink() for index in indices]


def exif(path: str, orientation: int) -> Callable[[Path], Any]:
    """The image is stored turned, as by a phone."""

    def step(root: Path) -> None:
        tags = Image.Exif()
        tags[0x0112] = orientation
        picture = Image.open(root / path)
        picture.load()
        picture.save(root / path, exif=tags, quality=95)

    return step


def strokes(root: Path) -> Truth:
    """Every eighth row is labelled; two thirds of the images have lines of the background only."""
    drawn: Truth = {}
    for index, (name, labels) in enumerate(pairs(truth=(0, 1))(root).items()):
        lines = np.full_like(labels, IGNORE)
        lines[::8] = np.where(labels > (index % 3 == 0), IGNORE, labels)[::8]
        write(root / name.replace("images", "masks"), lines)
        drawn[name] = lines
    return drawn


def other_images(root: Path) -> Truth:
    """Masks that were renamed in the order of their text."""
    drawn = pairs()(root)
    masks = sorted((root / "masks").iterdir())
    contents = [path.read_bytes() for path in masks]
    for path, content in zip(masks, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)
    return drawn


def inverted_tiffs(root: Path) -> Truth:
    """Half of the TIFF masks have 0 for white, as by ImageJ."""
    drawn = pairs(values(0, 255), (0, 1), mask="masks/{:02}.tif")(root)
    for path in sorted((root / "masks").iterdir())[::2]:
        tifffile.imwrite(path, 255 - tifffile.imread(path), photometric="miniswhite")
    return drawn


BLACK, WHITE, RED, BLUE, GREEN = (0, 0, 0), (255, 255, 255), (200, 0, 0), (0, 0, 200), (0, 180, 0)
CITY = [(128, 64, 128), (70, 70, 70), (107, 142, 35)]
MASK, PURE = values(0, 1), values(0, 255)
THREE = {"palette": [BLACK, RED, BLUE]}
OWN = {"num_classes": 3}

FOLDERS: dict[str, Messy] = {
    # Values
    "ids from 0": Messy(RIGHT, pairs()),
    "ids of 16 bits": Messy(RIGHT, pairs(values(0, 1, 2, dtype=np.uint16))),
    "ids, 255 unlabelled": Messy(RIGHT, pairs(values(0, 1, 255), (0, 1, 255))),
    "strokes, 255 unlabelled": Messy(ASKED, strokes),
    "strokes, 255 declared": Messy(RIGHT, strokes, {"ignore": (255,)}),
    "ids from 1, nothing is 0": Messy(RIGHT, pairs(values(1, 2, 3), (1, 2, 3))),
    "ids from 1, three classes declared": Messy(REFUSED, pairs(values(1, 2, 3), (0, 1, 2)), OWN),
    "ids, 0 means unlabelled": Messy(SHOWN, pairs(IDS, (255, 0, 1))),
    "ids, 0 means unlabelled, dropped": Messy(RIGHT, pairs(IDS, (255, 0, 1)), {"drop": ["class 0"]}),
    "ids 0, 1, 3 of four classes": Messy(RIGHT, pairs(values(0, 1, 3), (0, 1, 3))),
    "BraTS: ids 0, 1, 2 and 4": Messy(RIGHT, pairs(values(0, 1, 2, 4), (0, 1, 2, 4))),
    "VOC subset: ids 0, 7 and 15": Messy(ASKED, pairs(values(0, 7, 15))),
    "VOC subset, three names declared": Messy(REFUSED, pairs(values(0, 7, 15)), OWN),
    "WorldCover: ids 10, 30, 80": Messy(ASKED, pairs(values(10, 30, 80))),
    "ArcGIS: 11, 41, 82, and 0 without data": Messy(ASKED, pairs(values(0, 11, 41, 82), (255, 0, 1, 2))),
    "REFUGE: 0 is the cup, 128 the disc, 255 the background": Messy(ASKED, pairs(values(255, 128, 0))),
    "trimaps: 0, 128 and 255": Messy(ASKED, pairs(values(0, 128, 255))),
    "trimaps of 1, 2 and 3": Messy(RIGHT, pairs(values(1, 2, 3), (1, 2, 3))),
    "9 means ignore": Messy(ASKED, pairs(values(0, 1, 9), (0, 1, 255))),
    "9 means ignore, declared": Messy(RIGHT, pairs(values(0, 1, 9), (0, 1, 255)), {"ignore": (9,)}),
    "ids times 40": Messy(ASKED, pairs(values(0, 40, 80))),
    "ids times 257 of 16 bits": Messy(ASKED, pairs(values(0, 257, 514, dtype=np.uint16))),
    "Cityscapes instance ids": Messy(ASKED, pairs(values(7, 24001, 24002, dtype=np.uint16))),
    "ids from 0 in some masks, from 1 in others": Messy(SHOWN, pairs(alternating(IDS, values(1, 2, 3)), (0, 1, 2))),
    "255 is background, 0 and 1 are objects": Messy(SHOWN, pairs(values(255, 0, 1))),
    "ids from 1, class 0 dropped": Messy(RIGHT, pairs(values(1, 2, 3), (0, 1, 2)), {"drop": ["class 0"]}),
    "65535 means ignore": Messy(ASKED, pairs(values(0, 1, 65535, dtype=np.uint16), (0, 1, 255))),
    "a class too many, declared": Messy(REFUSED, pairs(values(0, 1, 2)), {"num_classes": 2}),
    "classes.txt without the background": Messy(REFUSED, also(pairs(), text("classes.txt", "roof\ntree\n"))),
    "classes.txt with ids": Messy(RIGHT, also(pairs(), text("classes.txt", "0 ground\n2 tree\n1 roof\n"))),
    "classes.txt with a class void": Messy(SHOWN, also(pairs(IDS, (255, 0, 1)), text("classes.txt", "void\na\nb\n"))),
    "a stray value in one mask": Messy(ASKED, pairs(some(values(0, 1, 77), IDS))),
    "ids of 40 classes": Messy(ASKED, pairs(lambda labels, index: labels + np.arange(SIZE[1], dtype=np.uint8) % 38)),
    "numbered objects": Messy(ASKED, pairs(numbered, (0, 1))),
    "numbered objects from 1 to 4": Messy(
        SHOWN, pairs(lambda labels, index: np.minimum(numbered(labels, index), 4), (0, 1))
    ),
    "float masks of ids": Messy(RIGHT, pairs(values(0, 1, 2, dtype=np.float32), mask="masks/{:02}.tif")),
    "float masks with -9999": Messy(
        REFUSED, pairs(values(-9999, 0, 1, dtype=np.float32), (255, 0, 1), mask="masks/{:02}.tif")
    ),
    "masks of -1 without data": Messy(REFUSED, pairs(values(-1, 0, 1, dtype=np.int16), mask="masks/{:02}.tif")),
    "probabilities of 0 to 1": Messy(REFUSED, pairs(values(0, 0.5, 1, dtype=np.float32), mask="masks/{:02}.tif")),
    # Black and white
    "0 and 255": Messy(RIGHT, pairs(PURE, (0, 1))),
    "0 and 65535": Messy(RIGHT, pairs(values(0, 65535, dtype=np.uint16), (0, 1))),
    "1-bit masks": Messy(RIGHT, pairs(lambda labels, index: labels > 0, (0, 1))),
    "0 and 255 as JPEG": Messy(RIGHT, pairs(PURE, (0, 1), mask="masks/{:02}.jpg", quality=95)),
    "0 and 255 with soft edges": Messy(ASKED, pairs(softened(PURE), (0, 1))),
    "0 and 255, a few pixels of 3": Messy(ASKED, pairs(some(values(3, 255), PURE), (0, 1))),
    "0 and 254": Messy(ASKED, pairs(values(0, 254), (0, 1))),
    "white around black objects": Messy(SHOWN, pairs(values(255, 0), (0, 1))),
    "half of the masks inverted": Messy(SHOWN, pairs(alternating(PURE, values(255, 0)), (0, 1))),
    "a few masks inverted": Messy(SHOWN, pairs(some(values(255, 0), PURE), (0, 1))),
    "TIFFs of ImageJ, half with 0 for white": Messy(REFUSED, inverted_tiffs),
    "0 and 1 in some masks, 0 and 255 in others": Messy(ASKED, pairs(alternating(MASK, PURE), (0, 1))),
    "0 and 255 among masks of three ids": Messy(ASKED, pairs(alternating(IDS, values(0, 255, 255)))),
    "each stretched to its own maximum": Messy(ASKED, pairs(stretched)),
    "ids and 0, 128, 255 of another tool": Messy(ASKED, pairs(alternating(IDS, values(0, 128, 255)))),
    "soft edges, a threshold declared": Messy(
        RIGHT, pairs(softened(PURE), (0, 1)), {"palette": [BLACK, WHITE], "palette_tolerance": 255}
    ),
    "0 and 1, or 0 and 255, declared": Messy(
        RIGHT, pairs(alternating(MASK, PURE), (0, 1)), {"palette": [BLACK, [(1, 1, 1), WHITE]]}
    ),
    "0 and 1, black and white declared": Messy(ASKED, pairs(MASK, (0, 1)), {"palette": [BLACK, WHITE]}),
    "0 alone": Messy(REFUSED, pairs(values(0, 0), (0, 0))),
    "255 means ignore, declared": Messy(REFUSED, pairs(PURE, (0, 255)), {"ignore": (255,)}),
    "three classes declared, 0 and 255": Messy(ASKED, pairs(PURE, (0, 1)), OWN),
    # Colours
    "colours without a palette": Messy(ASKED, pairs(values(BLACK, RED, BLUE))),
    "colours of a palette": Messy(RIGHT, pairs(values(BLACK, RED, BLUE)), THREE),
    "colours of a palette, one ignored": Messy(
        RIGHT, pairs(values(BLACK, RED, BLUE), (0, 1, 255)), {"palette": [BLACK, RED], "ignore": (BLUE,)}
    ),
    "grey levels of 16 bits as a palette": Messy(
        RIGHT, pairs(values(0, 7, dtype=np.uint16), (0, 1)), {"palette": [BLACK, (7, 7, 7)]}
    ),
    "white on transparent pixels": Messy(RIGHT, pairs(values((255, 255, 255, 0), (255, 255, 255, 255)), (0, 1))),
    "a colour that the palette lacks": Messy(ASKED, pairs(values(BLACK, RED, GREEN)), THREE),
    "colours off by 3": Messy(ASKED, pairs(values((3, 0, 0), RED, BLUE)), THREE),
    "red and blue exchanged by OpenCV": Messy(
        ASKED, pairs(values(*(color[::-1] for color in CITY))), {"palette": CITY}
    ),
    "two tasks with exchanged colours": Messy(
        SHOWN, pairs(alternating(values(BLACK, RED, BLUE), values(BLACK, BLUE, RED))), THREE
    ),
    "soft colours": Messy(ASKED, pairs(softened(values(BLACK, RED, BLUE))), THREE),
    "colours as JPEG": Messy(REFUSED, pairs(values(BLACK, RED, BLUE), mask="masks/{:02}.jpg", quality=95), THREE),
    "CARLA: ids in the red channel": Messy(ASKED, pairs(values((0, 0, 0), (1, 0, 0), (2, 0, 0)))),
    "viridis": Messy(ASKED, pairs(colored("viridis"))),
    "a colour for each object": Messy(ASKED, pairs(objects_in_color, (0, 1))),
    "masks blended with their images": Messy(ASKED, pairs(blended)),
    "ink on transparent pixels": Messy(ASKED, pairs(transparent)),
    "photographs as masks": Messy(ASKED, pairs(lambda labels, index: scene(index + 50)[0])),
    "grey photographs as masks": Messy(ASKED, pairs(lambda labels, index: scene(index + 50)[0][..., 0])),
    "palette files": Messy(RIGHT, pairs(palette_file(BLACK, RED, BLUE))),
    "palette files, one palette shuffled in each": Messy(ASKED, pairs(shuffled_palettes)),
    "one coloured mask among ids": Messy(ASKED, pairs(some(values(BLACK, RED, BLUE), IDS))),
    "one coloured mask among declared ids": Messy(REFUSED, pairs(some(values(BLACK, RED, BLUE), IDS)), OWN),
    "CMYK masks": Messy(
        REFUSED,
        pairs(lambda labels, index: Image.fromarray(scene(index)[0]).convert("CMYK"), mask="masks/{:02}.jpg"),
    ),
    "RGBA masks of equal channels": Messy(RIGHT, pairs(values((0, 0, 0, 255), (255, 255, 255, 255)), (0, 1))),
    # Images and masks that do not belong together
    "masks transposed": Messy(REFUSED, pairs(turned(np.transpose))),
    "masks mirrored": Messy(SHOWN, pairs(turned(np.fliplr))),
    "masks upside down": Messy(SHOWN, pairs(turned(np.flipud))),
    "a third of the masks mirrored": Messy(SHOWN, pairs(turned(np.fliplr, 3))),
    "masks shifted by 10 pixels": Messy(SHOWN, pairs(turned(lambda labels: np.roll(labels, 10, 1)))),
    "masks of other images": Messy(SHOWN, other_images),
    "masks of half the size": Messy(REFUSED, pairs(turned(lambda labels: labels[::2, ::2]))),
    "masks resized with interpolation": Messy(SHOWN, pairs(resized, (0, 2, 4))),
    "classes exchanged in half of the masks": Messy(SHOWN, pairs(alternating(IDS, values(0, 2, 1)))),
    "masks of which nobody labelled the last third": Messy(SHOWN, pairs(lambda labels, index: labels * (index < 7))),
    "the same mask for all images": Messy(SHOWN, pairs(lambda labels, index: scene(0)[1])),
    "a phone photo with EXIF that the mask lacks": Messy(
        REFUSED, also(pairs(image="images/{:02}.jpg"), exif("images/03.jpg", 6))
    ),
    "a damaged mask": Messy(REFUSED, also(pairs(), lambda root: (root / "masks/03.png").write_bytes(b"\x89PNG"))),
    "an empty image": Messy(REFUSED, also(pairs(), lambda root: (root / "images/03.png").write_bytes(b""))),
    "a text file as a mask": Messy(REFUSED, also(pairs(), text("masks/03.png", "no mask"))),
    # Places
    "an image without a mask": Messy(RIGHT, also(pairs(), lambda root: (root / "masks/03.png").unlink())),
    "files of macOS and Windows": Messy(RIGHT, also(pairs(), text("masks/._01.png", "x"), text("Thumbs.db", "x"))),
    "masks next to images": Messy(RIGHT, pairs(image="{:02}.jpg", mask="{:02}_mask.png")),
    "nnU-Net": Messy(RIGHT, pairs(image="imagesTr/c_{:02}_0000.png", mask="labelsTr/c_{:02}.png")),
    "img_ and lbl_": Messy(RIGHT, pairs(image="images/img_{:02}.png", mask="masks/lbl_{:02}.png")),
    "two forms of é": Messy(RIGHT, pairs(image="images/\u00e9{:02}.png", mask="masks/e\u0301{:02}.png")),
    "no masks": Messy(ASKED, also(pairs(), lambda root: shutil.rmtree(root / "masks"))),
    "one mask of ten": Messy(REFUSED, also(pairs(), without(*range(1, 10)))),
    "val without masks": Messy(
        REFUSED,
        also(
            pairs(image="train/images/{:02}.png", mask="train/masks/{:02}.png"),
            lambda root: write(root / "val/images/10.png", scene(10)[0]),
        ),
    ),
    "images of one name in two folders": Messy(
        REFUSED, also(pairs(image="images/a/{:02}.png"), lambda root: write(root / "images/b/03.png", scene(3)[0]))
    ),
    "two masks of an image": Messy(REFUSED, also(pairs(), lambda root: write(root / "masks/03_mask.png", scene(3)[1]))),
    "two kinds of masks": Messy(ASKED, also(pairs(), lambda root: pairs(mask="labels/{:02}.png")(root) and None)),
    "unknown names of folders": Messy(ASKED, pairs(image="field/{:02}.png", mask="truth_of_field/{:02}.png")),
    "names that differ, with equal numbers": Messy(RIGHT, pairs(image="images/a{:02}.png", mask="masks/x{:02}y.png")),
}


def source_of(row: Messy, root: Path) -> DataSource:
    return build_data({**named_data(str(root))[0], **row.settings})


def become(row: Messy, root: Path) -> str:
    """Return what becomes of a folder in training."""
    truth = row.draw(root)
    try:
        source = source_of(row, root)
        datasets: dict[str, Any] = {split: source.dataset(split) for split in ("train", "val")}
        data, _ = check_splits(datasets)
    except CrispsegError as error:
        return ASKED if isinstance(error, Question) or error.settings else REFUSED
    wrong = [split for split in datasets if not right(datasets[split], truth, root)]
    if not wrong:
        return RIGHT
    reports = {report.split: report for report in data.reports}
    seen = any(visible(datasets[split], reports[split], truth, root) for split in wrong)
    return SHOWN if seen else WRONG


def true_labels(dataset: FileDataset, truth: Truth, root: Path) -> list[Labels]:
    return [truth[pair.image.relative_to(root).as_posix()] for pair in dataset.pairs]


def right(dataset: FileDataset, truth: Truth, root: Path) -> bool:
    """Return whether labels are exact; lossy masks may be off at edges."""
    true = true_labels(dataset, truth, root)
    wrong = [np.mean(dataset.read_labels(index) != labels) for index, labels in enumerate(true)]
    return max(wrong) <= (VISIBLE if dataset.lookup.tolerance else 0)


class TrueDataset(FileDataset):
    """The same images with their true labels."""

    truth: list[Labels]

    def read_labels(self, index: int) -> Labels:
        return self.truth[index]


def visible(dataset: FileDataset, report: SplitReport, truth: Truth, root: Path) -> bool:
    """Return whether the table of classes, or the picture, differs from that of the true labels."""
    labels = true_labels(dataset, truth, root)
    stacked = np.stack(labels)
    labelled = max(np.mean(stacked != IGNORE), 1e-9)
    for label, share in enumerate(report.shares):
        if abs(np.mean(stacked == label) / labelled - share) > VISIBLE:
            return True
    true = TrueDataset(dataset.pairs, dataset.labels, dataset.lookup)
    true.truth = [np.where(mask < len(report.labels), mask, IGNORE).astype(np.uint8) for mask in labels]
    return bool(np.mean(draw_data(dataset, report) != draw_data(true, report)) > VISIBLE)


def main() -> int:
    """Print what becomes of each folder; the exit status is 1 if it is not what is written."""
    differing = 0
    for name, row in FOLDERS.items():
        with tempfile.TemporaryDirectory() as place:
            outcome = become(row, Path(place))
        differing += outcome != row.outcome
        print(f"{outcome:8} {name}" + f"  (expected: {row.outcome})" * (outcome != row.outcome), flush=True)
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
