"""Readers of masks whose meaning is declared: instance masks, and colours of a palette."""

from __future__ import annotations

from crispseg.folders.lookup import INSTANCE_CLASSES, ColorLookup, InstanceLookup
from crispseg.folders.meaning import Declared, Meaning
from crispseg.folders.readers.reader import Masks, Reader


class Instances(Reader):
    """Masks that number objects, with the classes background, object and border."""

    def fits(self, declared: Declared, masks: Masks) -> bool:
        return declared.instances

    def meaning(self, declared: Declared, masks: Masks) -> Meaning:
        return Meaning(declared.labels(len(INSTANCE_CLASSES)), InstanceLookup())


class Palette(Reader):
    """Masks of declared colours; a grey value v is the colour (v, v, v)."""

    def fits(self, declared: Declared, masks: Masks) -> bool:
        return declared.palette is not None

    def meaning(self, declared: Declared, masks: Masks) -> Meaning:
        assert declared.palette is not None
        lookup = ColorLookup(declared.palette, declared.ignore, tolerance=declared.tolerance, adjustable=True)
        return Meaning(declared.labels(len({*declared.palette.values()})), lookup)
