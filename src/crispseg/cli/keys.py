"""Keys that several commands have."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from crispseg.cli.command import Command
from crispseg.errors import CrispsegError
from crispseg.inference.objects import ObjectRule
from crispseg.inference.protocols import Protocol, named_protocol
from crispseg.labels import LabelSet


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
        """Return the protocol that the keys describe.

        Raises:
            CrispsegError: no such protocol, or values that make none.
        """
        given = ("scales", "flip", "random_views", "seed", "window", "stride", "longer_side", "shorter_side")
        changes: dict[str, Any] = {key: getattr(self, key) for key in given if getattr(self, key) is not None}
        if "scales" in changes:
            changes["scales"] = tuple(changes["scales"])
        if "window" in changes:
            changes.setdefault("stride", None)  # that of the preset belongs to its own window
            changes["window"] = changes["window"] or None
        return dataclasses.replace(named_protocol(self.protocol), **changes)


@dataclass(kw_only=True)
class WithObjects(Command):
    """Commands that know single objects.

    Args:
        objects: also write or score the single objects of this class.
        objects_border: class of the pixels between objects, into which they are grown back.
    """

    objects: str | None = None
    objects_border: str | None = None

    def chosen_objects(self, labels: LabelSet) -> ObjectRule | None:
        """Return which pixels make up the objects that are asked for; None if none are.

        Raises:
            CrispsegError: a class of that name is not among the labels, or one is named twice.
        """
        return None if self.objects is None else ObjectRule.named(labels, self.objects, self.objects_border)

    def check_objects(self) -> None:
        """Refuse a border without objects, before a model is loaded."""
        if self.objects is None and self.objects_border is not None:
            raise CrispsegError(f"is {self.objects_border}; name the class of the objects too", "objects_border")
