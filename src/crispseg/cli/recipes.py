"""`crispseg recipes [PAPER [ROW]] [--run --root DATA]`"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

from pydantic import PositiveInt

from crispseg.cli.command import Command
from crispseg.config.settings import written
from crispseg.config.yaml_files import RECIPES, read_yaml
from crispseg.errors import command_line
from crispseg.recipes import PAPERS, PaperRow, find_row, read_rows

VALUES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "iou": "IoU of the classes",
    "boundary_f": "boundary F",
    "parameters": "M parameters",
    "multiply_adds": "G multiply-adds",
    "fps": "FPS",
    "memory": "GB of memory",
}
"""Listed values and their names."""
SCORE_FILE = "scores.json"  # file of a run's scores in its folder


@dataclass(kw_only=True)
class Recipes(Command):
    """List the rows of the papers' tables, or print the commands that train and score one of them.

    Words in capitals in these commands are placeholders.

    Args:
        paper: sfnet, ddsm, agln or unept; by default all of them.
        row: a row, such as 1b.ppm.
        root: folder of the data.
        pretrained: file with weights of the backbone, if no library publishes them.
        images: folder with the images of the test split, if a server scores it.
        out: folder of the run.
        run: run the commands.
        seeds: number of runs, each with another seed; with run, the mean of their scores is printed.
        counts: count parameters and multiply-adds of rows for which the paper reports them (a minute per paper).
    """

    name = "recipes"
    words = ("paper", "row")
    paper: str | None = None
    row: str | None = None
    root: str | None = None
    pretrained: str = "WEIGHT_FILE"
    images: str = "TEST_IMAGES"
    out: str | None = None
    run: bool = False
    seeds: PositiveInt = 1
    counts: bool = False

    def __call__(self) -> int:
        if self.paper and self.row:
            row = find_row(self.paper, self.row)
            self.show(row)
            return self.reproduce(row)
        for paper in [self.paper] if self.paper else PAPERS:
            for row in read_rows(paper):
                self.show(row)
        return 0

    def show(self, row: PaperRow) -> None:
        """Print a row, with the counts of crispseg if requested and known of the paper."""
        is_counted = self.counts and row.row and (row.parameters or row.multiply_adds)
        counts = row.counts() if is_counted else None
        self.results.setdefault("rows", []).append({**asdict(row), "counts": counts})
        print(line_of(row, counts), flush=True)

    def reproduce(self, row: PaperRow) -> int:
        """Print the commands of a row, run them if asked to, and return their status."""
        from crispseg.cli.main import main

        for seed in range(self.seeds):
            commands = self.commands(row, seed)
            self.results.setdefault("commands", []).extend(commands)
            for command in commands:
                print(command_line(command), flush=True)
                if self.run and (status := main(command)):
                    return status
        if self.run and self.seeds > 1 and not row.score.server:
            self.results["mean"] = mean_of([Path(self.folder(row, seed), SCORE_FILE) for seed in range(self.seeds)])
            print(self.results["mean"])
        return 0

    def folder(self, row: PaperRow, seed: int) -> str:
        """Return the folder of a run."""
        out = self.out or f"runs/{row.paper}-{row.name}"
        return out if self.seeds == 1 else f"{out}-{seed}"

    def commands(self, row: PaperRow, seed: int = 0) -> list[list[str]]:
        """Return the commands that train and score a row, each as a list of arguments."""
        out = self.folder(row, seed)
        weights = ["--model.pretrained", self.pretrained] if row.weight_file else []
        if not row.after:
            return [self.train(row, row.recipe, weights, seed, out), self.score(row, out)]
        first = f"{out}-{row.after}"
        second = self.train(row, row.recipe, ["--init_from", first], seed, out)
        return [self.train(row, row.after, weights, seed, first), second, self.score(row, out)]

    def train(self, row: PaperRow, recipe: str | None, weights: list[str], seed: int, out: str) -> list[str]:
        """Return the command that trains a row by a recipe; another recipe than the row's may have other data."""
        name = _data_of(row.paper, recipe)
        root = self.root if self.root and name == _data_of(row.paper, row.recipe) else name.upper()
        options = []
        for key, value in row.model.items():
            options += ["--model" if key == "name" else f"--model.{key}", written(value)]
        place = ["--data.root", root, "--seed", str(seed), "--out", out]
        return ["train", f"{row.paper}/{recipe}.yaml", *options, *weights, *place]

    def score(self, row: PaperRow, out: str) -> list[str]:
        """Return the command that scores a row, or predicts for the server that does."""
        score = row.score
        protocol = ["--protocol", score.protocol] if score.protocol != "whole" else []
        if score.server:
            files = ["--format", score.server, "--out", f"{out}/submission"]
            return ["predict", out, self.images, *protocol, *files]
        boundary = []
        if score.boundary:
            boundary = ["--boundary", *map(str, score.boundary), "--boundary_empty", score.boundary_empty]
        return ["evaluate", out, "--split", score.split, *protocol, *boundary, "--json", f"{out}/{SCORE_FILE}"]


def line_of(row: PaperRow, counts: tuple[float, float] | None = None) -> str:
    """Return a row as one line: the paper's values, the counts of crispseg, and the note."""
    parts = [f"{name} {written(getattr(row, key))}" for key, name in VALUES.items() if getattr(row, key)]
    if counts:
        parts.append("here {:.2f} M and {:.2f} G".format(*counts))
    name = row.name if row.row else f"{row.table}."
    return f"{row.paper} {name:<18} {row.label}: {', '.join(parts)}{f'; {row.note}' if row.note else ''}"


def mean_of(files: Sequence[Path]) -> str:
    """Return the mean and standard deviation of scores in files of `crispseg evaluate --json`, as one line."""
    runs = [json.loads(file.read_text("utf-8")) for file in files]
    parts = []
    for key in ("miou", "pixel_accuracy"):
        values = [run[key] for run in runs]
        parts.append(f"{VALUES[key]} {mean(values):.2f} ± {stdev(values):.2f}")
    return f"mean of {len(runs)} seeds: {', '.join(parts)}"


def _data_of(paper: str, recipe: str | None) -> str:
    return str(read_yaml(RECIPES / paper / f"{recipe}.yaml")["data"]["name"])
