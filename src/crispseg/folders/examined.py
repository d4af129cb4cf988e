"""What is known of a data set after its files were read: the subject of all checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from crispseg.errors import CrispsegError, Question
from crispseg.folders.facts import MaskFacts
from crispseg.folders.finding import Finding
from crispseg.folders.lookup import MaskLookup
from crispseg.folders.meaning import Meaning
from crispseg.folders.report import SplitReport, report_of
from crispseg.folders.survey import PairFacts, Survey
from crispseg.io.opening import check_channels
from crispseg.labels import LabelSet


@dataclass(frozen=True)
class Examined:
    """Facts of the files of a data set, and what its masks and folders mean."""

    survey: Survey
    meaning: Meaning | None = None  # of the masks; None if it is unclear
    question: Question | None = None  # why it is unclear
    channels: int = 3  # of the images, see `read_image`
    unpaired: Mapping[str, Sequence[str]] = field(default_factory=dict)  # code of a finding → files in no split
    unavailable: Mapping[str, str] = field(default_factory=dict)  # split → why it cannot be read
    places: Mapping[Path, PurePosixPath] = field(default_factory=dict)  # image → path in its folder, without suffix
    group: str | None = None  # pattern of the images that belong together, see `data.group`
    shared_on_purpose: bool = False  # whether train includes val

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Split → number of pairs."""
        return Counter(split for split, _ in self.survey.pairs)

    @property
    def files(self) -> bool:
        """Whether the samples are files."""
        return all(pair.mask.is_file() for _, pair in self.survey.pairs[:1])

    @property
    def lookup(self) -> MaskLookup:
        """Class of each mask value; only if the meaning is clear."""
        assert self.meaning is not None
        return self.meaning.lookup

    @property
    def labels(self) -> LabelSet:
        """Names of the classes; only if the meaning is clear."""
        assert self.meaning is not None
        return self.meaning.labels

    @cached_property
    def unusable(self) -> dict[str, str]:
        """Error of each file that cannot be decoded, is a lossy mask of exact values, or has other channels."""
        errors = {str(path): str(error) for path, error in self.survey.errors.items()}
        if self.meaning and not self.lookup.tolerance:
            errors |= {mask.file: mask.lossy for mask in self.survey.masks.values() if mask.lossy}
        for image in self.survey.images.values():
            try:
                check_channels(image.file, image.color, image.bands, self.channels)
            except CrispsegError as error:
                errors[image.file] = str(error)
        return errors

    @cached_property
    def masks(self) -> list[MaskFacts]:
        """Masks whose values can be used."""
        return [mask for mask in self.survey.masks.values() if mask.file not in self.unusable]

    @cached_property
    def decodable(self) -> list[PairFacts]:
        """Pairs of an image and a mask that can be used."""
        return [pair for pair in self.survey.readable if {pair.image.file, pair.mask.file}.isdisjoint(self.unusable)]

    @cached_property
    def reports(self) -> list[SplitReport]:
        """Statistics of the splits with any decodable pair."""
        if self.meaning is None:
            return []
        masks: dict[str, list[MaskFacts]] = {}
        for pair in self.decodable:
            masks.setdefault(pair.split, []).append(pair.mask)
        return [report_of(split, self.meaning, masks[split]) for split in self.sizes if split in masks]


Check: TypeAlias = Callable[[Examined], Finding | None]


def if_clear(check: Check) -> Check:
    """Return a check that is left out if the meaning of the masks is unclear."""
    return lambda data: check(data) if data.meaning else None
