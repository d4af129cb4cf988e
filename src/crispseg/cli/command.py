"""Base of the commands: dataclasses whose fields are their keys, read from the arguments of a command line."""

from __future__ import annotations

import inspect
import itertools
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, get_args, get_origin

from crispseg.cli import HELP, first_page
from crispseg.cli.results import STDOUT, check_json, write_json
from crispseg.config.registry import load_plugins
from crispseg.config.settings import (
    Field,
    Text,
    Tree,
    accepted,
    alternatives,
    construct,
    entry_of,
    fields_of,
    is_pair,
    takes_word,
    unknown,
    written,
)
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.folders.settings import FolderSettings

DATA_HEADING = "The data; --data NAME selects them, folder is for custom data"
commands: dict[str, type[Command]] = {}  # commands by name; each registers itself when its module is imported


@dataclass(kw_only=True)
class Command:
    """Base of the commands. A command's docstring is its help, and its fields are its keys.

    Args:
        plugins: Python files to import first.
        json: write the results to this JSON file. For -, they are all that the standard output contains, and other text
            goes to the standard error. An error is then its last line, as JSON.
    """

    name: ClassVar[str]
    words: ClassVar[tuple[str, ...]] = ()  # fields that need no flag, in this order; the last may be a list
    plugins: list[str] = field(default_factory=list)
    json: Path | None = None
    results: Tree = field(init=False, default_factory=dict)  # plain values, with paths, that a command fills

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            commands[cls.name] = cls

    def __call__(self) -> int | None:
        """Run the command and return the exit status, or None for 0."""
        raise NotImplementedError

    @classmethod
    def start(cls, argv: Sequence[str]) -> int | None:
        """Run the command with these arguments, write its results as JSON if asked to, and return its exit status."""
        if HELP & {*argv}:
            print(cls.help(argv))
            return 0
        command = cls.parsed(argv)
        check_json(command.json)
        try:
            with redirect_stdout(sys.stderr) if command.json == STDOUT else nullcontext():
                return command()
        finally:  # an error may follow results
            if command.json and command.results:
                write_json(command.json, command.results)

    @classmethod
    def more_keys(cls, tree: Tree) -> dict[str, dict[str, Field]]:
        """Return keys that are not fields, by headings of the help; they may depend on a tree of flags."""
        return {}

    @classmethod
    def known_keys(cls) -> dict[str, Field]:
        """Return all keys that are known without flags."""
        known: dict[str, Field] = {}
        for keys in (*cls.more_keys({}).values(), fields_of(cls)):
            known |= keys
        return known

    def take(self, tree: Tree) -> None:
        """Set the flags that are not fields; an unknown key raises a `CrispsegError`."""
        for key in tree:
            raise unknown(key, self.known_keys())

    @classmethod
    def parsed(cls, argv: Sequence[str]) -> Self:
        """Load plugins and return the command with its settings from the arguments."""
        fields = fields_of(cls)
        words, tree = read_flags(argv, cls.known_keys())
        for word in cls.words:
            if get_origin(fields[word].kind) is list:
                tree[word], words = words, []
            elif words:
                tree[word] = words.pop(0)
            if not tree.get(word) and fields[word].default is MISSING:
                raise CrispsegError(f"{word.upper()} is missing; {cls.usage()}")
        if words:
            raise CrispsegError(f"'{words[0]}' is one argument too many; write lists as '[a, b]'; {cls.usage()}")
        command = construct(cls, {key: tree.pop(key) for key in fields if key in tree})
        load_plugins(command.plugins)
        command.take(tree)
        return command

    @classmethod
    def usage(cls) -> str:
        """Return the usage line of the command."""
        line = f"usage: crispseg {cls.name}"
        for word in cls.words:
            kind, default, _ = fields_of(cls)[word]
            name = f"{word.upper()} ..." if get_origin(kind) is list else word.upper()
            line += f" {name}" if default is MISSING else f" [{name}]"
        return f"{line} [--key value ...]"

    @classmethod
    def help(cls, argv: Sequence[str]) -> str:
        """Return the help with all keys; the first page is a file in `crispseg/cli/help`."""
        width = help_width()
        about = (inspect.getdoc(cls) or "").partition("\nArgs:")[0].strip()
        lines = [cls.usage(), "", *(textwrap.fill(part, width) for part in about.split("\n\n"))]
        keys = fields_of(cls)
        _, tree = read_flags([word for word in argv if word not in {*HELP, "all"}], keys)
        lines += _explained({word.upper(): keys.pop(word) for word in cls.words}, width)
        for heading, group in {"The keys": keys, **cls.more_keys(tree)}.items():
            if group:
                lines += ["", f"{heading}:", *_explained({f"--{key}": field for key, field in group.items()}, width)]
        return "\n".join([*lines, "", f"crispseg {cls.name} --help explains the keys that most people need."])


def help_width() -> int:
    """Return the width of lines of help in characters."""
    return max(60, min(110, shutil.get_terminal_size().columns))


def _explained(keys: Mapping[str, Field], width: int) -> list[str]:
    """Return the help of arguments, whose names are in capitals, or flags, with the values that they accept."""
    lines = []
    for key, (kind, default, about) in keys.items():
        values = accepted(kind).removesuffix(" or null")
        if default is MISSING:
            values += ", required"
        elif default is not None:
            values += f", default: {written(default)}"
        head = f"  {key}" if key.isupper() else f"  {key}  ({values})"
        lines.append(textwrap.fill(head, width, subsequent_indent=" " * 12, break_on_hyphens=False))
        lines.append(textwrap.fill(about, width, initial_indent=" " * 8, subsequent_indent=" " * 8))
    return lines


def data_help() -> str:
    """Return the help of the keys that say what custom data mean, which many commands have."""
    shown = {f"--{key}": field for key, field in fields_of(FolderSettings).items()}
    about = "Options of custom data, of all commands that read images and masks. --data NAME selects a public data set."
    return "\n".join([*textwrap.wrap(about, help_width()), "", *_explained(shown, help_width())])


def start(name: str, argv: Sequence[str]) -> int | None:
    """Run the command of a name, or one of the commands whose names begin with it, or print their names."""
    if name in commands:
        return commands[name].start(argv)
    if not argv or argv[0] in HELP:
        print(first_page([name]))
        return 0
    full = f"{name} {argv[0]}"
    if full not in commands:
        raise CrispsegError(f"unknown command '{full}'{did_you_mean(full, commands)}")
    return commands[full].start(argv[1:])


@dataclass(kw_only=True)
class WithData(Command):
    """Base of commands with data settings; keys of custom data also work without the group."""

    data: Tree = field(init=False)

    @classmethod
    def more_keys(cls, tree: Tree) -> dict[str, dict[str, Field]]:
        """Return the keys of the data that flags name; the default is custom data."""
        from crispseg.data import Folder  # other commands do not need it
        from crispseg.data.named import data_source

        fields = fields_of(data_source(str(tree.get("data", Folder.name))))
        return {DATA_HEADING: {f"data.{key}": field for key, field in fields.items()}}

    def chosen(self, recorded: Tree) -> Tree:
        """Return the data settings; flags override recorded ones, and empty settings raise a `CrispsegError`."""
        from crispseg.evaluation.recorded import completed

        if settings := completed({**recorded, **self.data}):
            return settings
        raise CrispsegError("is missing; give a folder of data first, or its name", "data")

    def take(self, tree: Tree) -> None:
        self.data, (own,) = {}, WithData.more_keys({}).values()
        for key, value in tree.items():
            group, _, inner = key.partition(".")
            if group != "data" and f"data.{key}" not in own:
                raise unknown(key, self.known_keys())
            self.data[key if group != "data" else inner or "name"] = value


FLAG = re.compile(r"--?[a-zA-Z]")
SHORT_FLAGS = {"o": "out"}


def read_flags(argv: Sequence[str], known: Mapping[str, Field]) -> tuple[list[str], Tree]:
    """Return the positional arguments of a command line, and its flags with `Text` values.

    A flag is `--key value`, `--key=value`, or `--key` alone if it is true or false; keys contain `-` or `_`. Lists are
    written `'[0.5, 1]'`, or as several values.
    """
    words: list[str] = []
    tree: Tree = {}
    unread = list(argv)
    while unread:
        word = unread.pop(0)
        if not FLAG.match(word):
            words.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        key = SHORT_FLAGS.get(name, name.replace("-", "_"))
        if equals:
            tree[key] = Text(value)
        else:
            unknown_kind = bool | str if key.startswith("model.") else str
            kind = known[key].kind if key in known else unknown_kind
            values = [*itertools.takewhile(lambda word: not FLAG.match(word), unread)]
            count = words_of(kind, values)
            tree[key] = _value(kind, values[:count], key, *unread[:1])
            del unread[:count]
    return words, tree


def words_of(kind: Any, words: Sequence[str]) -> int:
    """Return how many of the words that follow a flag are its value, by its type and the form of the words."""
    kinds, entry = {*alternatives(kind)}, entry_of(kind)
    if not words:
        return 0
    if words[0].startswith("[") or {str, Path} & kinds:
        return 1
    most = max((len(get_args(pair)) for pair in kinds if is_pair(pair)), default=len(words))
    entries = [*itertools.takewhile(lambda word: takes_word(entry, word), words[:most])]
    if entries:
        return len(entries)
    is_switch = bool in kinds or entry is not None
    return 0 if is_switch and not takes_word(kind, words[0]) else 1  # the check of a wrong word explains what is right


def _value(kind: Any, words: Sequence[str], key: str, following: str = "--") -> Text | list[Text]:
    """Return the value of a flag with these words; an error shows the word that follows it."""
    if words:
        texts = [Text(word) for word in words]
        return texts if len(texts) > 1 else texts[0]
    if bool in alternatives(kind):
        return Text("true")
    if entry_of(kind) is not None and not any(map(is_pair, alternatives(kind))):
        return []
    remedy = f"give {accepted(kind)}"
    if following.startswith("--"):
        raise CrispsegError(f"has no value; {remedy}", key)
    if following.startswith("-"):
        remedy += f", or write --{key}={following}"
    raise CrispsegError(f"is {following}; {remedy}", key)
