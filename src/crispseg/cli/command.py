"""What a command is: a dataclass whose fields are its keys, and which does its work when it is called."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, get_origin

from rich.console import Console

from crispseg.cli.flags import read_flags
from crispseg.config.plugins import load_plugins
from crispseg.config.settings import Field, Tree, construct, fields_of, unknown
from crispseg.config.wording import accepted, written
from crispseg.errors import CrispsegError

STDOUT = Path("-")
"""Stands for the standard output where a file is written."""
HELP = ("-h", "--help")
DATA = "The data; --data NAME says which, folder for your own"


@dataclass(kw_only=True)
class Command(ABC):
    """Base of the commands. The docstring of one describes it, and its fields are its keys."""

    name: ClassVar[str]
    words: ClassVar[tuple[str, ...]] = ()
    """Fields that are given without a flag, in this order; the last may be a list."""
    first: ClassVar[tuple[str, ...]] = ()
    """Keys on the first page of help; all of them if there are none."""
    flat: ClassVar[str | None] = None
    """A field with settings of its own whose keys stand alone."""
    plugins: list[str] = field(default_factory=list)

    @abstractmethod
    def __call__(self) -> int | None:
        """Do the work; returns the exit status, or None for 0."""

    @classmethod
    def start(cls, argv: Sequence[str]) -> None:
        """Run the command with these words.

        Raises:
            CrispsegError: a word or a flag is wrong, or the work failed.
            SystemExit: help was asked for, or the exit status is not 0.
        """
        if {*HELP} & {*argv}:
            print(cls.help(argv))
            raise SystemExit(0)
        if status := cls.parsed(argv)():
            raise SystemExit(status)

    @classmethod
    def keys(cls) -> dict[str, Field]:
        """Return the fields by key, those of nested settings as `limit.miou`; without `data`."""
        found: dict[str, Field] = {}
        for key, each in fields_of(cls).items():
            if dataclasses.is_dataclass(each.kind):
                before = "" if key == cls.flat else f"{key}."
                found |= {f"{before}{inner}": entry for inner, entry in fields_of(each.kind).items()}  # type: ignore[arg-type]
            elif key != "data":
                found[key] = each
        return found

    @classmethod
    def parsed(cls, argv: Sequence[str]) -> Self:
        """Return the command with the settings that words give; plugins are loaded."""
        known, fields = cls.keys(), fields_of(cls)
        groups = {key for key, each in fields.items() if dataclasses.is_dataclass(each.kind)} | {"data"}
        needed = sum(fields[word].default is MISSING for word in cls.words)
        words, tree = read_flags(
            argv, {key: each.kind for key, each in known.items()}, groups=groups & {*fields}, words=needed
        )
        for word in cls.words:
            if get_origin(fields[word].kind) is list:
                tree[word], words = words, []
            elif words:
                tree[word] = words.pop(0)
            if not tree.get(word) and fields[word].default is MISSING:
                raise CrispsegError(f"{word.upper()} is missing; {cls.usage()}")
        if words:
            raise CrispsegError(f"'{words[0]}' is one word too many; {cls.usage()}")
        if cls.flat:
            tree[cls.flat] = {key: tree.pop(key) for key in [*tree] if key in known and key not in fields}
        data = cls._data_of(tree) if "data" in fields else {}
        for key in tree:
            if key not in fields:
                raise unknown(key, [*known, *(_data_keys([]) if "data" in fields else ())])
        command = construct(cls, tree)
        if "data" in fields:
            command.data = data  # type: ignore[attr-defined]
        load_plugins(command.plugins)
        return command

    @classmethod
    def _data_of(cls, tree: Tree) -> Tree:
        """The settings of the data, taken out of the tree; those of own data may stand alone."""
        data: Tree = tree.pop("data", {})
        known, own = cls.keys(), _data_keys([])
        for key in [key for key in tree if key not in known and f"data.{key}" in own]:
            data[key] = tree.pop(key)
        return data

    @classmethod
    def usage(cls) -> str:
        """Return the line that says how the command is called."""
        fields = fields_of(cls)
        words = [
            f"{word.upper()}{' ...' if get_origin(fields[word].kind) is list else ''}"
            if fields[word].default is MISSING
            else f"[{word.upper()}]"
            for word in cls.words
        ]
        return " ".join(["usage: crispseg", cls.name, *words, "[--key value ...]"])

    @classmethod
    def help(cls, argv: Sequence[str]) -> str:
        """Return the first page of help, or all of it if `all` follows the flag."""
        keys = cls.keys()
        words = {word.upper(): keys.pop(word) for word in cls.words}
        groups = {"": words, "The keys": keys}
        if "data" in fields_of(cls):
            groups[DATA] = _data_keys(argv)
        first = cls.first if argv[-1] != "all" else ()
        return help_page(cls.usage(), inspect.getdoc(cls) or "", groups, f"crispseg {cls.name}", first)


def say(console: Console, line: str) -> None:
    """Print a line as it is, whatever the width of the terminal."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _data_keys(argv: Sequence[str]) -> dict[str, Field]:
    """The keys of the data that words name, by default those of own data."""
    from crispseg.data import DATA_SOURCES, Folder  # which most commands do not need
    from crispseg.data.named import data_fields

    words, tree = read_flags([word for word in argv if word not in (*HELP, "all")], {}, groups=("data",))
    named = next((word for word in words if word in DATA_SOURCES), Folder.name)
    name = str(tree.get("data", {}).get("name", named))
    return {f"data.{key}": each for key, each in data_fields(name).items()}


def help_page(
    usage: str, about: str, groups: Mapping[str, Mapping[str, Field]], program: str, first: Sequence[str] = ()
) -> str:
    """Return a page of help.

    Args:
        usage: its first line.
        about: what the command does; the part of a docstring from "Args:" on is left out.
        groups: heading → keys; upper-case keys are words of the command line.
        program: the command, for the last line.
        first: the keys that are shown; all of them where none are named.
    """
    width = max(60, min(110, shutil.get_terminal_size().columns))
    summary = about.partition("\nArgs:")[0].strip()
    lines = [usage, "", *(textwrap.fill(part, width) for part in summary.split("\n\n"))]
    for heading, keys in groups.items():
        shown = {key: each for key, each in keys.items() if not first or key in first or key.isupper()}
        if shown:
            lines += ["", *([f"{heading}:"] if heading else [])]
        for key, each in shown.items():
            lines.append(f"  {key}" if key.isupper() else f"  --{key}  ({accepted(each.kind)}{_default(each.default)})")
            lines.append(textwrap.fill(each.about, width, initial_indent=" " * 8, subsequent_indent=" " * 8))
    lines += ["", f"{program} --help all explains every key." if first else "  --help  this page"]
    return "\n".join(line for at, line in enumerate(lines) if line.strip() or (not line and lines[at - 1]))


def _default(value: Any) -> str:
    return ", required" if value is MISSING else "" if value is None else f", default: {written(value)}"
