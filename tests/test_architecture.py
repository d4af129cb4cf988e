"""What may import what: the folders' order is kept, and no file needs one that needs it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import crispseg

ROOT = Path(crispseg.__file__).parent
NETWORKS = ("nn", "backbones", "decoders", "models")
BELOW = ("config", "errors", "io", "labels")
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
            if isinstance(node, ast.ImportFrom):
                assert node.module and not node.level, f"{name} has a relative import, which is not seen here"
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


THROUGH = {"docstring-parser": "jsonargparse", "pydantic-core": "pydantic", "lightning-utilities": "lightning"}
"""What a dependency brings for certain."""


def test_what_files_import_is_installed_with_the_package() -> None:
    """But what is imported in functions, which may be an extra, and by the demo, which is one."""
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[\[>=<]", each)[0].replace("_", "-") for each in project["dependencies"]}
    assert declared >= set(THROUGH.values())
    of_module, outside = packages_distributions(), {ROOT / "demo/page.py", ROOT / "demo/guard.py"}
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for top in {name.partition(".")[0] for name in names} - {"crispseg", *sys.stdlib_module_names}:
                found = {each.lower().replace("_", "-") for each in of_module[top]}
                assert found & {*declared, *THROUGH} or path in outside, f"{path} imports {top}"


def test_names_are_there_when_they_are_asked_for() -> None:
    """In a fresh process: nothing heavy at first, parts of the papers by any way, no data for a model."""
    code = (
        "import sys, crispseg; assert 'torch' not in sys.modules and {'Segmenter', 'record'} <= {*dir(crispseg)}\n"
        "from crispseg.decoders import fuses; assert {'fam', 'ddsm', 'cfb'} <= {*fuses.names()} and fuses['fam']\n"
        "assert crispseg.nn.Tap and crispseg.models.sfnet.__name__ == 'sfnet'\n"
        "assert not any(name.startswith(('crispseg.data', 'crispseg.training', 'crispseg.evaluation', 'crispseg.inf')) "
        "for name in sys.modules)\n"
        "import pickle; assert pickle.loads(pickle.dumps(crispseg.models.sfnet)) is crispseg.models.sfnet\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
