"""Tiny folders of own data, drawn by code: each row of `ROWS` draws one, and says what is told of it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.formula import picture, write_png

COUNT = 6
RED, BLUE, BLACK, WHITE = (255, 0, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)
Draw = Callable[[int], NDArray[Any]]


@dataclass(frozen=True)
class Row:
    """Draws a folder; flags of `train` that say what it means; splits to look at; whether it is silently misread."""

    draw: Callable[[Path], None]
    flags: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train",)
    wrong: bool = False


Place = partial(Row, splits=("train", "val"))
"""A row that is about which images are in which split."""


def size(index: int) -> tuple[int, int]:
    """Of image and mask; each has its own, so that the pixels of a split tell which images are in it."""
    return 40, 40 + 2 * index


def photo(index: int) -> NDArray[np.uint8]:
    return picture(size(index), index)


def mask(index: int, values: Sequence[int] = (0, 1), dtype: Any = np.uint8) -> NDArray[Any]:
    """The second value has 2^index pixels, each further one 20, and the first the rest."""
    flat = np.full(np.prod(size(index)), values[0], dtype)
    if len(values) > 1:
        flat[: 2**index] = values[1]
    for place, value in enumerate(values[2:], 2):
        flat[20 * place : 20 * place + 20] = value
    return flat.reshape(size(index))


def colored(index: int, colors: Sequence[tuple[int, ...]]) -> NDArray[np.uint8]:
    """A mask of these colours."""
    return np.array(colors, np.uint8)[mask(index, range(len(colors)))]


def own(
    root: Path,
    values: Sequence[int] | Draw = (0, 1),
    *,
    image: str = "images/{}.png",
    label: str = "masks/{}.png",
    indices: Sequence[int] = range(COUNT),
    dtype: Any = np.uint8,
    drawn: Draw = photo,
    palette: Sequence[int] | None = None,
) -> None:
    """Images and masks in files of these names."""
    for index in indices:
        write_png(root / image.format(index), drawn(index))
        pixels = values(index) if callable(values) else mask(index, values, dtype)
        write_png(root / label.format(index), pixels, palette)


def then(*steps: Callable[[Path], Any]) -> Callable[[Path], None]:
    """One step after the other."""

    def draw(root: Path) -> None:
        for step in steps:
            step(root)

    return draw


def text(name: str, content: str) -> Callable[[Path], Any]:
    """Writes a file of text."""

    def write(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")

    return write


def without(name: str) -> Callable[[Path], Any]:
    return lambda root: (root / name).unlink()


def masks_of(**options: Any) -> Callable[[Path], None]:
    return partial(own, **options)


def in_splits(image: str, label: str, **parts: str) -> Callable[[Path], None]:
    """Four images in the first split, and the two others in the second."""
    places = dict(zip(parts.values(), (range(4), (4, 5)), strict=False))
    return then(
        *(
            partial(own, image=image.replace("@", part), label=label.replace("@", part), indices=indices)
            for part, indices in places.items()
        )
    )


def packed(root: Path, values: Sequence[int], bits: int) -> None:
    """Palette masks of a few bits a pixel."""
    own(root)
    for index in range(COUNT):
        drawn = Image.fromarray(mask(index, values))
        drawn.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
        drawn.save(root / f"masks/{index}.png", bits=bits)


def one_bit(root: Path) -> None:
    own(root)
    for index in range(COUNT):
        Image.fromarray(mask(index).astype(bool)).save(root / f"masks/{index}.png")


def swapped_palettes(root: Path) -> None:
    """Programs that number the colours of each file anew."""
    own(root, (0, 1, 2), palette=(*BLACK, *RED, *BLUE))
    write_png(root / "masks/0.png", mask(0, (0, 2, 1)), (*BLACK, *BLUE, *RED))


def soft(index: int) -> NDArray[np.uint8]:
    """Black and white with every grey between."""
    y, x = np.mgrid[: size(index)[0], : size(index)[1]]
    return np.uint8(np.clip(128 + 12 * (np.hypot(y - 20, x - 20) - 12), 0, 255))


def numbered(index: int, dtype: Any = np.uint8, count: int = 30) -> NDArray[Any]:
    """Objects that are numbered from 1, of 16 pixels, on nothing."""
    height, width = size(index)
    y, x = np.mgrid[:height, :width]
    ids = (y // 8) * (width // 8) + x // 8 + 1
    return np.where((y % 8 < 4) & (x % 8 < 4) & (ids <= count), ids, 0).astype(dtype)


def mixed(root: Path) -> None:
    own(root)
    own(root, (0, 255), indices=(1, 2))


def turned(root: Path) -> None:
    """A JPEG that is stored on its side, whose mask is upright."""
    own(root)
    (root / "images/3.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(photo(3)).copy()).save(root / "images/3.jpg", exif=exif, quality=95)


def accents(root: Path) -> None:
    """Names in two normal forms of Unicode."""
    for index in range(COUNT):
        write_png(root / "images" / unicodedata.normalize("NFC", f"é{index}.png"), photo(index))
        write_png(root / "masks" / unicodedata.normalize("NFD", f"é{index}.png"), mask(index))


def cut(name: str) -> Callable[[Path], Any]:
    """The first half of a file."""
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[: (root / name).stat().st_size // 2])


def other_size(root: Path) -> None:
    own(root)
    write_png(root / "masks/2.png", mask(3))


NAMED = "--data.classes=[ground, road]"
THREE = "--data.classes=[a, b, c]"
COLORS = "--data.palette=[[0,0,0],[255,0,0]]"
INSTANCES = ("--data.root=null", "--data.images=@/images", "--data.instances=@/numbers")

ROWS: dict[str, Row] = {
    # Values
    "0 and 1": Row(own),
    "0 and 255": Row(masks_of(values=(0, 255))),
    "0 and 254": Row(masks_of(values=(0, 254))),
    "0, 1, 2": Row(masks_of(values=(0, 1, 2))),
    "0, 1 and void 255": Row(masks_of(values=(0, 1, 255))),
    "0, 128, 255": Row(masks_of(values=(0, 128, 255))),
    "0, 85, 170, 255": Row(masks_of(values=(0, 85, 170, 255))),
    "1 and 2": Row(masks_of(values=(1, 2))),
    "0 and 10": Row(masks_of(values=(0, 10))),
    "0 alone": Row(masks_of(values=(0,))),
    "1 alone": Row(masks_of(values=(1,))),
    "255 alone": Row(masks_of(values=(255,))),
    "0 and 1 here, 0 and 255 there": Row(mixed),
    "20 classes": Row(masks_of(values=range(20))),
    "soft edges": Row(masks_of(values=soft), wrong=True),
    "soft edges, two classes declared": Row(masks_of(values=soft), ("--data.num_classes=2",)),
    "grey photographs": Row(masks_of(values=lambda index: photo(index)[..., 0]), wrong=True),
    "photographs": Row(masks_of(values=photo)),
    "numbered objects": Row(masks_of(values=numbered)),
    "few numbered objects": Row(masks_of(values=partial(numbered, count=5))),
    # Kinds of files
    "RGB of equal channels, 0 and 255": Row(masks_of(values=lambda index: colored(index, (BLACK, WHITE)))),
    "two colours": Row(masks_of(values=lambda index: colored(index, (BLACK, RED)))),
    "two colours, declared": Row(masks_of(values=lambda index: colored(index, (BLACK, RED))), (COLORS,)),
    "three colours, two declared": Row(masks_of(values=lambda index: colored(index, (BLACK, RED, BLUE))), (COLORS,)),
    "three colours, one ignored": Row(
        masks_of(values=lambda index: colored(index, (BLACK, RED, BLUE))), (COLORS, "--data.ignore=[[0,0,255]]")
    ),
    "colours in a file": Row(
        then(
            masks_of(values=lambda index: colored(index, (BLACK, RED))),
            text("colors.txt", "0 0 0 ground\n255 0 0 red one\n"),
        ),
        ("--data.palette=@/colors.txt",),
    ),
    "black and white declared, masks of 0 and 1": Row(own, ("--data.palette=[[0,0,0],[255,255,255]]",)),
    "RGBA": Row(masks_of(values=lambda index: colored(index, ((0, 0, 0, 255), (255, 255, 255, 255))))),
    "palette files": Row(masks_of(values=(0, 1, 2), palette=(*BLACK, *RED, *BLUE))),
    "palette files with other colours": Row(swapped_palettes),
    "16 bits, 0 and 1": Row(masks_of(dtype=np.uint16)),
    "16 bits, 0 and 65535": Row(masks_of(values=(0, 65535), dtype=np.uint16)),
    "16 bits, 0, 1, 65535": Row(masks_of(values=(0, 1, 65535), dtype=np.uint16)),
    "1 bit": Row(one_bit),
    "2 bits, void became 3": Row(partial(packed, values=(0, 1, 3), bits=2)),
    "JPEG masks": Row(masks_of(values=(0, 255), label="masks/{}.jpg")),
    "float TIFF masks": Row(masks_of(label="masks/{}.tif", dtype=np.float32)),
    "float TIFF masks, 0 to 1": Row(masks_of(values=lambda index: soft(index) / np.float32(255), label="masks/{}.tif")),
    "16-bit images": Row(masks_of(drawn=lambda index: photo(index)[..., 0].astype(np.uint16) * 16)),
    "a turned JPEG": Row(turned),
    "a mask that is cut off": Row(then(own, cut("masks/2.png"))),
    "an image that is cut off": Row(then(own, cut("images/2.png"))),
    "a mask that is text": Row(then(own, text("masks/2.png", "no picture"))),
    # Places
    "masks beside images": Place(masks_of(image="{}.jpg", label="{}_mask.png")),
    "masks beside images in splits": Place(in_splits("@/{}.jpg", "@/{}_mask.png", train="train", val="val")),
    "img_dir and ann_dir": Place(in_splits("img_dir/@/{}.png", "ann_dir/@/{}.png", train="train", val="val")),
    "splits in images": Place(in_splits("images/@/{}.png", "masks/@/{}.png", train="training", val="validation")),
    "splits outside": Place(in_splits("@/images/{}.png", "@/masks/{}.png", train="train", val="val")),
    "splits outside, no val": Place(in_splits("@/images/{}.png", "@/masks/{}.png", train="train")),
    "images in splits, masks in one folder": Place(
        in_splits("images/@/{}.png", "masks/{}.png", train="train", val="val")
    ),
    "nnU-Net": Place(masks_of(image="imagesTr/{}_0000.png", label="labelsTr/{}.png")),
    "val without masks": Place(
        then(
            in_splits("@/images/{}.png", "@/masks/{}.png", train="train"),
            lambda r: write_png(r / "val/images/9.png", photo(1)),
        )
    ),
    "lists": Place(then(own, text("train.txt", "0\n1\n2.png\n"), text("val.txt", "images/3.png\n4\n"))),
    "a list for val": Place(then(own, text("val.txt", "3\n5\n"))),
    "a list with an unknown name": Place(then(own, text("val.txt", "3\n77\n"))),
    "lists that overlap": Place(then(own, text("train.txt", "0\n1\n2\n"), text("val.txt", "2\n3\n"))),
    "sub-folders of images alone": Place(masks_of(image="images/a/{}.png")),
    "two sub-folders with the same names": Place(
        then(masks_of(image="images/a/{}.png"), lambda root: write_png(root / "images/b/1.png", photo(1)))
    ),
    "accents": Place(accents),
    "hidden files": Place(
        then(own, text("images/.DS_Store", "x"), text("masks/._1.png", "x"), text("masks/Thumbs.db", "x"))
    ),
    "an image without mask": Place(then(own, without("masks/2.png"))),
    "a mask without image": Place(then(own, without("images/2.png"))),
    "hardly any partners": Place(
        then(
            own,
            *(without(f"masks/{index}.png") for index in range(5)),
            *(without(f"images/{index}.png") for index in (5,)),
        )
    ),
    "two masks for an image": Place(then(own, lambda root: write_png(root / "masks/1_mask.png", mask(1)))),
    "no masks": Place(then(own, *(without(f"masks/{index}.png") for index in range(COUNT)))),
    "masks of another size": Place(other_size),
    # Declared
    "names, black and white": Row(masks_of(values=(0, 255)), (NAMED,)),
    "three names, black and white": Row(masks_of(values=(0, 255)), (THREE,)),
    "names in a file": Row(then(own, text("classes.txt", "ground\nroad\n"))),
    "fewer classes than occur": Row(masks_of(values=(0, 1, 2)), ("--data.num_classes=2",)),
    "names and another number": Row(own, (NAMED, "--data.num_classes=3")),
    "a value to ignore": Row(masks_of(values=(0, 1, 7)), ("--data.ignore=[7]",)),
    "255 to ignore": Row(masks_of(values=(0, 255)), ("--data.ignore=[255]", "--data.num_classes=2")),
    "0 to ignore": Row(masks_of(values=(0, 1, 2)), ("--data.ignore=[0]",)),
    "none for val": Row(own, ("--data.val_ratio=0",)),
    "another seed": Place(own, ("--data.seed=5",)),
    "a fold": Place(own, ("--data.folds=3", "--data.fold=2")),
    "instances": Row(masks_of(values=numbered, label="numbers/{}.png"), INSTANCES),
    "instances of 16 bits, with names": Row(
        masks_of(values=partial(numbered, dtype=np.uint16), label="numbers/{}.png"), (*INSTANCES, THREE)
    ),
    "instances and masks": Row(
        then(own, masks_of(values=numbered, label="numbers/{}.png")), (*INSTANCES, "--data.masks=@/masks")
    ),
}
