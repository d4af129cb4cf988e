"""The survey of all files of a data set: the only reader of files before training.

Each file is opened once, in one of several threads, and not at all if it did not change since an earlier survey.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

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
    """Facts of a pair in a split, of which both files can be read."""

    split: str
    pair: Pair
    image: ImageFacts
    mask: MaskFacts


@dataclass(frozen=True)
class Survey:
    """Facts of the files of a data set that can be read, and errors of the others."""

    pairs: tuple[tuple[str, Pair], ...]  # split and files of each pair
    images: Mapping[Path, ImageFacts]
    masks: Mapping[Path, MaskFacts]
    errors: Mapping[Path, CrispsegError] = field(default_factory=dict)

    @classmethod
    def of(cls, splits: Mapping[str, Sequence[Pair]], threads: int | None = None) -> Survey:
        """Read the files of all splits; a file in several splits is read once."""
        pairs: list[tuple[str, Pair]] = []
        for split, inside in splits.items():
            pairs += [(split, pair) for pair in inside]
        images, image_errors = read_facts("image", read_image_facts, (pair.image for _, pair in pairs), threads)
        masks, mask_errors = read_facts("mask", read_mask_facts, (pair.mask for _, pair in pairs), threads)
        return cls(tuple(pairs), images, masks, image_errors | mask_errors)

    @cached_property
    def readable(self) -> list[PairFacts]:
        """Pairs of which both files can be read."""
        return [
            PairFacts(split, pair, self.images[pair.image], self.masks[pair.mask])
            for split, pair in self.pairs
            if pair.image in self.images and pair.mask in self.masks
        ]


def read_facts(
    kind: str, read: Callable[[Path], Facts], paths: Iterable[Path], threads: int | None = None
) -> tuple[dict[Path, Facts], dict[Path, CrispsegError]]:
    """Return the facts of files, and errors. Errors are not cached, since they may be those of a network."""
    states = {path: FileState.of(path) for path in paths}
    known = recall(kind, filter(None, states.values()))
    facts: dict[Path, Facts] = {path: known[state] for path, state in states.items() if state in known}
    errors: dict[Path, CrispsegError] = {}
    unknown = [path for path in states if path not in facts]
    for path, result in zip(unknown, parallel(tried(read), unknown, f"Reading {kind}s", threads), strict=True):
        if isinstance(result, CrispsegError):
            errors[path] = result
        else:
            facts[path] = result
    new = {state: facts[path] for path, state in states.items() if state and path in facts and state not in known}
    remember(kind, new.items())
    return facts, errors
