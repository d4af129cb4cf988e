"""The text of YAML files, read with more care than PyYAML takes by itself."""

from __future__ import annotations

from typing import Any

import yaml

MOST = 100_000
"""Values in a file, each counted as often as aliases repeat it."""


def parse_yaml(text: str) -> Any:
    """What a YAML text says.

    Raises:
        ValueError: it is no YAML, or nested too deeply; a key stands there twice; or aliases repeat values so often
            that there are more than `MOST`.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _count(node: yaml.Node, counts: dict[int, int]) -> int:
    """How many values a node holds, each as often as it is repeated; those of nodes that were seen are in `counts`."""
    if id(node) in counts:
        return counts[id(node)]
    counts[id(node)] = MOST  # of a node that holds itself
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            parts += [key, value]
            if not isinstance(key, yaml.ScalarNode):
                continue  # which YAML allows, and settings do not
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise ValueError(f"'{key.value}' stands there twice, in lines {lines[name]} and {line}")
            lines[name] = line
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    total = 1 + sum(_count(part, counts) for part in parts)
    if total > MOST:
        raise ValueError(f"its aliases make more than {MOST:,} values of it")
    counts[id(node)] = total
    return total
