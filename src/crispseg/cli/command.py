"""Base of the commands: dataclasses whose fields are their keys, read from the arguments of a command line."""

from __future__ import annotations

import inspect
import itertools
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, get_origin

from crispseg.config.registry import load_plugins
from crispseg.config.settings import (
    Field,
    Text,
    Tree,
    accepted,
    alternatives,
    checked,
    construct,
    fields_of,
    unknown,
    written,
)
from crispseg.errors import CrispsegError, did_you_mean

STDOUT = Path("-")  # file name that means the standard output
HELP = ("-h", "--help")
DATA = "The data; --data NAME selects them, folder is for custom data"
commands: dict[str, type[Command]] = {}  # commands by name; each registers itself when its module is imported


@dataclass(kw_only=True)
class Command:
    """Base of the commands. A command's docstring is its help, and its fields are its keys.

    Args:
        plugins: Python files to import first.
    """

    name: ClassVar[str]
    words: ClassVar[tuple[str, ...]] = ()  # fields that need no flag, in this order; the last may be a list
    first: ClassVar[tuple[str, ...]] = ()  # keys on the first page of help; empty for all keys
    plugins: list[str] = field(default_factory=list)

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            commands[cls.name] = cls

    def __call__(self) -> int | None:
        """Run the command and return the exit status, or None for 0."""
        raise NotImplementedError

    @classmethod
    def start(cls, argv: Sequence[str]) -> int | None:
        """Run the command with these arguments, and return its exit status."""
        if {*HELP} & {*argv}:
            print(cls.help(argv))
            return 0
        return cls.parsed(argv)()

    @classmethod
    def more_keys(cls, tree: Tree) -> dict[str, dict[str, Field]]:
        """Return keys that are not fields, by headings of the help; they may depend on a tree of flags."""
        return {}

    @classmethod
    def known_keys(cls) -> dict[str, Field]:
        """Return all keys that are known without flags."""
        return {key: each for keys in (*cls.more_keys({}).values(), fields_of(cls)) for key, each in keys.items()}

    def take(self, tree: Tree) -> None:
        """Set the flags that are not fields; an unknown key raises a `CrispsegError`."""
        for key in tree:
            raise unknown(key, self.known_keys())

    @classmethod
    def parsed(cls, argv: Sequence[str]) -> Self:
        """Load plugins and return the command with its settings from the arguments."""
        fields = fields_of(cls)
        words, tree = read_flags(argv, {key: each.kind for key, each in cls.known_keys().items()})
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
        for word, each in ((word, fields_of(cls)[word]) for word in cls.words):
            name = f"{word.upper()} ..." if get_origin(each.kind) is list else word.upper()
            line += f" {name}" if each.default is MISSING else f" [{name}]"
        return f"{line} [--key value ...]"

    @classmethod
    def help(cls, argv: Sequence[str]) -> str:
        """Return the first page of help, or the whole help if `all` follows the flag."""
        first = cls.first if argv[-1] != "all" else ()
        width = max(60, min(110, shutil.get_terminal_size().columns))
        about = (inspect.getdoc(cls) or "").partition("\nArgs:")[0].strip()
        lines = [cls.usage(), "", *(textwrap.fill(part, width) for part in about.split("\n\n"))]
        keys = fields_of(cls)
        given = [word for word in argv if word not in (*HELP, "all")]
        _, tree = read_flags(given, {key: each.kind for key, each in keys.items()})
        words = {word.upper(): keys.pop(word) for word in cls.words}
        for heading, group in {"": words, "The keys": keys, **cls.more_keys(tree)}.items():
            shown = {key: each for key, each in group.items() if not first or key in first or key.isupper()}
            lines += ["", f"{heading}:"] if shown and heading else []
            for key, each in shown.items():
                values = [accepted(each.kind).removesuffix(" or null")]
                if each.default is not None:
                    values.append("required" if each.default is MISSING else f"default: {written(each.default)}")
                lines.append(f"  {key}" if key.isupper() else f"  --{key}  ({', '.join(values)})")
                lines.append(textwrap.fill(each.about, width, initial_indent=" " * 8, subsequent_indent=" " * 8))
        return "\n".join([*lines, "", f"crispseg {cls.name} --help all explains every key."])


class Group(Command):
    """Base of commands with sub-commands, whose names begin with the name of the group."""

    @classmethod
    def start(cls, argv: Sequence[str]) -> int | None:
        """Run one of the commands, or print a list of them."""
        before = f"{cls.name} "
        known = {name.removeprefix(before): each for name, each in commands.items() if name.startswith(before)}
        if argv and argv[0] in known:
            return known[argv[0]].start(argv[1:])
        if argv and argv[0] not in HELP:
            raise CrispsegError(f"unknown command '{before}{argv[0]}'{did_you_mean(argv[0], known)}")
        abouts = [f"  {name:12}{(each.__doc__ or '').splitlines()[0]}" for name, each in known.items()]
        print(f"usage: crispseg {cls.name} COMMAND [...]", "", *abouts, sep="\n")
        return 0


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
        return {DATA: {f"data.{key}": each for key, each in fields.items()}}

    def chosen(self, found: Tree) -> Tree:
        """Return the data settings; flags override `found`, and empty settings raise a `CrispsegError`."""
        from crispseg.evaluation.evaluate import completed

        if settings := completed({**found, **self.data}):
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


def read_flags(argv: Sequence[str], kinds: Mapping[str, Any]) -> tuple[list[str], Tree]:
    """Return the positional arguments of a command line, and its flags with `Text` values.

    A flag is `--key value`, `--key=value`, or `--key` alone if it is true or false; keys contain `-` or `_`. Lists are
    written `'[0.5, 1]'`, or as several values. `kinds` are the types of all keys that are known yet.
    """
    found: list[str] = []
    tree: Tree = {}
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        if not FLAG.match(token):
            found.append(token)
            continue
        name, equals, value = token.lstrip("-").partition("=")
        key = "out" if name == "o" else name.replace("-", "_")
        kind = kinds.get(key, bool | str if key.startswith("model.") else str)
        tree[key] = Text(value) if equals else _value(rest, kind, key)
    return found, tree


def _value(rest: list[str], kind: Any, key: str) -> Text | list[Text]:
    """Remove the value of a flag from the front of the next arguments; its type determines their number."""
    words = [*itertools.takewhile(lambda word: not FLAG.match(word), rest)]
    # The value is one word if its type accepts any text, or if the word is a written list.
    one = {str, Path} & {*alternatives(kind)} or (words and words[0].startswith("["))
    fitting = None
    for count in range(min(len(words), 1 if one else len(words)) + 1):
        value: Any = [Text(word) for word in words[:count]]
        value = value[0] if count == 1 else Text("true") if not count and bool in alternatives(kind) else value
        try:
            checked(kind, value, key)
            fitting = count, value
        except CrispsegError:
            if fitting:
                break
    if fitting is None and not words:
        raise CrispsegError(f"has no value; give {accepted(kind)}", key)
    count, value = fitting or (1, Text(words[0]))
    del rest[:count]
    return value  # type: ignore[no-any-return]
