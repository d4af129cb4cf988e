"""What a torch.export file may hold, which is checked before PyTorch reads it.

PyTorch's reader unpickles objects, evaluates expressions, executes guards, takes any function below `torch` for an
operator, and loads compiled libraries. What `crispseg export` writes needs none of it, so nothing of it is let through.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crispseg.errors import CrispsegError

_RECORD = re.compile(
    r"[^/]+/(models/model\.json|data/(weights|constants|sample_inputs)/(?!custom_obj)[\w.]+|extra/[\w.]+|\.data/\w+"
    r"|archive_format|archive_version|byteorder|version)"
)
"""Names of parts: tensors, what says where they belong, the graph, and our own metadata."""
_ARITHMETIC = "add|sub|mul|truediv|floordiv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|getitem"
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|torchvision)\.\w+\.\w+|torch\.ops\.higher_order\.wrap_with_(autocast|set_grad_enabled)"
    rf"|_operator\.({_ARITHMETIC})|math\.(trunc|ceil|floor|sqrt)|torch\.sym_\w+"
)
_FUNCTIONS = re.compile(
    "Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|IntTrueDiv|FloatTrueDiv"
    "|ModularIndexing|Where|ToFloat|TruncToInt|FloorToInt|CeilToInt|RoundToInt|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not"
)
"""Of expressions of sizes."""
_SYMBOL = re.compile(r"[a-z]+\d+")


def check_program(path: Path) -> None:
    """Make sure that a torch.export file holds tensors and a graph of PyTorch's operators, and nothing else.

    Raises:
        CrispsegError: it holds what might run code, or is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        odd = next((f"a part '{name}'" for name in names if not _RECORD.fullmatch(name)), None)
        if odd is None:
            graphs = (json.loads(archive.read(name)) for name in names if name.endswith("/models/model.json"))
            odd = next((what for graph in graphs for what in _odd(graph)), None)
    if odd is not None:
        raise CrispsegError(f"{path} holds {odd}, which might run code; export the model anew")


def _odd(tree: Any) -> Iterator[str]:
    """What a graph, as JSON, should not hold."""
    if isinstance(tree, list):
        for entry in tree:
            yield from _odd(entry)
    elif isinstance(tree, dict):
        if tree.get("guards_code"):
            yield "guards"
        for key, value in tree.items():
            if key == "target" and isinstance(value, str) and not _OPERATOR.fullmatch(value):
                yield f"the operator '{value}'"
            elif key == "expr_str" and not _is_arithmetic(value):
                yield f"the expression '{value}'"
            else:
                yield from _odd(value)


def _is_arithmetic(expression: Any) -> bool:
    """Whether an expression of sizes is calls of known functions on numbers and symbols alone."""
    try:
        return _is_size(ast.parse(expression, mode="eval").body)
    except (SyntaxError, TypeError, ValueError, RecursionError):
        return False


def _is_size(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=int() | float()):  # a bool too
            return True
        case ast.Name(id=name):
            return _SYMBOL.fullmatch(name) is not None
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_size(operand)
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str() as name)], keywords=keywords):
            return _SYMBOL.fullmatch(name) is not None and all(_is_size(each.value) for each in keywords)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            return _FUNCTIONS.fullmatch(name) is not None and all(map(_is_size, args))
    return False
