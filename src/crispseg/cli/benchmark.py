"""`crispseg benchmark MODEL ...`"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from crispseg.benchmarking import Conditions, benchmark
from crispseg.cli.command import Command
from crispseg.config.settings import Field, Tree, fields_of
from crispseg.io.files import atomic_path
from crispseg.visualization.pages import check_page


@dataclass(kw_only=True)
class Benchmark(Command):
    """Count parameters and multiply-adds of models, and measure their latency in turns under the same conditions.

    Weights are random unless the model is a saved one; no weights are downloaded.

    Args:
        models: models to measure; the first is the baseline. Give a name of 'crispseg list', also with another
            backbone (sfnet:resnet50) or options ('sfnet{fuse: add}'). Also a run's folder, a saved model's folder, a
            hub id, or an exported file.
        plot: also draw speed and val mIoU of the trained models to this PNG file.
    """

    name = "benchmark"
    words = ("models",)
    models: list[str]
    plot: Path | None = None
    conditions: Conditions = field(init=False)

    @classmethod
    def more_keys(cls, tree: Tree) -> dict[str, dict[str, Field]]:
        return {"The conditions": fields_of(Conditions)}

    def take(self, tree: Tree) -> None:
        self.conditions = Conditions(**tree)

    def __call__(self) -> None:
        if self.plot:
            check_page(self.plot, [".png"])
        report = benchmark(self.models, self.conditions, console=Console(stderr=True))
        self.results |= report.to_dict()
        if self.plot:
            with atomic_path(self.plot) as file:
                report.figure().savefig(file, dpi=150)
        Console().print(report.table(), highlight=False)
