"""The kinds of findings: code, severity, what it is and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, NamedTuple


class Severity(IntEnum):
    """An error stops training or makes scores wrong; a warning may cost quality; information is worth knowing."""

    INFORMATION = 0
    WARNING = 1
    ERROR = 2

    def __str__(self) -> str:
        return self.name.lower()


class Kind(NamedTuple):
    """A kind of finding."""

    severity: Severity
    meaning: str
    remedy: str
    fix: str = ""
    """What `--fix` does about it; empty where nothing."""


@dataclass(frozen=True)
class Finding:
    """One kind of fault, and where it was found."""

    code: str
    severity: Severity
    message: str
    remedy: str
    count: int
    """Of files, pairs or classes."""
    files: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    """Numbers for the JSON report."""

    def less(self) -> Finding:
        """The same as mere information."""
        return replace(self, severity=Severity.INFORMATION)


def finding(
    code: str,
    message: str,
    files: Iterable[object] = (),
    *,
    count: int | None = None,
    remedy: str | None = None,
    severity: Severity | None = None,
    **details: Any,
) -> Finding:
    """A finding of a kind in `KINDS`, whose severity and remedy it has unless they are given."""
    kind = KINDS[code]
    names = tuple(map(str, files))
    return Finding(
        code,
        kind.severity if severity is None else severity,
        message,
        kind.remedy if remedy is None else remedy,
        len(names) if count is None else count,
        names,
        details,
    )


def worst(findings: Sequence[Finding]) -> Severity:
    """The highest severity; information where there are no findings."""
    return max((one.severity for one in findings), default=Severity.INFORMATION)


def plural(count: int, noun: str, verb: tuple[str, str] | None = None) -> str:
    """`3 images`, `1 image has`."""
    words = f"{count} {noun}{'' if count == 1 else 's'}"
    return f"{words} {verb[count != 1]}" if verb else words


_OUT = "leaves the pair out"
_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFORMATION

KINDS: dict[str, Kind] = {
    # Files that cannot be read
    "empty-file": Kind(_E, "A file of 0 bytes.", "restore or remove it, and its partner", _OUT),
    "unreadable-file": Kind(_E, "A truncated or damaged file.", "restore or remove it, and its partner", _OUT),
    "missing-file": Kind(
        _E, "A file that is missing, such as a link that leads nowhere.", "restore it, or remove the link", _OUT
    ),
    "no-permission": Kind(_E, "A file that this user is not allowed to read.", "change its permissions", _OUT),
    "no-image-format": Kind(_E, "A file in no known image format.", "convert it to PNG or JPEG", _OUT),
    "too-large": Kind(
        _E, "The header claims over 134 million pixels; the file is not decoded.", "cut it into smaller images", _OUT
    ),
    "value-range-unknown": Kind(
        _E, "An image of float or 32-bit values.", "scale it to 8 or 16 bits, all images alike", _OUT
    ),
    "channel-missing": Kind(
        _E, "An image without the fourth channel that the model takes.", "add the channel, or use in_chans 3", _OUT
    ),
    "unusable-mask": Kind(
        _E,
        "A mask whose format, mode or values cannot be class ids, such as PGM, CMYK or float.",
        "save it as 8-bit PNG",
        _OUT,
    ),
    # Files that do not belong together
    "image-without-mask": Kind(_E, "An image without a mask.", "add the mask or move the image away", _OUT),
    "mask-without-image": Kind(_E, "A mask without an image.", "add the image or move the mask away", _OUT),
    "ambiguous-names": Kind(
        _E, "Several images or masks that one name could mean.", "rename or remove all but one", _OUT
    ),
    "listed-file-missing": Kind(
        _E, "A list names a file that is missing.", "restore the file or remove the line from the list", _OUT
    ),
    "in-no-split": Kind(
        _I,
        "Images beside the folders of the splits, or that neither list names: nothing reads them.",
        "nothing needs to be done, if they are left out on purpose",
    ),
    "split-unavailable": Kind(_E, "A split that cannot be read at all.", "see the message"),
    "sizes-differ": Kind(
        _E,
        "An image and its mask differ in size.",
        "resize one of them, a mask with nearest-neighbour interpolation",
        _OUT,
    ),
    "exif-rotation": Kind(
        _E,
        "EXIF turns an image by a quarter but not its mask, or the mask but not its image, so that their sizes differ.",
        "turn the other one too, or remove the orientation from the file that has it",
        "turns the mask as its image is turned",
    ),
    "exif-unclear": Kind(
        _W,
        "EXIF turns or mirrors an image and its mask differently, and the sizes do not tell whether they fit.",
        "look at the pair; if the mask does not fit, remove the orientation from the file that has it",
    ),
    # What the masks hold
    "value-out-of-range": Kind(
        _E,
        "A mask value that means no class.",
        "correct the mask, or give --data.num_classes, or --data.ignore for values that mean ignore",
        "ignores the values (255) where they are at most 1 % of a mask, else leaves the pair out",
    ),
    "unknown-color": Kind(
        _E,
        "A mask colour that is not in the palette.",
        "add it to --data.palette or to --data.ignore, or correct the mask",
        "ignores them (255) where they are at most 1 % of a mask, else leaves the pair out",
    ),
    "black-and-white-masks": Kind(
        _E,
        "All masks hold 0 and 255, but 255 means ignore in masks of class ids.",
        "give --data.palette '[[0,0,0],[255,255,255]]'",
        "writes 0 and 1",
    ),
    "black-and-white-mask": Kind(
        _W,
        "Single masks hold 0 and 255 and nothing else, and the others hardly use 255.",
        "make sure that 255 means ignore here, not a class",
    ),
    "rgb-masks": Kind(
        _E,
        "Masks with colours, and no palette that says what they mean.",
        "give the palette",
        "writes ids in the order of the proposed palette, where all masks have colours",
    ),
    "one-based-ids": Kind(
        _E,
        "Class ids start at 1: 0 does not occur, and the last id is one too large or class 0 stays empty.",
        "write masks with ids from 0, with 255 where nothing is labelled",
        "subtracts 1 where all masks start at 1, else leaves the pair out",
    ),
    "sparse-ids": Kind(
        _E,
        "Few values, far between, such as 0, 38, 75: hardly class ids, rather a grey picture of them.",
        "say what they mean",
        "writes ids in the order of the values",
    ),
    "lossy-mask": Kind(
        _E,
        "A mask stored as JPEG, in a TIFF too, or as lossy WebP, which changes values along edges.",
        "export the masks again, as PNG",
        _OUT,
    ),
    "interpolated-edges": Kind(
        _W,
        "The steps between areas of a mask pass over values in between: it was resized or turned with interpolation.",
        "make the mask again with nearest-neighbour interpolation",
    ),
    "mask-palettes-differ": Kind(
        _W,
        "Palette masks show one value in different colours: their ids may mean different classes.",
        "make sure that the values, not the colours, are the ids; some programs number colours anew in each file",
    ),
    "mask-alpha": Kind(
        _W,
        "A mask has transparent pixels; alpha is dropped and what lies under it counts.",
        "give transparent pixels the value 255, without alpha",
    ),
    "shared-mask": Kind(
        _W,
        "Different images have the same mask, pixel by pixel, of two or more classes.",
        "make sure that masks were not copied or overwritten",
    ),
    "all-ignored": Kind(_W, "A mask without a labelled pixel.", "label it or remove the pair", _OUT),
    "single-class-mask": Kind(
        _I, "Masks that hold one class and nothing else.", "make sure that nothing else is to be seen there"
    ),
    # What the splits hold
    "no-labels": Kind(_E, "A split without a labelled pixel.", "give its masks class ids"),
    "one-class-only": Kind(_E, "A training split with one class.", "training needs two classes, check the masks"),
    "class-never-occurs": Kind(
        _W, "A class that occurs in no split.", "check the masks, the number and the order of the classes"
    ),
    "class-in-one-split": Kind(
        _W,
        "A class that some splits lack.",
        "divide the images otherwise; a class that train lacks is not learned, and one that val lacks is not scored",
    ),
    "class-imbalance": Kind(
        _I,
        "A class with less than 1 % of the labelled pixels of train; a warning under 0.01 %.",
        "--class_weights balanced or --loss '{cross_entropy: 1, dice: 1}' may help",
    ),
    "mostly-ignored": Kind(
        _I,
        "More than half of a split's pixels are ignored.",
        "make sure that 255, or another ignored value, is no class",
    ),
    "image-in-two-splits": Kind(
        _E,
        "The same picture, by its decoded pixels, in two splits: scores would be of images that were trained on. "
        "Information where --data.train_on trainval asks for it.",
        "keep it in one split",
        "keeps it in the later split, so that val and test stay as they are",
    ),
    "near-duplicate": Kind(
        _W,
        "Pictures in two splits that differ no more than by compression, a change of size or a video frame; "
        "information within one split.",
        "look at them, and keep them in one split",
    ),
    "duplicate-image": Kind(
        _W,
        "The same picture, by its decoded pixels, more than once in a split.",
        "keep one of them",
        "keeps the first, where the masks agree",
    ),
    "contradicting-masks": Kind(_W, "The same picture with different masks.", "keep the right mask"),
    # What the images are like
    "image-alpha": Kind(
        _I,
        "Images with an alpha channel, which is dropped; a warning where pixels are transparent.",
        "remove alpha, or train with --model.in_chans 4 if the fourth channel carries data",
        "writes RGB, where all pixels are opaque",
    ),
    "odd-channels": Kind(
        _W,
        "Images of CMYK or Lab colours, converted to RGB without a colour profile, or with channels beside grey, RGB "
        "and alpha, which are dropped.",
        "convert them to RGB yourself, images to predict alike; a fourth channel can be kept by --model.in_chans 4",
    ),
    "deep-image": Kind(
        _I,
        "Images with 16 bits a channel, scaled to 8 by 1/256; a warning where that leaves under 32 levels.",
        "scale the values to 0 to 65535, all images alike",
    ),
    "mixed-depth": Kind(
        _W, "Images of 8 and of 16 bits a channel together.", "make sure that equal brightness has equal values"
    ),
    "grey-among-color": Kind(
        _I, "Grey images among coloured ones.", "make sure that images to predict come in the same mixture"
    ),
    "constant-image": Kind(_W, "An image of one colour.", "remove the pair, unless it is meant"),
    "tiny-image": Kind(_W, "A side under 32 pixels, which models do not take whole.", "enlarge or remove the pair"),
    "sizes-vary": Kind(
        _I, "Images of different sizes.", "nothing needs to be done: crops have one size, scores take images whole"
    ),
    "wrong-suffix": Kind(
        _I,
        "The suffix is not that of the format; other programs may go by it.",
        "rename the file",
        "gives it the suffix of its format",
    ),
    "several-frames": Kind(
        _W, "A file of several pages or frames, of which the first is read.", "split it into single images"
    ),
}
