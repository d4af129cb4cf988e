"""Corrected copies of data. Pairs with faults that have no safe correction are left out and listed.

The copy is always a folder of custom data, with images/SPLIT, masks/SPLIT and classes.txt. Masks are palette PNGs of
class ids, and images are copied byte for byte.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from crispseg.errors import CrispsegError
from crispseg.folders.examined import Examined
from crispseg.folders.finding import FINDING_KINDS, Finding, Severity
from crispseg.folders.meaning import Meaning
from crispseg.folders.names import write_names
from crispseg.folders.survey import PairFacts
from crispseg.io.files import atomic_folder, write_file
from crispseg.io.images import write_labels
from crispseg.io.parallel import parallel

LEFT_OUT = "left_out.txt"
DROP = "drop"  # fix of kinds: leave the pair out


def worth_a_copy(data: Examined, findings: Sequence[Finding]) -> bool:
    """Return whether `write_copy` can write a copy in which a warning or an error is corrected."""
    mended = any(FINDING_KINDS[finding.code].fix and finding.severity > Severity.INFORMATION for finding in findings)
    return mended and data.question is None and bool(sorted_out(data, findings)[0])


def write_copy(data: Examined, findings: Sequence[Finding], out: Path) -> str:
    """Write the corrected copy, which is created only when it is complete, and return a summary in one line.

    A `CrispsegError` is raised if the meaning of the masks is unclear, or if no pair can be kept.
    """
    if data.question:
        raise CrispsegError(f"{out} is not written: {data.question}")
    pairs, left_out = sorted_out(data, findings)
    if not pairs:
        raise CrispsegError(f"{out}: there is no pair that can be kept; correct the data by hand")
    meaning = Meaning(data.labels, data.lookup)
    with atomic_folder(out) as folder:
        write_names(folder / "classes.txt", meaning.labels.names)
        list(parallel(lambda pair: write_pair(pair, meaning, folder), pairs, "Writing"))
        if left_out:
            write_file(folder / LEFT_OUT, "".join(f"{file}: {code}\n" for file, code in left_out.items()))
    numbers = Counter(pair.split for pair in pairs)
    counts = ", ".join(f"{split} {number}" for split, number in numbers.items())
    summary = f"wrote {out}: {counts} pairs; {len(left_out)} left out"
    return f"{summary}, see {out / LEFT_OUT}" if left_out else summary


def sorted_out(data: Examined, findings: Sequence[Finding]) -> tuple[list[PairFacts], dict[str, str]]:
    """Return the pairs to copy, one of each group of equal images, and file → why it is left out."""
    left_out: dict[str, str] = {}
    for finding in findings:
        if FINDING_KINDS[finding.code].fix == DROP:
            left_out |= {file: finding.code for file in finding.files if file not in left_out}
    order = list(data.sizes)
    copied: dict[bytes | str, PairFacts] = {}
    for pair in sorted(data.decodable, key=lambda pair: -order.index(pair.split)):  # later splits keep their images
        image = pair.image
        if left_out.keys() & {image.file, pair.mask.file}:
            continue
        first = copied.setdefault(image.file if image.constant else image.digest, pair)
        if first.image.file != image.file:
            left_out[image.file] = "duplicate-image" if first.split == pair.split else "image-in-two-splits"
    return [*copied.values()], left_out


def write_pair(pair: PairFacts, meaning: Meaning, root: Path) -> None:
    """Write the image and the class ids of a pair."""
    name, file = pair.pair.name, pair.pair.image
    image = root / "images" / pair.split / (name + file.suffix)
    image.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, image)
    labels = meaning.lookup(meaning.lookup.read(pair.pair.mask))
    write_labels(root / "masks" / pair.split / f"{name}.png", labels, meaning.labels.palette)
