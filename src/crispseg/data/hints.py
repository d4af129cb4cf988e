"""Commands to run next, made of what a command has just used; a user can paste them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crispseg.data.dataset import DataSource
from crispseg.data.examination import pairs_of
from crispseg.errors import command_line


def after_training(run: Path, data: DataSource) -> Iterator[str]:
    """Yield commands that score a run, and that segment an image of its val split, if this is a file."""
    yield command_line(["evaluate", run], {"html": str(run / "scores.html")})
    if pairs := pairs_of(data).get("val"):
        yield command_line(["predict", run, pairs[0].image], {"out": str(run / "predictions")})
