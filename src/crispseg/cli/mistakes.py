"""What is wrong with a flag, in words: the key, the value given, and what is accepted."""

from __future__ import annotations

import re
from argparse import Action
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from crispseg.config.wording import accepted, alternatives, several, shortened, taken
from crispseg.data.catalogue import catalogue
from crispseg.errors import CrispsegError, did_you_mean


class Help(DefaultHelpFormatter):  # type: ignore[misc]
    """Help that says in words what a key takes, where jsonargparse names types."""

    def _get_help_string(self, action: Action) -> str:
        return str(super()._get_help_string(action)).replace("type: %(type)s", "%(type)s")

    def _get_type_str(self, action: Action) -> str | None:
        return None if super()._get_type_str(action) is None else taken(_kind(action), none="null")


def keys_of(parser: ArgumentParser) -> dict[str, Action]:
    """What explains each flag, without its dashes, and each argument."""
    flags = {
        flag.removeprefix("--"): action
        for action in parser._actions
        for flag in action.option_strings
        if flag.startswith("--")
    }
    return flags | {action.dest: action for action in parser._actions if not action.option_strings}


def in_words(message: str, parser: ArgumentParser, argv: Sequence[str]) -> str:
    """What the parser says, for people: of which flag it speaks is read off its message, the rest follows from that."""
    if missing := re.fullmatch(r"the following arguments are required: (.*)", message):
        return _missing(missing[1].split(", "), parser)
    if extra := re.fullmatch(r"unrecognized arguments: (.*)", message):
        return _too_many(extra[1].split(" ")[0], parser, argv)
    about = re.match(r"(?:Parser key \"|argument (?:-\w/)?(?:--)?)([\w.]+)\+?(?:\"| element|:|/)", message)
    action = keys_of(parser).get(about[1]) if about else None
    if about is None or action is None:
        return message
    entries = [entry for entry in _given(argv, parser) if entry[0] == about[1] or entry[0].startswith(f"{about[1]}.")]
    # Of a flag that is given twice, the one that is wrong is the one that the message quotes.
    key, value = next((entry for entry in entries if f" {entry[1]}" in message), entries[-1] if entries else ("", ""))
    value = shortened(value)
    if not value:
        return f"{about[1]} has no value; give {_accepts(action)}"
    if key != about[1]:
        return f"{key} is {value}; as an entry of {about[1]} it should be {accepted(_entries(action))}"
    if " " in value and not value.startswith(("[", "{")) and _takes_lists(action):
        return _in_one_piece(key, value)
    hint = did_you_mean(value, action.choices) if action.choices else ""
    return f"{key} is {value}; " + (hint.removeprefix("; ") if "mean" in hint else f"give {_accepts(action)}")


def check_texts(parsed: Namespace, parser: ArgumentParser) -> None:
    """Refuse a list that a key has taken for a text, since it is not the list that it takes.

    Raises:
        CrispsegError: such a value.
    """
    for key, action in keys_of(parser).items():
        value = parsed.get(action.dest)
        if isinstance(value, str | Path) and str(value).startswith(("[", "{")):
            raise CrispsegError(f"{key} is {shortened(str(value))}; give {_accepts(action)}")


def check_null(key: str, action: Action) -> None:
    """Refuse null for a key that takes a text or a path, of which the parser would make the text "null".

    Raises:
        CrispsegError: it is such a key.
    """
    kinds = set(alternatives(_kind(action)))
    if kinds & {str, Path} and NoneType not in kinds:
        raise CrispsegError(f"{key} is null; give {_accepts(action)}")


def _given(argv: Sequence[str], parser: ArgumentParser) -> list[tuple[str, str]]:
    """The flags and what follows each, as written."""
    entries: list[tuple[str, str]] = []
    for token in argv:
        if re.match(r"--[a-zA-Z]", token):
            key, _, value = token.removeprefix("--").partition("=")
            entries.append((key.removesuffix("+"), value))
        elif entries:
            key, value = entries[-1]
            entries[-1] = key, f"{value} {token}".strip()
    return entries


def _kind(action: Action) -> Any:
    return getattr(action, "_typehint", None) or action.type or str


def _entries(action: Action) -> Any:
    """The type of the values of a mapping."""
    return next(get_args(kind)[1] for kind in alternatives(_kind(action)) if get_origin(kind) is dict)


def _help(action: Action) -> str:
    return " ".join((action.help or "").split()).removesuffix(".").replace("%%", "%")


def _accepts(action: Action) -> str:
    if action.choices:
        return f"one of {', '.join(map(str, action.choices))}"
    kind = _kind(action)
    if kind in (str, Path) and action.help:  # a text may be anything, so say what for
        return f"{accepted(kind)}: {_help(action)}"
    if action.nargs in ("*", "+"):
        return f"{several(kind)}, with blanks between them"
    return accepted(kind, action.default, none="null")


def _takes_lists(action: Action) -> bool:
    return action.nargs is None and any(get_origin(kind) in (list, tuple) for kind in alternatives(_kind(action)))


def _in_one_piece(key: str, values: str) -> str:
    return f"{key} is {values}; write a list in one piece: --{key} '[{', '.join(values.split())}]'"


def _missing(names: list[str], parser: ArgumentParser) -> str:
    """Flags are named with dashes, and all with what they mean; of a public data set also where it is to be had."""
    actions = keys_of(parser)
    shown = [f"{'--' if actions[name].option_strings else ''}{name} ({_help(actions[name])})" for name in names]
    entry = catalogue().get(actions["data.name"].default) if names == ["data.root"] else None
    hint = entry.layout.hint if entry and entry.layout else f"see {parser.prog} --help"
    return f"{' and '.join(shown)} {'is' if len(names) == 1 else 'are'} missing; {hint}"


def _too_many(value: str, parser: ArgumentParser, argv: Sequence[str]) -> str:
    """A value that no key takes: what should come first, else mostly a list that is written with blanks."""
    if "CONFIG.yaml" in (parser.usage or "") and Path(value).exists():
        return f"'{value}' stands after a flag; put it first: {parser.prog} {value} --key value"
    for key, values in _given(argv, parser):
        action = keys_of(parser).get(key)
        if action is not None and action.nargs is None and value in values.split()[1:]:
            if _takes_lists(action):
                return _in_one_piece(key, values)
            return f"{key} is {values}, more than one value; give {_accepts(action)}"
    return f"'{value}' belongs to no key; flags are written --key value"
