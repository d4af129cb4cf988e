"""The text of YAML files, read with more care than PyYAML takes by itself."""

from __future__ import annotations

from typing import Any

import yaml

from crispseg.config.wording import shortened

MOST = 100_000
"""Values in a file, each counted as often as aliases repeat it."""
DEEPEST = 20
"""Lists and mappings that may lie in each other."""
LARGEST = 2**63
"""Whole numbers are smaller."""
PLAIN = ("null", "bool", "int", "float", "str", "seq", "map", "merge")


class _Loader(yaml.SafeLoader):
    """Dates stay text: no setting is a date, but a folder or a class may be called like one."""

    yaml_implicit_resolvers = {  # noqa: RUF012 as the base class has it
        first: [each for each in resolvers if not each[0].endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def parse_yaml(text: str) -> Any:
    """What a YAML text says: text, numbers, true and false, null, and lists and mappings of these.

    Raises:
        ValueError: it is no YAML, or nested too deeply; a key stands there twice; a value is of another kind, no number
            of its kind or holds a NUL byte; or aliases repeat values so often that there are more than `MOST`.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _survey(node, "", loader, {})
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _survey(node: yaml.Node, key: str, loader: _Loader, seen: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a node holds, each as often as it is repeated, and how deep they lie; `seen` has earlier nodes'.

    Args:
        key: where the node stands.
    """
    if id(node) in seen:
        return seen[id(node)]
    seen[id(node)] = MOST, 0  # of a node that holds itself
    if (kind := node.tag.rpartition(":")[2]) not in PLAIN:
        raise ValueError(f"{key or 'it'} is of the kind {kind}; give text, a number, or a list or mapping of these")
    parts: list[tuple[str, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for entry, value in node.value:
            if not isinstance(entry, yaml.ScalarNode):
                continue  # which YAML allows, and settings do not
            name, line = (entry.tag, entry.value), entry.start_mark.line + 1
            if name in lines:
                raise ValueError(f"'{entry.value}' stands there twice, in lines {lines[name]} and {line}")
            lines[name] = line
            inner = f"{key}.{entry.value}".removeprefix(".")
            parts += [(inner, entry), (inner, value)]
    elif isinstance(node, yaml.SequenceNode):
        parts = [(key, part) for part in node.value]
    else:
        _check_scalar(node, kind, key, loader)
    found = [_survey(part, name, loader, seen) for name, part in parts]
    total, depth = 1 + sum(count for count, _ in found), 1 + max((depth for _, depth in found), default=0)
    if total > MOST:
        raise ValueError(f"its aliases make more than {MOST:,} values of it")
    if depth > DEEPEST:
        raise ValueError(f"{shortened(key) or 'it'} has more than {DEEPEST} lists or mappings in each other")
    seen[id(node)] = total, depth
    return total, depth


def _check_scalar(node: yaml.Node, kind: str, key: str, loader: _Loader) -> None:
    shown = f"{key or 'it'} is {shortened(node.value)}"
    if "\0" in node.value:
        raise ValueError(f"{key or 'it'} is {shortened(repr(node.value))}, with a NUL byte")
    if kind in ("bool", "int", "float"):
        try:
            value = loader.construct_object(node)
        except (ValueError, KeyError):
            raise ValueError(f"{shown}, which cannot be read as {kind}") from None
        if kind == "int" and abs(value) >= LARGEST:
            raise ValueError(f"{shown}, which is too large a number")
