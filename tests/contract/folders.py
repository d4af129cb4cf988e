"""Tiny folders of own data, drawn by code: each row of `ROWS` draws one, and says what is told of it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.formula import picture, write_png

COUNT = 6
RED, BLUE, BLACK, WHITE = (255, 0, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)
Draw = Callable[[int], NDArray[Any]]
Step = Callable[[Path], Any]


class Row(NamedTuple):
    """Steps that draw a folder; flags of `train`, `@` for the folder; splits to look at."""

    steps: tuple[Step, ...]
    flags: tuple[str, ...]
    splits: tuple[str, ...]


def row(*steps: Step, flags: str = "", both: bool = False) -> Row:
    return Row(steps, (*flags.split(),), ("train", "val") if both else ("train",))


def place(*steps: Step, flags: str = "") -> Row:
    """A row that is about which images are in which split."""
    return row(*steps, flags=flags, both=True)


def size(index: int) -> tuple[int, int]:
    """Of image and mask; each has its own, so that the pixels of a split tell which images are in it."""
    return 40, 40 + 2 * index


def photo(index: int) -> NDArray[np.uint8]:
    return picture(size(index), index)


def grey(index: int) -> NDArray[np.uint8]:
    return photo(index)[..., 0]


def mask(index: int, values: Sequence[int] = (0, 1), dtype: Any = np.uint8) -> NDArray[Any]:
    """The second value has 2^index pixels, each further one 20, and the first the rest."""
    flat = np.full(np.prod(size(index)), values[0], dtype)
    if len(values) > 1:
        flat[: 2**index] = values[1]
    for at, value in enumerate(values[2:], 2):
        flat[20 * at : 20 * at + 20] = value
    return flat.reshape(size(index))


def rgb(*colors: tuple[int, ...]) -> Draw:
    """Masks of these colours."""
    return lambda index: np.array(colors, np.uint8)[mask(index, range(len(colors)))]


def soft(index: int) -> NDArray[np.uint8]:
    """Black and white with every grey between."""
    y, x = np.mgrid[: size(index)[0], : size(index)[1]]
    return np.uint8(np.clip(128 + 12 * (np.hypot(y - 20, x - 20) - 12), 0, 255))


def numbered(index: int, count: int = 30) -> NDArray[np.uint8]:
    """Objects that are numbered from 1, of 16 pixels, on nothing."""
    y, x = np.mgrid[: size(index)[0], : size(index)[1]]
    ids = (y // 8) * (size(index)[1] // 8) + x // 8 + 1
    return np.where((y % 8 < 4) & (x % 8 < 4) & (ids <= count), ids, 0).astype(np.uint8)


def of(
    values: Sequence[int] | Draw = (0, 1),
    image: str = "images/{}.png",
    label: str = "masks/{}.png",
    *,
    indices: Sequence[int] = range(COUNT),
    dtype: Any = np.uint8,
    drawn: Draw = photo,
    palette: Sequence[int] | None = None,
) -> Step:
    """Images and masks in files of these names."""

    def draw(root: Path) -> None:
        for index in indices:
            write_png(root / image.format(index), drawn(index))
            pixels = values(index) if callable(values) else mask(index, values, dtype)
            write_png(root / label.format(index), pixels, palette)

    return draw


def parts(image: str, label: str, first: str, second: str = "") -> Step:
    """Four images in the first split and, where there is one, two in the second."""

    def draw(root: Path) -> None:
        for part, indices in ((first, range(4)), (second, range(4, 6))):
            if part:
                of(image=image.replace("@", part), label=label.replace("@", part), indices=indices)(root)

    return draw


def text(name: str, content: str) -> Step:
    return lambda root: (root / name).write_text(content, encoding="utf-8")


def without(*names: str) -> Step:
    return lambda root: [(root / name).unlink() for name in names]


def png(name: str, pixels: NDArray[Any], *palette: int) -> Step:
    return lambda root: write_png(root / name, pixels, palette or None)


def cut(name: str) -> Step:
    """The first half of a file."""
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[: (root / name).stat().st_size // 2])


def packed(root: Path) -> None:
    """Palette masks of two bits a pixel."""
    for index in range(COUNT):
        drawn = Image.fromarray(mask(index, (0, 1, 3)))
        drawn.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
        drawn.save(root / f"masks/{index}.png", bits=2)


def turned(root: Path) -> None:
    """A JPEG that is stored on its side, whose mask is upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(photo(3)).copy()).save(root / "images/3.jpg", exif=exif, quality=95)


def accents(root: Path) -> None:
    """Names in two normal forms of Unicode."""
    for index in range(COUNT):
        write_png(root / "images" / unicodedata.normalize("NFC", f"é{index}.png"), photo(index))
        write_png(root / "masks" / unicodedata.normalize("NFD", f"é{index}.png"), mask(index))


NAMED, THREE, TWO = "--data.classes=[ground,road]", "--data.classes=[a,b,c]", "--data.num_classes=2"
COLORS, PURE = "--data.palette=[[0,0,0],[255,0,0]]", "--data.palette=[[0,0,0],[255,255,255]]"
OUTSIDE, ALONE = ("@/images/{}.png", "@/masks/{}.png"), "--data.images=@/images --data.instances=@/numbers"

ROWS: dict[str, Row] = {
    # Values
    "0 and 1": row(of()),
    "0 and 255": row(of((0, 255))),
    "0 and 254": row(of((0, 254))),
    "0, 1, 2": row(of((0, 1, 2))),
    "0, 1 and void 255": row(of((0, 1, 255))),
    "0, 128, 255": row(of((0, 128, 255))),
    "0, 85, 170, 255": row(of((0, 85, 170, 255))),
    "1 and 2": row(of((1, 2))),
    "0 and 10": row(of((0, 10))),
    "0 alone": row(of((0,))),
    "1 alone": row(of((1,))),
    "255 alone": row(of((255,))),
    "0 and 1 here, 0 and 255 there": row(of(), of((0, 255), indices=(1, 2))),
    "20 classes": row(of(range(20))),
    "soft edges": row(of(soft)),
    "soft edges, two classes declared": row(of(soft), flags=TWO),
    "grey photographs": row(of(grey)),
    "photographs": row(of(photo)),
    "numbered objects": row(of(numbered)),
    "few numbered objects": row(of(lambda index: numbered(index, 5))),
    # Kinds of files
    "RGB of equal channels, 0 and 255": row(of(rgb(BLACK, WHITE))),
    "two colours": row(of(rgb(BLACK, RED))),
    "two colours, declared": row(of(rgb(BLACK, RED)), flags=COLORS),
    "three colours, two declared": row(of(rgb(BLACK, RED, BLUE)), flags=COLORS),
    "three colours, one ignored": row(of(rgb(BLACK, RED, BLUE)), flags=f"{COLORS} --data.ignore=[[0,0,255]]"),
    "colours in a file": row(
        of(rgb(BLACK, RED)), text("colors.txt", "0 0 0 ground\n255 0 0 red one\n"), flags="--data.palette=@/colors.txt"
    ),
    "black and white declared, masks of 0 and 1": row(of(), flags=PURE),
    "RGBA": row(of(rgb((0, 0, 0, 255), (255, 255, 255, 255)))),
    "palette files": row(of((0, 1, 2), palette=(*BLACK, *RED, *BLUE))),
    "palette files with other colours": row(
        of((0, 1, 2), palette=(*BLACK, *RED, *BLUE)), png("masks/0.png", mask(0, (0, 2, 1)), *BLACK, *BLUE, *RED)
    ),
    "16 bits, 0 and 1": row(of(dtype=np.uint16)),
    "16 bits, 0 and 65535": row(of((0, 65535), dtype=np.uint16)),
    "16 bits, 0, 1, 65535": row(of((0, 1, 65535), dtype=np.uint16)),
    "1 bit": row(of(lambda index: mask(index).astype(bool))),
    "2 bits, void became 3": row(of(), packed),
    "JPEG masks": row(of((0, 255), label="masks/{}.jpg")),
    "float TIFF masks": row(of(label="masks/{}.tif", dtype=np.float32)),
    "float TIFF masks, 0 to 1": row(of(lambda index: soft(index) / np.float32(255), label="masks/{}.tif")),
    "16-bit images": row(of(drawn=lambda index: grey(index).astype(np.uint16) * 16)),
    "a turned JPEG": row(of(), without("images/3.png"), turned),
    "a mask that is cut off": row(of(), cut("masks/2.png")),
    "an image that is cut off": row(of(), cut("images/2.png")),
    "a mask that is text": row(of(), text("masks/2.png", "no picture")),
    # Places
    "masks beside images": place(of(image="{}.jpg", label="{}_mask.png")),
    "masks beside images in splits": place(parts("@/{}.jpg", "@/{}_mask.png", "train", "val")),
    "img_dir and ann_dir": place(parts("img_dir/@/{}.png", "ann_dir/@/{}.png", "train", "val")),
    "splits in images": place(parts("images/@/{}.png", "masks/@/{}.png", "training", "validation")),
    "splits outside": place(parts(*OUTSIDE, "train", "val")),
    "splits outside, no val": place(parts(*OUTSIDE, "train")),
    "images in splits, masks in one folder": place(parts("images/@/{}.png", "masks/{}.png", "train", "val")),
    "nnU-Net": place(of(image="imagesTr/{}_0000.png", label="labelsTr/{}.png")),
    "val without masks": place(parts(*OUTSIDE, "train"), png("val/images/9.png", photo(1))),
    "lists": place(of(), text("train.txt", "0\n1\n2.png\n"), text("val.txt", "images/3.png\n4\n")),
    "a list for val": place(of(), text("val.txt", "3\n5\n")),
    "a list with an unknown name": place(of(), text("val.txt", "3\n77\n")),
    "lists that overlap": place(of(), text("train.txt", "0\n1\n2\n"), text("val.txt", "2\n3\n")),
    "sub-folders of images alone": place(of(image="images/a/{}.png")),
    "two sub-folders with the same names": place(of(image="images/a/{}.png"), png("images/b/1.png", photo(1))),
    "accents": place(accents),
    "hidden files": place(
        of(), *(text(name, "x") for name in ("images/.DS_Store", "masks/._1.png", "masks/Thumbs.db"))
    ),
    "an image without mask": place(of(), without("masks/2.png")),
    "a mask without image": place(of(), without("images/2.png")),
    "hardly any partners": place(of(), without(*(f"masks/{index}.png" for index in range(5)), "images/5.png")),
    "two masks for an image": place(of(), png("masks/1_mask.png", mask(1))),
    "no masks": place(of(), without(*(f"masks/{index}.png" for index in range(COUNT)))),
    "masks of another size": place(of(), png("masks/2.png", mask(3))),
    # Declared
    "names, black and white": row(of((0, 255)), flags=NAMED),
    "three names, black and white": row(of((0, 255)), flags=THREE),
    "names in a file": row(of(), text("classes.txt", "ground\nroad\n")),
    "fewer classes than occur": row(of((0, 1, 2)), flags=TWO),
    "names and another number": row(of(), flags=f"{NAMED} --data.num_classes=3"),
    "a value to ignore": row(of((0, 1, 7)), flags="--data.ignore=[7]"),
    "255 to ignore": row(of((0, 255)), flags=f"--data.ignore=[255] {TWO}"),
    "0 to ignore": row(of((0, 1, 2)), flags="--data.ignore=[0]"),
    "none for val": row(of(), flags="--data.val_ratio=0"),
    "another seed": place(of(), flags="--data.seed=5"),
    "a fold": place(of(), flags="--data.folds=3 --data.fold=2"),
    "instances": row(of(numbered, label="numbers/{}.png"), flags=ALONE),
    "instances of 16 bits, with names": row(
        of(lambda index: numbered(index).astype(np.uint16), label="numbers/{}.png"), flags=f"{ALONE} {THREE}"
    ),
    "instances and masks": row(of(), of(numbered, label="numbers/{}.png"), flags=f"{ALONE} --data.masks=@/masks"),
}
