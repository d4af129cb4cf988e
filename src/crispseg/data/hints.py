"""Commands to run next, made of what a command has just used; a user can paste them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crispseg.config.settings import CONFIG
from crispseg.data.dataset import DataSource
from crispseg.data.examination import pairs_of
from crispseg.data.sources import PART
from crispseg.errors import command_line


def after_training(run: Path, data: DataSource) -> Iterator[str]:
    """Yield commands that score a run, and that segment an image of its val split, if this is a file."""
    yield command_line(["evaluate", run], {"html": str(run / "scores.html")})
    if pairs := pairs_of(data).get("val"):
        yield command_line(["predict", run, pairs[0].image], {"out": str(run / "predictions")})


def after_import(folder: Path) -> str:
    """Return the command that trains on imported annotations."""
    return command_line(["train", folder], {"out": f"runs/{folder.name}"})


def after_get(folder: Path) -> str:
    """Return the command that trains on a copy of the bundled images."""
    settings = {kind: str(folder / kind) for kind in ("images", "instances")}
    settings |= {"classes": "[background,nucleus,border]", "out": f"runs/{folder.name}"}
    return command_line(["train"], settings)


def after_errors(run: str, excluded: Path) -> str | None:
    """Return the command that trains a run again without the images in a list; None for saved models."""
    settings = Path(run) / CONFIG
    changes = {"data.exclude": str(excluded), "out": f"{settings.parent}_without_errors"}
    return command_line(["train", settings], changes) if settings.is_file() else None


def of_bundled_models() -> str:
    """Return a command that segments a bundled image with a bundled model."""
    image = min((PART / "images").glob("*.png"))
    return command_line(["predict", "nuclei", image], {"out": "predictions"})
