"""YAML files of settings."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from crispseg.config.files import read_text
from crispseg.errors import CrispsegError, one_line

RECIPES = Path(str(resources.files("crispseg") / "recipes"))  # folder of the package's recipes

OLD_YAML = re.compile(r"(?i:yes|no|on|off)|[-+]?0[0-7_]+|[-+]?\d[\d_]*[:-].*")
"""Texts that were booleans, octal numbers, numbers of base 60 and dates before YAML 1.2."""


class _Loader(yaml.SafeLoader):
    """YAML loader that refuses repeated keys, of which YAML would use the last, and reads texts as YAML 1.2 does."""

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: Any) -> Any:
        is_text = kind is yaml.ScalarNode and OLD_YAML.fullmatch(value or "")
        return super().resolve(kind, value, (False, True) if is_text else implicit)  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise ValueError(f"'{twice}' is given twice")
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Return the values of a YAML text; invalid YAML or a repeated key raises a `ValueError`."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of settings; a missing, unreadable or invalid file raises a `CrispsegError`.

    Args:
        path: the file or, if it does not exist, the name of a bundled recipe, such as sfnet/cityscapes.yaml.
    """
    if not Path(path).exists() and (RECIPES / path).is_file():
        path = RECIPES / path
    if not Path(path).exists():
        raise CrispsegError(f"{path} is missing; give a folder of data, or a YAML file of settings")
    try:
        tree = parse_yaml(read_text(path))
    except (ValueError, CrispsegError) as error:
        raise CrispsegError(f"{path} is not a YAML file of settings ({one_line(error)}); correct it") from None
    if isinstance(tree, dict):
        return {str(key): value for key, value in tree.items()}
    raise CrispsegError(f"{path} has no settings; write lines such as 'epochs: 20'")
