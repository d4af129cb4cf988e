"""What a command is: a dataclass whose fields are its keys, which are read from the words of a command line."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args, get_origin

from rich.console import Console

from crispseg.config.registry import load_plugins
from crispseg.config.settings import (
    Entries,
    Field,
    Text,
    Tree,
    accepted,
    alternatives,
    construct,
    fields_of,
    unknown,
    written,
)
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
        own = _data_keys([]) if "data" in fields else {}
        data = tree.pop("data", {}) if own else {}
        for key in [key for key in tree if key not in fields]:
            if f"data.{key}" not in own:
                raise unknown(key, [*known, *own])
            data[key] = tree.pop(key)  # keys of own data may stand alone
        command = construct(cls, tree)
        if own:
            command.data = data  # type: ignore[attr-defined]
        load_plugins(command.plugins)
        return command

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
            default = "" if each.default is None else f", default: {written(each.default)}"
            default = ", required" if each.default is MISSING else default
            lines.append(f"  {key}" if key.isupper() else f"  --{key}  ({accepted(each.kind)}{default})")
            lines.append(textwrap.fill(each.about, width, initial_indent=" " * 8, subsequent_indent=" " * 8))
    lines += ["", f"{program} --help all explains every key." if first else "  --help  this page"]
    return "\n".join(line for at, line in enumerate(lines) if line.strip() or (not line and lines[at - 1]))


FLAG = re.compile(r"--?[a-zA-Z]")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
SHORT = {"-o": "--out", "-h": "--help"}
BOOLEANS = ("true", "false", "yes", "no", "on", "off", "null")


def read_flags(
    argv: Sequence[str], kinds: Mapping[str, Any], *, groups: Collection[str] = (), words: int = 0
) -> tuple[list[str], Tree]:
    """Return the words of a command line that belong to no flag, and its flags as a tree whose values are `Text`.

    A flag is `--key value`, `--key=value`, or `--key` alone if it is true or false; keys have `-` or `_`. Lists are
    written `'[0.5, 1]'`, or as several values; a list of texts that is given again gets longer.

    Args:
        argv: what was typed.
        kinds: the types of the keys, as far as they are known yet.
        groups: keys that have keys of their own, as `augment.crop`; of `data` and `model` the value itself is the name.
        words: how many words that belong to no flag come at least; before, a list of texts takes one value only.

    Raises:
        CrispsegError: a flag has no value.
    """
    found: list[str] = []
    tree: Tree = {}
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        if not FLAG.match(token):
            found.append(token)
            continue
        name, equals, value = SHORT.get(token, token).lstrip("-").partition("=")
        key = name.replace("-", "_")
        kind = kinds.get(key, bool | str if key.startswith("model.") else str)
        values = [value] if equals else _values(rest, kind, key, several=len(found) >= words)
        _put(tree, key, [Text(each) for each in values], kind, groups)
    return found, tree


def _values(rest: list[str], kind: Any, key: str, *, several: bool) -> list[str]:
    """The values of a flag, taken from the front of the words that follow it."""
    kinds = list(alternatives(kind))
    items = [item for each in kinds if get_origin(each) in (list, tuple) for item in get_args(each)]
    single = [each for each in kinds if get_origin(each) not in (list, tuple) and each is not type(None)]
    first = rest[0] if rest and not FLAG.match(rest[0]) else None
    if bool in kinds and (first is None or (single == [bool] and first.lower() not in BOOLEANS)):
        return ["true"]
    texts = bool(items) and not single and (items[0] is str or get_origin(items[0]) is Literal)
    if items and not single and not texts and first is not None and not (first[0] in "[n" or NUMBER.fullmatch(first)):
        return []
    if first is None:
        if items and not single:
            return []
        raise CrispsegError(f"has no value; give {accepted(kind)}", key)
    values = [rest.pop(0)]
    if items and not first.startswith("["):
        numbers = not texts and NUMBER.fullmatch(first)
        while rest and ((texts and several and not FLAG.match(rest[0])) or (numbers and NUMBER.fullmatch(rest[0]))):
            values.append(rest.pop(0))
    return values


def _put(tree: Tree, key: str, values: list[Text], kind: Any, groups: Collection[str]) -> None:
    """Put the values of a flag where its key says."""
    first, *inner = key.split(".")
    if first in groups and not inner:
        inner = ["name"]
    for part, following in zip([first, *inner], inner, strict=False):
        new = {} if part == first and first in groups else Entries()
        tree[part] = below = tree.get(part, new) if isinstance(tree.get(part, new), dict) else new
        tree, first = below, following
    value: Any = values[0] if len(values) == 1 else values
    if kind == list[str] and first in tree:
        before = tree[first] if isinstance(tree[first], list) else [tree[first]]
        value = [*before, *values]
    tree[first] = value
