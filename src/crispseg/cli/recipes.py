"""`crispseg recipes [PAPER [ROW]] [--run --root DATA]`"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from crispseg.cli.command import Command
from crispseg.config.settings import written
from crispseg.config.yaml_files import RECIPES, read_yaml
from crispseg.recipes import PAPERS, PaperRow, find_row, read_rows

VALUES = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "parameters": "M parameters"} | {
    "multiply_adds": "G multiply-adds"
}
"""Listed values and their names."""


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
    counts: bool = False

    def __call__(self) -> int:
        from crispseg.cli.main import main

        if self.paper is None or self.row is None:
            for row in (row for paper in ([self.paper] if self.paper else PAPERS) for row in read_rows(paper)):
                print(line_of(row, self.counts))
            return 0
        row = find_row(self.paper, self.row)
        print(line_of(row, self.counts))
        for command in self.commands(row):
            print(shlex.join(["crispseg", *command]), flush=True)
            if self.run and (status := main(command)):
                return status
        return 0

    def commands(self, row: PaperRow) -> list[list[str]]:
        """Return the commands that train and score a row, each as a list of arguments."""
        out, score = self.out or f"runs/{row.paper}-{row.name}", row.score
        model = {"--model" if key == "name" else f"--model.{key}": value for key, value in row.model.items()}
        options = [str(word) for key, value in model.items() for word in (key, written(value))]
        weights = ["--model.pretrained", self.pretrained] if row.weight_file else []
        data, commands = _data_of(row.paper, row.recipe), []
        if row.after:
            first, before = f"runs/{row.paper}-{row.after}", _data_of(row.paper, row.after)
            root = self.root if self.root and before == data else before.upper()
            place = ["--data.root", root, "--out", first]
            commands.append(["train", f"{row.paper}/{row.after}.yaml", *options, *weights, *place])
            weights = ["--init_from", first]
        place = ["--data.root", self.root or data.upper(), "--out", out]
        commands.append(["train", f"{row.paper}/{row.recipe}.yaml", *options, *weights, *place])
        protocol = ["--protocol", score.protocol] if score.protocol != "whole" else []
        if score.server:
            files = ["--format", score.server, "--out", f"{out}/submission"]
            return [*commands, ["predict", out, self.images, *protocol, *files]]
        boundary = ["--boundary", *map(str, score.boundary), "--boundary_empty", score.boundary_empty]
        boundary = boundary if score.boundary else []
        return [*commands, ["evaluate", out, "--split", score.split, *protocol, *boundary]]


def line_of(row: PaperRow, counts: bool = False) -> str:
    """Return a row as one line: the paper's values, the counts of crispseg if requested, and the note."""
    parts = [f"{name} {getattr(row, key):g}" for key, name in VALUES.items() if getattr(row, key) is not None]
    if counts and row.row and (row.parameters or row.multiply_adds):
        parameters, multiply_adds = row.counts()
        parts.append(f"here {parameters:.2f} M and {multiply_adds:.2f} G")
    name = row.name if row.row else f"{row.table}."
    return f"{row.paper} {name:<18} {row.label}: {', '.join(parts)}{f'; {row.note}' if row.note else ''}"


def _data_of(paper: str, recipe: str | None) -> str:
    return str(read_yaml(RECIPES / paper / f"{recipe}.yaml")["data"]["name"])
