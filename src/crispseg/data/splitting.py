"""Dividing images into those to train and those to validate on, where nobody says which are which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from crispseg.config.wording import plural
from crispseg.data.pairing import few, pairing_fault
from crispseg.errors import CrispsegError


def shared_out(names: Sequence[str], ratio: float, seed: int, where: Path) -> dict[str, list[str]]:
    """Names divided by the share of val, drawn by the seed; where it is not 0 or 1, both splits get some.

    Raises:
        CrispsegError: there are not two names for two splits; the message says `where`.
    """
    count = round(ratio * len(names))
    if 0 < ratio < 1:
        if len(names) < 2:
            what = "one image" if names else "no image"
            raise CrispsegError(f"{where} holds {what} to train and to validate on; two or more are needed")
        count = min(max(count, 1), len(names) - 1)
    order = np.random.default_rng(seed).permutation(len(names))
    return _divided(names, {names[index] for index in order[:count]})


def folded(names: Sequence[str], folds: int, fold: int, seed: int) -> dict[str, list[str]]:
    """Names divided into parts of equal size, drawn by the seed, of which number `fold`, from 1 on, is val.

    Raises:
        CrispsegError: there are fewer names than parts.
    """
    if len(names) < folds:
        most = f"give {len(names)}" if len(names) > 1 else "label more"
        raise CrispsegError(f"data.folds is {folds}, but there are {plural(len(names), 'image')}; {most}")
    order = np.random.default_rng(seed).permutation(len(names))
    return _divided(names, {names[index] for index in order[fold - 1 :: folds]})


def refuse_shared(names: Mapping[str, Sequence[str]], lists: Mapping[str, Path]) -> None:
    """Refuse names that stand in the lists of two splits; where faults are collected, these are found anyway.

    Raises:
        CrispsegError: there are some.
    """
    for one, other in combinations(names, 2):
        if both := sorted({*names[one]} & {*names[other]}):
            stand = "1 image stands" if len(both) == 1 else f"{len(both)} images stand"
            pairing_fault(
                f"{stand} in both {lists[one]} and {lists[other]}: {few(both)}; validate on images that are not "
                "trained on"
            )


def _divided(names: Sequence[str], val: set[str]) -> dict[str, list[str]]:
    return {"train": [name for name in names if name not in val], "val": sorted(val)}
