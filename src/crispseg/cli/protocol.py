"""`--protocol NAME` and the keys that change it, for the commands that predict."""

from __future__ import annotations

import dataclasses
from typing import Any

from jsonargparse import Namespace

from crispseg.cli.parsing import Parser
from crispseg.errors import CrispsegError
from crispseg.inference.protocols import PROTOCOLS, Protocol, named_protocol


def add_protocol_keys(parser: Parser) -> None:
    """`--protocol`, and a key for each field that a user may change."""
    group = parser.add_argument_group("How the model sees an image; docs/protocols.md")
    group.add_argument("--protocol", default="whole", help=f"one of {', '.join(PROTOCOLS)}")
    group.add_argument("--scales", type=float, nargs="+", metavar="FACTOR", help="its scales, such as 0.5 1 2")
    group.add_argument("--flip", type=bool | None, default=None, help="mirror every scale too: true or false")
    group.add_argument("--window", type=int | None, default=None, help="side in pixels of sliding windows; 0 for none")
    group.add_argument("--stride", type=int | None, default=None, help="pixels from window to window")
    for side in ("longer", "shorter"):
        explained = f"pixels to which the {side} side is brought first; scales are relative to that"
        group.add_argument(f"--{side}_side", type=int | None, default=None, help=explained)


def chosen_protocol(parsed: Namespace) -> Protocol:
    """The protocol that parsed keys describe.

    Raises:
        CrispsegError: no such protocol, or values that make none.
    """
    protocol = named_protocol(parsed.protocol)
    changes: dict[str, Any] = {
        name: value
        for name in ("flip", "window", "stride", "longer_side", "shorter_side")
        if (value := getattr(parsed, name)) is not None
    }
    if parsed.scales is not None:
        changes["scales"] = tuple(parsed.scales)
    if "window" in changes:
        changes.setdefault("stride", None)  # that of the preset belongs to its own window
        changes["window"] = changes["window"] or None
    try:
        return dataclasses.replace(protocol, **changes)
    except CrispsegError as error:
        raise CrispsegError(f"--{error}") from None
