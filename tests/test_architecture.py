"""What holds of all files: what may import what, where flags are spoken of, names and lengths."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import readability

import crispseg
from crispseg.cli.main import COMMANDS

ROOT = Path(crispseg.__file__).parent
ORDER = (
    *(
        "errors",
        "labels",
        "licences",
        "compat",
        "config",
        "io",
        "nn",
        "backbones",
        "decoders",
        "models",
        "folders",
        "data",
        "inference",
        "evaluation",
    ),
    *("prediction", "benchmarking", "export", "visualization", "inspection", "training", "labelling", "recipes"),
    *("api", "annotation", "cli"),
)
"""The packages, each of which imports only those before it."""


def paths() -> dict[str, Path]:
    """The files of the package, by the names of their modules."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports() -> dict[str, set[str]]:
    """What each file of the package imports of it, in functions and for type checkers too."""
    files = {"crispseg" if name == "__init__" else f"crispseg.{name}": path for name, path in paths().items()}
    edges: dict[str, set[str]] = {}
    for name, path in files.items():
        nodes = list(ast.walk(tree(path)))
        named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                assert node.module and not node.level, f"{name} has a relative import, which is not seen here"
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= {module if module in files else node.module for module in inside}
        edges[name] = {module for module in named if module in files and module != name}
    return edges


def test_no_import_circle() -> None:
    """graphlib raises CycleError, and names it, where there is one."""
    assert "crispseg.models.base" in list(TopologicalSorter(imports()).static_order())


def test_packages_keep_their_order() -> None:
    """None imports one above it, and so none the command line; all from `data` upward may draw."""
    upward = set()
    for name, needed in imports().items():
        own, *_ = name.removeprefix("crispseg.").split(".")
        if own in ("crispseg", "__main__"):
            continue
        for other in {module.split(".")[1] for module in needed if module.count(".")}:
            drawing = other == "visualization" and ORDER.index(own) >= ORDER.index("data")
            if ORDER.index(other) > ORDER.index(own) and not drawing:
                upward.add((name.removeprefix("crispseg."), other))
    assert not upward


def test_only_the_command_line_speaks_of_flags() -> None:
    for name, path in paths().items():
        nodes = ast.walk(tree(path))
        texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        assert name.startswith("cli") or not any(re.search(r"(?<![\w-])--[a-z]", text) for text in texts), name


def test_a_name_is_that_of_one_type() -> None:
    homes = defaultdict(set)
    for name, path in paths().items():
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(name)
    assert homes and not {name: where for name, where in homes.items() if len(where) > 1}


def test_code_reads_easily() -> None:
    """Few branches a function, one loop a line, one meaning a constant; what is mended leaves the list."""
    assert readability.offences() == readability.listed(), "mend new ones, and take what is mended off readability.toml"


def test_the_frame_names_no_model() -> None:
    needed = imports()["crispseg.models.base"]
    assert {name.removeprefix("crispseg.models.") for name in needed if "models." in name} == {
        *("frame", "info", "novelty", "refinement", "registry", "saving")
    }


THROUGH = {"markupsafe": "jinja2", "pydantic-core": "pydantic", "lightning-utilities": "lightning"}
"""What a dependency brings for certain."""


def test_what_files_import_is_installed_with_the_package() -> None:
    """But what is imported in functions, which may be an extra."""
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[\[>=<]", requirement)[0].replace("_", "-") for requirement in project["dependencies"]}
    assert declared >= set(THROUGH.values())
    of_module = packages_distributions()
    for path in sorted(ROOT.rglob("*.py")):
        for node in tree(path).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for top in {name.partition(".")[0] for name in names} - {"crispseg", *sys.stdlib_module_names}:
                packages = {package.lower().replace("_", "-") for package in of_module[top]}
                assert packages & {*declared, *THROUGH}, f"{path} imports {top}"


@pytest.mark.slow
def test_a_fresh_process_imports_what_it_needs() -> None:
    """Help comes without torch, names when they are asked for, and settings are read without Lightning."""
    code = (
        "import sys, crispseg, pickle; from crispseg.cli.main import main\n"
        "assert main(['--help']) == main(['--version']) == 0 and 'torch' not in sys.modules\n"
        "assert {'Segmenter', 'record'} <= {*dir(crispseg)}\n"
        "from crispseg.decoders import fuses; assert {'fam', 'ddsm', 'cfb'} <= {*fuses.names()} and fuses['fam']\n"
        "assert crispseg.nn.Tap and crispseg.models.sfnet.__name__ == 'sfnet'\n"
        "assert not any(name.startswith(('crispseg.data', 'crispseg.training', 'crispseg.evaluation', 'crispseg.inf')) "
        "for name in sys.modules)\n"
        "assert pickle.loads(pickle.dumps(crispseg.models.sfnet)) is crispseg.models.sfnet\n"
        "assert main(['predict', '--help', 'all']) == 0 and not {'crispseg.data', 'torchmetrics'} & {*sys.modules}\n"
        "assert main(['train', '--data=nuclei', '--print_config']) == main(['evaluate', '--help', 'all']) == 0\n"
        "assert 'lightning' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)
