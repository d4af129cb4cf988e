"""Keys that several commands share, and their functions."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from crispseg.cli.command import Command
from crispseg.config.files import real_path
from crispseg.config.settings import Field, Tree, checked, fields_of, options_of
from crispseg.inference.protocols import Protocol, named_protocol
from crispseg.io.files import write_file


@dataclass(kw_only=True)
class WithDevice(Command):
    """Base of commands that run a model.

    Args:
        device: cpu or cuda; the default is CUDA if available.
    """

    device: str | None = None


@dataclass(kw_only=True)
class WithOptions(Command):
    """Base of commands with the keyword arguments of a function as further keys."""

    function: ClassVar[Callable[..., Any]]
    options: Tree = field(init=False)  # given keyword arguments

    @classmethod
    def more_keys(cls, tree: Tree) -> dict[str, dict[str, Field]]:
        others = {*fields_of(cls), "console", "data"}
        options = {key: option for key, option in options_of(cls.function).items() if key not in others}
        return {"Options": options, **super().more_keys(tree)}

    def take(self, tree: Tree) -> None:
        self.options = taken(tree, self.more_keys({})["Options"])
        super().take(tree)


VIEWS = fields_of(Protocol)
del VIEWS["average"]


@dataclass(kw_only=True)
class WithProtocol(WithOptions):
    """Base of commands that also have the fields of a `Protocol` as keys.

    Args:
        protocol: name of the inference protocol, see docs/recipes.md.
    """

    protocol: str = "whole"

    @classmethod
    def more_keys(cls, tree: Tree) -> dict[str, dict[str, Field]]:
        return {**super().more_keys(tree), "The protocol": VIEWS}

    def take(self, tree: Tree) -> None:
        """Set the arguments; given fields override those of the protocol."""
        views = taken(tree, VIEWS)
        if "window" in views:  # the preset's stride belongs to the preset's window
            views = {"stride": None} | views
        super().take(tree)
        self.options["protocol"] = dataclasses.replace(named_protocol(self.protocol), **views)


def taken(tree: Tree, known: Mapping[str, Field]) -> Tree:
    """Remove the known keys from a tree, and return their checked values."""
    return {key: checked(known[key].kind, tree.pop(key), key) for key in known if key in tree}


def short_names(runs: Sequence[str]) -> list[str]:
    """Return the last parts of paths, or the whole paths if the last parts are not unique."""
    names = [real_path(run).name for run in runs]
    return names if len({*names}) == len(names) else [*runs]


def show_page(path: Path, html: str) -> None:
    """Write a page and report it on stderr, because results may be printed as JSON."""
    write_file(path, html)
    print(f"{path} written; open it in a browser", file=sys.stderr)
