"""`crispseg benchmark MODEL ...`"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from crispseg.benchmarking import Conditions, benchmark
from crispseg.cli.command import STDOUT, Command
from crispseg.cli.keys import check_json, write_json
from crispseg.config.settings import Field, Tree, construct, fields_of
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
        json: also write all numbers to this file; - is the standard output.
        plot: also draw speed and val mIoU of the trained models to this PNG file.
    """

    name = "benchmark"
    words = ("models",)
    models: list[str]
    json: Path | None = None
    plot: Path | None = None
    conditions: Conditions = field(init=False)

    @classmethod
    def more_keys(cls, tree: Tree) -> dict[str, dict[str, Field]]:
        return {"The conditions": fields_of(Conditions)}

    def take(self, tree: Tree) -> None:
        self.conditions = construct(Conditions, tree)

    def __call__(self) -> None:
        check_json(self.json)
        if self.plot:
            check_page(self.plot, ".png")
        report = benchmark(self.models, self.conditions, console=Console(stderr=True))
        if self.json:
            write_json(self.json, report.to_dict())
        if self.plot:
            with atomic_path(self.plot) as file:
                report.figure().savefig(file, dpi=150)
        # The standard output is reserved for JSON.
        Console(stderr=self.json == STDOUT).print(report.table(), highlight=False)
