"""Readers of mask values: what values and colours mean, or a question to the user."""

from __future__ import annotations

from pathlib import Path

from crispseg.folders.meaning import Declared, Meaning
from crispseg.folders.readers.black_and_white import BlackAndWhite
from crispseg.folders.readers.declared import Instances, Palette
from crispseg.folders.readers.ids import Ids
from crispseg.folders.readers.question import question_about
from crispseg.folders.readers.reader import Masks, Reader

DECLARED: list[Reader] = [Instances(), Palette()]  # the first that fits, if any
READERS: list[Reader] = [BlackAndWhite(), Ids()]  # for masks without a declared meaning


def read(declared: Declared, masks: Masks, place: Path, instances: Path | None = None) -> Meaning:
    """Return the meaning of the masks in `place`, with merged and dropped classes.

    `instances` is their folder, if it may be given as `data.instances` instead of `data.masks`.

    If no reader or several fit, a `Question` names what the masks contain, and the settings to choose from.
    """
    declared_readers = [reader for reader in DECLARED if reader.fits(declared, masks)]
    fitting = declared_readers[:1] or [reader for reader in READERS if reader.fits(declared, masks)]
    if len(fitting) != 1:
        raise question_about(declared, masks, place, instances)
    return fitting[0].meaning(declared, masks).regrouped(declared.merge, declared.drop)
