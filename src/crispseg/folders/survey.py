"""The survey of all files of a data set: the only reader of files before training.

Each file is opened once, in one of several threads, and not at all if it did not change since an earlier survey.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from crispseg.errors import CrispsegError
from crispseg.folders.cache import FileState, recall, remember
from crispseg.folders.facts import ImageFacts, MaskFacts, read_image_facts, read_mask_facts
from crispseg.io.parallel import parallel, tried

Facts = TypeVar("Facts")


class Pair(NamedTuple):
    """An image file and the mask file that belongs to it."""

    name: str
    image: Path
    mask: Path


class PairFacts(NamedTuple):
    """Facts of a pair in a split, or the error of a file that cannot be read."""

    split: str
    pair: Pair
    image: ImageFacts | CrispsegError
    mask: MaskFacts | CrispsegError


class ReadablePair(NamedTuple):
    """Facts of a pair of which both files can be read."""

    split: str
    pair: Pair
    image: ImageFacts
    mask: MaskFacts


@dataclass(frozen=True)
class Survey:
    """Facts of the pairs of a data set, split by split."""

    pairs: tuple[PairFacts, ...]

    @classmethod
    def of(cls, splits: Mapping[str, Sequence[Pair]], threads: int | None = None) -> Survey:
        """Read the files of all splits; a file in several splits is read once."""
        pairs: list[tuple[str, Pair]] = []
        for split, inside in splits.items():
            pairs += [(split, pair) for pair in inside]
        images = read_facts("image", read_image_facts, (pair.image for _, pair in pairs), threads)
        masks = read_facts("mask", read_mask_facts, (pair.mask for _, pair in pairs), threads)
        return cls(tuple(PairFacts(split, pair, images[pair.image], masks[pair.mask]) for split, pair in pairs))

    @cached_property
    def images(self) -> list[ImageFacts]:
        """Readable images, each once."""
        return unique(pair.image for pair in self.pairs if isinstance(pair.image, ImageFacts))

    @cached_property
    def masks(self) -> list[MaskFacts]:
        """Readable masks, each once."""
        return unique(pair.mask for pair in self.pairs if isinstance(pair.mask, MaskFacts))

    @cached_property
    def readable(self) -> list[ReadablePair]:
        """Pairs of which both files can be read."""
        return [
            ReadablePair(split, pair, image, mask)
            for split, pair, image, mask in self.pairs
            if isinstance(image, ImageFacts) and isinstance(mask, MaskFacts)
        ]

    @cached_property
    def errors(self) -> dict[Path, CrispsegError]:
        """Errors of files that cannot be read."""
        images = {pair.image: facts for _, pair, facts, _ in self.pairs if isinstance(facts, CrispsegError)}
        masks = {pair.mask: facts for _, pair, _, facts in self.pairs if isinstance(facts, CrispsegError)}
        return images | masks


def unique(facts: Iterable[Any]) -> list[Any]:
    """Return facts without repeated files, which may be in several splits."""
    return list({content.file: content for content in facts}.values())


def read_facts(
    kind: str, read: Callable[[Path], Facts], paths: Iterable[Path], threads: int | None = None
) -> dict[Path, Facts | CrispsegError]:
    """Return the facts of files, by their paths. Errors are not cached, since they may be those of a network."""
    states = {path: FileState.of(path) for path in paths}
    known = recall(kind, (state for state in states.values() if state))
    facts: dict[Path, Facts | CrispsegError] = {path: known[state] for path, state in states.items() if state in known}
    unknown = [path for path in states if path not in facts]
    facts |= zip(unknown, parallel(tried(read), unknown, f"Reading {kind}s", threads), strict=True)
    fresh = [(states[path], facts[path]) for path in unknown if not isinstance(facts[path], CrispsegError)]
    remember(kind, [(state, content) for state, content in fresh if state])
    return facts
