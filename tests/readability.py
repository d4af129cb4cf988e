"""Rules that keep a file readable, and the list of what broke them when the rules came; it only shrinks."""

import ast
import re
import tomllib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import crispseg

ROOT = Path(crispseg.__file__).parent
LIST = Path(__file__).with_name("readability.toml")
MOST_BRANCHES = 15
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.comprehension, ast.match_case)

Offences = dict[str, dict[str, Any]]
"""By rule: each offence, and its size or place."""


def branches(tree: ast.AST) -> int:
    """Branches of a piece of code; each further operand of an `and` or `or` is one too."""
    count = 0
    for node in ast.walk(tree):
        count += isinstance(node, BRANCHES)
        if isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
    return count


def long_functions(tree: ast.Module) -> list[str]:
    """Names of the functions that have too many branches."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return sorted(function.name for function in functions if branches(function) > MOST_BRANCHES)


def packed_lines(tree: ast.Module) -> int:
    """Number of lines with two `for` or more."""
    loops = Counter[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            loops[node.target.lineno] += 1
    return sum(count > 1 for count in loops.values())


def constants(tree: ast.Module) -> set[str]:
    """Names of the constants that a file defines; `_STEPS` counts as `STEPS`."""
    names = set()
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name.lstrip("_") for name in names if re.fullmatch(r"_?[A-Z][A-Z0-9_]+", name)}


def offences(root: Path = ROOT) -> Offences:
    """Everything under `root` that breaks a rule."""
    functions: dict[str, Any] = {}
    lines: dict[str, Any] = {}
    homes = defaultdict[str, list[str]](list)
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        file = path.relative_to(root).as_posix()
        if names := long_functions(tree):
            functions[file] = names
        if packed := packed_lines(tree):
            lines[file] = packed
        for name in constants(tree):
            homes[name].append(file)
    shared = {name: files for name, files in sorted(homes.items()) if len(files) > 1}
    return {"long_functions": functions, "packed_lines": lines, "shared_constants": shared}


def listed() -> Offences:
    """The offences that were there when the rules came, and still are."""
    return tomllib.loads(LIST.read_text(encoding="utf-8"))
