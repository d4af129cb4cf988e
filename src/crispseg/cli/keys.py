"""Keys that several commands have, and what they do with them."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crispseg.cli.command import STDOUT, Command
from crispseg.config.settings import Tree
from crispseg.errors import CrispsegError
from crispseg.inference.protocols import Protocol, named_protocol
from crispseg.io.files import atomic_path
from crispseg.visualization.pages import check_page, write_page


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


def short_names(runs: Sequence[str]) -> list[str]:
    """Return the last parts of paths, or the paths if these are not all different."""
    names = [Path(run).resolve().name for run in runs]
    return names if len({*names}) == len(names) else [*runs]


def check_json(path: Path | None) -> None:
    """Check, before long work starts, that JSON can be written there. Raises as `check_page`."""
    if path not in (None, STDOUT):
        check_page(path, ".json")


def show_page(path: Path, html: str) -> None:
    """Write a page and say so, on stderr, since scores may be printed as JSON."""
    write_page(path, html)
    print(f"{path} written; open it in a browser", file=sys.stderr)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a file of scores, or print them."""
    text = json.dumps(values, indent=2, ensure_ascii=False)
    if path == STDOUT:
        print(text)
        return
    with atomic_path(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")
