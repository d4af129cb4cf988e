"""Which image and which mask belong together, by folders or by lists; and what is said where they do not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from crispseg.data.archives import waiting_archive
from crispseg.data.base import Pair, read_lines
from crispseg.errors import CrispsegError
from crispseg.imaging import SUFFIXES, find_images

PairingKind: TypeAlias = Literal["image-without-mask", "mask-without-image", "ambiguous-names", "listed-file-missing"]

_MASK_ENDING = re.compile(r"[-_](masks?|labels?|gt|seg|L)$")


class PairingFault(NamedTuple):
    """A kind of fault and the files, or the entries of a list, that have it."""

    kind: PairingKind
    files: tuple[str, ...]


_collected: ContextVar[list[PairingFault] | None] = ContextVar("_collected", default=None)


@contextmanager
def collected_faults() -> Iterator[list[PairingFault]]:
    """Within it, data sources leave out files that do not pair, and list them here, where they would raise."""
    faults: list[PairingFault] = []
    token = _collected.set(faults)
    try:
        yield faults
    finally:
        _collected.reset(token)


def pairing_fault(message: str, *found: tuple[PairingKind, Iterable[object]]) -> None:
    """Report files that do not pair, of one kind or several.

    Raises:
        CrispsegError: the message, outside of `collected_faults`.
    """
    faults = _collected.get()
    if faults is None:
        raise CrispsegError(message)
    new = (PairingFault(kind, tuple(map(str, files))) for kind, files in found)
    faults += [fault for fault in new if fault.files and fault not in faults]


def pair_below(images: Path, image_ending: str, masks: Path, mask_ending: str, hint: str) -> list[Pair]:
    """Pair the images and masks in two folders, sub-folders included, whose paths differ by their endings only.

    Args:
        hint: ends an error: what belongs where and where to get it.

    Raises:
        CrispsegError: a folder is missing or empty, or a file has no partner.
    """
    image_of, mask_of = _files_below(images, image_ending, hint), _files_below(masks, mask_ending, hint)
    return _joined(image_of, mask_of, images, masks, hint)


def pair_listed(listing: Path, images: Path, image_ending: str, masks: Path, mask_ending: str, hint: str) -> list[Pair]:
    """The pairs that a text file names, one a line: the stem of the line's first word is what both files begin with.

    Raises:
        CrispsegError: the list is missing or empty, or a file is missing.
    """
    stems = dict.fromkeys(Path(line.split()[0]).stem for line in read_listing(listing, hint))
    pairs = [Pair(stem, images / (stem + image_ending), masks / (stem + mask_ending)) for stem in stems]
    return present(pairs, listing, hint)


def present(pairs: list[Pair], listing: Path, hint: str) -> list[Pair]:
    """The pairs that a list names, without those of which a file is missing.

    Raises:
        CrispsegError: there are some, outside of `collected_faults`.
    """
    missing = [file for pair in pairs for file in (pair.image, pair.mask) if not file.is_file()]
    if missing:
        message = f"{len(missing)} of the {2 * len(pairs)} files that {listing} names are missing, first {missing[0]}"
        pairing_fault(f"{message}; {hint}", ("listed-file-missing", missing))
    lost = set(missing)
    return [pair for pair in pairs if not lost & {pair.image, pair.mask}]


def read_listing(listing: Path, hint: str) -> list[str]:
    """The lines of a list that belongs to a data set, as `read_lines`; `hint` says where the list is to be had."""
    if not listing.is_file():
        raise CrispsegError(f"{listing} is missing{waiting_archive(listing)}; {hint}")
    return read_lines(listing)


def match(images: Path, masks: Path) -> dict[str, Pair]:
    """Pair images with masks by their path in the folder without suffix; sorted by that name.

    Raises:
        CrispsegError: a folder is missing or empty, two files have one name, or a file has no partner.
    """
    if images.resolve() == masks.resolve():
        raise CrispsegError(f"images and masks are the same folder, {images}; put them into two")
    image_of, mask_of = _by_name(images, masks), _by_name(masks, images)
    for name, paths in [*image_of.items(), *mask_of.items()]:
        if len(paths) > 1:
            message = f"{paths[0]} and {paths[1]} have the same name; rename or remove one of them"
            pairing_fault(message, ("ambiguous-names", paths))
            image_of.pop(name, None)  # which of them is meant is not known
            mask_of.pop(name, None)
    for name in sorted(mask_of.keys() - image_of.keys()):
        base = _MASK_ENDING.sub("", name)
        if base not in image_of:
            continue
        if base not in mask_of:
            mask_of[base] = mask_of.pop(name)
            continue
        both = mask_of.pop(base) + mask_of.pop(name)
        del image_of[base]
        pairing_fault(
            f"two masks fit one image: {both[0]} and {both[1]}; remove one of them", ("ambiguous-names", both)
        )
    hint = "give both the same names, or move the extra ones away"
    first_of, second_of = ({name: paths[0] for name, paths in sorted(found.items())} for found in (image_of, mask_of))
    return {pair.name: pair for pair in _joined(first_of, second_of, images, masks, hint)}


def few(items: Iterable[object], most: int = 5) -> str:
    """The first few, to be named in an error."""
    shown = list(map(str, items))
    return ", ".join(shown[:most]) + (", …" if len(shown) > most else "")


def _joined(image_of: dict[str, Path], mask_of: dict[str, Path], images: Path, masks: Path, hint: str) -> list[Pair]:
    """The pairs of what two folders hold, by name; files without a partner are a fault."""
    no_mask, no_image = sorted(image_of.keys() - mask_of.keys()), sorted(mask_of.keys() - image_of.keys())
    parts = []
    if no_mask:
        parts.append(f"{len(no_mask)} of {len(image_of)} images in {images} have no mask in {masks} ({few(no_mask)})")
    if no_image:
        parts.append(f"{len(no_image)} of {len(mask_of)} masks in {masks} have no image in {images} ({few(no_image)})")
    if parts:
        pairing_fault(
            f"{' and '.join(parts)}; {hint}",
            ("image-without-mask", (image_of[name] for name in no_mask)),
            ("mask-without-image", (mask_of[name] for name in no_image)),
        )
    return [Pair(name, image_of[name], mask_of[name]) for name in image_of if name in mask_of]


def _files_below(folder: Path, ending: str, hint: str) -> dict[str, Path]:
    """Files by their path in the folder without the ending; hidden ones are left out."""
    for level in (*reversed(folder.parents), folder):
        if not level.is_dir():
            what = "no folder" if level.exists() else "missing"
            raise CrispsegError(f"{level} is {what}{waiting_archive(level)}; {hint}")
    paths = sorted(path for path in folder.rglob(f"*{ending}") if not path.name.startswith("."))
    if not paths:
        raise CrispsegError(f"{folder} holds no files *{ending}; {hint}")
    return {path.relative_to(folder).as_posix().removesuffix(ending): path for path in paths}


def _by_name(folder: Path, other: Path) -> dict[str, list[Path]]:
    """Files by their path in the folder without suffix, except those in the other folder if that lies inside."""
    root, beside = folder.resolve(), other.resolve()
    inside = folder / beside.relative_to(root) if beside.is_relative_to(root) else None
    files: dict[str, list[Path]] = {}
    for path in find_images(folder):
        if inside is None or not path.is_relative_to(inside):
            files.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    if not files:
        raise CrispsegError(f"{folder} holds no images; known suffixes: {', '.join(sorted(SUFFIXES))}")
    return files
