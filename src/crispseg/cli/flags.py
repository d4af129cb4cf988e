"""From the words of a command line to a tree of settings."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from crispseg.config.settings import Entries, Text, Tree
from crispseg.config.wording import accepted, alternatives
from crispseg.errors import CrispsegError

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
