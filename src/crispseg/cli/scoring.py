"""Keys of commands that score; this module imports the data and the metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import NonNegativeInt

from crispseg.cli.command import WithData
from crispseg.cli.keys import WithDevice
from crispseg.data import DataSource
from crispseg.data.named import settings_of
from crispseg.evaluation.bootstrap import RESAMPLES
from crispseg.evaluation.recorded import data_to_score
from crispseg.folders.cache import forget
from crispseg.training.config import spare_processors
from crispseg.visualization.pages import check_page


@dataclass(kw_only=True)
class WithScores(WithDevice, WithData):
    """Base of commands that score.

    Args:
        split: split to score; the default is val. For folders other than the training data, it is test if it exists,
            or all images if there are no splits.
        bootstrap: number of resamples for the 95 % intervals over images; 0 for none.
        html: also write a page to this file.
        workers: processes that load data.
        refresh: read all files again; by default, facts of unchanged files come from the user's cache folder.
    """

    split: str | None = None
    bootstrap: NonNegativeInt = RESAMPLES
    html: Path | None = None
    workers: int = field(default_factory=spare_processors)
    refresh: bool = False

    def data_to_score(self, run: str, folder: str | None = None) -> tuple[DataSource, str]:
        """Check and return the data to score a run on, from a folder if one is given, and the split."""
        if self.refresh:
            forget()
        if self.html:
            check_page(self.html)
        return data_to_score(run, {**(settings_of(Path(folder)) if folder else {}), **self.data}, self.split)
