"""The packaged recipes as tests read them."""

from __future__ import annotations

import shlex
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from crispseg.cli.main import main

RECIPES = Path(str(resources.files("crispseg") / "recipes"))
DOCS = Path(__file__).parents[1] / "docs" / "recipes.md"


def print_config(recipe: Path, *argv: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `crispseg train RECIPE ... --print_config` prints."""
    assert main(["train", str(recipe), *argv, "--print_config"]) == 0
    tree: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return tree


def scored_flags(recipe: Path) -> list[tuple[float, list[str]]]:
    """mIoU, and the flags beside it in the comment of a recipe, in its order."""
    lines = [line for line in recipe.read_text(encoding="utf-8").splitlines() if line.startswith("#   --model")]
    return [(float(score), flags) for *flags, score in (shlex.split(line.removeprefix("#")) for line in lines)]


def rows(recipe: Path) -> dict[float, list[str]]:
    """The same of a recipe in which no score stands twice."""
    found = scored_flags(recipe)
    assert len(dict(found)) == len(found)
    return dict(found)
