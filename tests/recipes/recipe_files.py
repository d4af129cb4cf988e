"""The packaged recipes as tests read them."""

from __future__ import annotations

import shlex
from importlib import resources
from pathlib import Path

RECIPES = Path(str(resources.files("crispseg") / "recipes"))
DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"


def scored_flags(recipe: str) -> list[tuple[float, list[str]]]:
    """mIoU, and the flags beside it in the comment of a recipe, in its order."""
    text = (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8")
    lines = [shlex.split(line.removeprefix("#")) for line in text.splitlines() if line.startswith("#   --model")]
    return [(float(score), flags) for *flags, score in lines]


def rows(recipe: str) -> dict[float, list[str]]:
    """The same of a recipe in which no score stands twice."""
    found = scored_flags(recipe)
    assert len(dict(found)) == len(found)
    return dict(found)
