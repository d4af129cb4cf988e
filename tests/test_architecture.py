"""What may import what: the folders' order is kept, and no file needs one that needs it."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import crispseg

ROOT = Path(crispseg.__file__).parent
NETWORKS = ("nn", "backbones", "decoders", "refinement", "models")
BELOW = ("errors", "files", "labels", "options", "registry")
"""Modules that networks may stand on, beside each other."""


def imports() -> dict[str, set[str]]:
    """What each file of the package imports of it, in functions and for type checkers too."""
    files = {".".join(("crispseg", *path.relative_to(ROOT).with_suffix("").parts)): path for path in ROOT.rglob("*.py")}
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module:
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= {one if one in files else node.module for one in inside}
        found[name] = {one for one in named if one in files and one != name}
    return found


def test_no_import_circle() -> None:
    """graphlib raises CycleError, and names it, where there is one."""
    assert "crispseg.models.base" in list(TopologicalSorter(imports()).static_order())


def test_networks_stand_on_networks() -> None:
    allowed = tuple(f"crispseg.{name}" for name in (*NETWORKS, *BELOW))
    networks = tuple(f"crispseg.{name}" for name in NETWORKS)
    wrong = {
        name: sorted(one for one in needed if not one.startswith(allowed))
        for name, needed in imports().items()
        if name.startswith(networks)
    }
    assert len(wrong) > 30 and not any(wrong.values()), wrong


def test_the_frame_names_no_model() -> None:
    needed = imports()["crispseg.models.base"]
    assert {name.removeprefix("crispseg.models.") for name in needed if "models." in name} == {
        *("info", "registry", "saving")
    }
