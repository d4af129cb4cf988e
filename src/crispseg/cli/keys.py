"""Keys that several commands have, and what they do with them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crispseg.cli.command import STDOUT, Command, WithData
from crispseg.config.settings import Tree
from crispseg.data import DataSource
from crispseg.data.folder_layout import recognise
from crispseg.errors import CrispsegError
from crispseg.evaluation.bootstrap import RESAMPLES
from crispseg.evaluation.evaluate import data_to_score
from crispseg.inference.protocols import Protocol, named_protocol
from crispseg.io.files import atomic_path
from crispseg.training.config import spare_processors
from crispseg.visualization.pages import check_page


@dataclass(kw_only=True)
class WithDevice(Command):
    """Commands that compute.

    Args:
        device: cpu or cuda; by default CUDA if there is one.
    """

    device: str | None = None


@dataclass(kw_only=True)
class WithProtocol(Command):
    """Commands that choose how a model sees an image.

    Args:
        protocol: how the model sees an image, a name of docs/protocols.md.
        scales: its scales, such as 0.5 1 2.
        flip: mirror every scale too.
        random_views: scales drawn at random between the least and the greatest, this many, each mirrored or not.
        seed: of these draws.
        window: side in pixels of sliding windows; 0 for none.
        stride: pixels from window to window.
        longer_side: pixels to which the longer side is brought first; scales are relative to that.
        shorter_side: pixels to which the shorter side is brought first; scales are relative to that.
    """

    protocol: str = "whole"
    scales: list[float] | None = None
    flip: bool | None = None
    random_views: int | None = None
    seed: int | None = None
    window: int | None = None
    stride: int | None = None
    longer_side: int | None = None
    shorter_side: int | None = None

    def chosen_protocol(self) -> Protocol:
        """Return the protocol that the keys describe; a `CrispsegError` if they describe none."""
        keys = ("scales", "flip", "random_views", "seed", "window", "stride", "longer_side", "shorter_side")
        given: Tree = {key: getattr(self, key) for key in keys if getattr(self, key) is not None}
        if "window" in given:  # the stride of the preset belongs to its own window
            given = {"stride": None} | given | {"window": given["window"] or None}
        return dataclasses.replace(named_protocol(self.protocol), **given)


@dataclass(kw_only=True)
class WithObjects(Command):
    """Commands that know single objects.

    Args:
        objects: also write or score the single objects of this class.
        objects_border: class of the pixels between objects, into which they are grown back.
    """

    objects: str | None = None
    objects_border: str | None = None

    def take(self, tree: Tree) -> None:
        """Refuse a border without objects."""
        super().take(tree)
        if self.objects is None and self.objects_border is not None:
            raise CrispsegError(f"is {self.objects_border}; name the class of the objects too", "objects_border")


@dataclass(kw_only=True)
class WithScores(WithDevice, WithData):
    """Commands that score.

    Args:
        split: which split; by default val or, of folders other than those that were trained on, test if they have it,
            else all of them.
        bootstrap: resamples for the 95 % intervals over images, at least 40; 0 for none.
        json: also write the scores to this file; - is the standard output.
        html: also write a page to this file.
        workers: processes that load data.
    """

    split: str | None = None
    bootstrap: int = RESAMPLES
    json: Path | None = None
    html: Path | None = None
    workers: int = field(default_factory=spare_processors)

    def data_to_score(self, run: str, folder: str | None = None) -> tuple[DataSource, str]:
        """Return the data to score a run on, those of a folder if one is named, and the split, after checks."""
        if 0 < self.bootstrap < 40:  # of which one can lie outside of a 95 % interval on each side
            raise CrispsegError(f"is {self.bootstrap}; give at least 40 resamples, or 0 for none", "bootstrap")
        if self.html:
            check_page(self.html)
        check_json(self.json)
        return data_to_score(run, {**(recognise(Path(folder)) if folder else {}), **self.data}, self.split)


def short_names(runs: Sequence[str]) -> list[str]:
    """Return the last parts of paths, or the paths if these are not all different."""
    names = [Path(run).resolve().name for run in runs]
    return names if len({*names}) == len(names) else [*runs]


def check_json(path: Path | None) -> None:
    """Check, before long work starts, that JSON can be written there. Raises as `check_page`."""
    if path not in (None, STDOUT):
        check_page(path, ".json")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a file of scores, or print them."""
    text = json.dumps(values, indent=2, ensure_ascii=False)
    if path == STDOUT:
        print(text)
        return
    with atomic_path(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")
