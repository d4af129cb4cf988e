"""Keys and files of the commands that score models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crispseg.cli.command import STDOUT, Command, WithData
from crispseg.cli.keys import WithDevice
from crispseg.data import DataSource
from crispseg.data.folder_layout import recognise
from crispseg.errors import CrispsegError
from crispseg.evaluation.bootstrap import RESAMPLES
from crispseg.evaluation.evaluate import data_to_score
from crispseg.io.files import atomic_path
from crispseg.training.config import spare_processors
from crispseg.visualization.pages import check_page

FEWEST = 40
"""Resamples of which one can lie outside of a 95 % interval on each side."""


@dataclass(kw_only=True)
class WithScores(WithDevice, WithData):
    """Commands that score.

    Args:
        split: which split; by default val or, of folders other than those that were trained on, test if they have it,
            else all of them.
        bootstrap: resamples for the 95 % intervals over images, at least 40; 0 for none.
        json: also write the scores to this file.
        html: also write a page to this file.
        workers: processes that load data.
    """

    split: str | None = None
    bootstrap: int = RESAMPLES
    json: Path | None = None
    html: Path | None = None
    workers: int = field(default_factory=spare_processors)

    def data_to_score(self, run: str, folder: str | None = None) -> tuple[DataSource, str]:
        """Return the data to score a run on, those of a folder if one is named, and the split.

        Raises:
            CrispsegError: a key is wrong, or a file cannot be written.
        """
        if self.bootstrap and self.bootstrap < FEWEST:
            raise CrispsegError(
                f"is {self.bootstrap}; give the number of resamples, at least {FEWEST}, or 0 for no intervals",
                "bootstrap",
            )
        said = {**(recognise(Path(folder)) if folder else {}), **self.data}
        found = data_to_score(run, said, self.split)
        if self.html:
            check_page(self.html)
        if self.json:
            check_page(self.json, ".json")
        return found


@dataclass(kw_only=True)
class WithThin(Command):
    """Commands that know widths.

    Args:
        thin: also IoU and recall by the width of things, and clDice of the classes that are named.
    """

    thin: list[str] | None = None


def short_names(runs: Sequence[str]) -> list[str]:
    """Return the ends of paths, of as many parts as make all different, at most all of them."""
    parts = [Path(run).resolve().parts if Path(run).exists() else Path(run).parts for run in runs]
    for count in range(1, max(map(len, parts)) + 1):
        names = [str(Path(*each[-count:])) for each in parts]
        if len(set(names)) == len(names):
            break
    return names


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a file of scores, or print them."""
    text = json.dumps(values, indent=2, ensure_ascii=False)
    if path == STDOUT:
        print(text)
        return
    with atomic_path(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")
