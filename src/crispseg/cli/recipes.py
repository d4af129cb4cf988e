"""`crispseg recipes [PAPER [ROW]] [--counts] [--run --root DATA]`"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.console import Console

from crispseg.cli.command import Command, say
from crispseg.config.yaml_files import RECIPES, read_yaml
from crispseg.errors import CrispsegError
from crispseg.recipes import PAPERS, PaperRow, find_row, read_rows

VALUES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "parameters": "M parameters",
    "multiply_adds": "G multiply-adds",
}
"""Values that are listed, and the heads of their columns."""
WEIGHT_FILE, TEST_IMAGES = "WEIGHT_FILE", "TEST_IMAGES"


@dataclass(kw_only=True)
class Recipes(Command):
    """List the rows of the papers' tables, or print the commands that train and score one of them.

    Args:
        paper: sfnet, ddsm, agln or unept; by default all of them.
        row: a row, such as 1b.ppm.
        root: folder of the data.
        pretrained: file with weights of the backbone, where no library publishes them.
        images: folder with the images of the test split, where a server scores it.
        out: folder of the run.
        counts: also count parameters and multiply-adds of the models here.
        run: run the commands.
    """

    name: ClassVar[str] = "recipes"
    words: ClassVar[tuple[str, ...]] = ("paper", "row")
    paper: str | None = None
    row: str | None = None
    root: str | None = None
    pretrained: str | None = None
    images: str | None = None
    out: str | None = None
    counts: bool = False
    run: bool = False

    def __call__(self) -> None:
        console = Console()
        papers = [self.paper] if self.paper else [*PAPERS]
        rows = [find_row(papers[0], self.row)] if self.row else [row for paper in papers for row in read_rows(paper)]
        for row in rows:
            say(console, line_of(row, counts=self.counts))
        if self.row is None:
            return
        given = {key: getattr(self, key) for key in ("root", "pretrained", "images", "out")}
        commands = commands_of(rows[0], given)
        if not self.run:
            for command in commands:
                say(console, shlex.join(["crispseg", *command]))
            return
        if missing := [word for line in commands for word in line if word.isupper() and word not in given.values()]:
            raise CrispsegError(
                f"needs {missing[0]} for this row; give it, or edit and run the printed commands", "run"
            )

        from crispseg.cli.main import main

        for command in commands:
            if status := main(command):
                raise SystemExit(status)


def line_of(row: PaperRow, *, counts: bool) -> str:
    """Return a row in a line: the paper's values, what the paper counts as it is counted here, and the note."""
    values = {key: getattr(row, key) for key in VALUES if getattr(row, key) is not None}
    found = row.counts()._asdict() if counts and row.row and values.keys() & {"parameters", "multiply_adds"} else {}
    here = {
        key: f" (here {found[key]:.2f}, {100 * (found[key] / values[key] - 1):+.1f} %)" for key in found.keys() & values
    }
    parts = [f"{VALUES[key]} {value:g}{here.get(key, '')}" for key, value in values.items()]
    name = row.name if row.row else f"{row.table}."
    return f"{row.paper} {name:<18} {row.label}: {', '.join(parts)}{f'; {row.note}' if row.note else ''}"


def commands_of(row: PaperRow, given: dict[str, str | None]) -> list[list[str]]:
    """Return the commands that train and score a row, each as its words.

    Args:
        row: one that is trained here.
        given: values of the keys of `Recipes`; words in capitals stand for those that are missing.
    """
    run, score = given.get("out") or f"runs/{row.paper}-{row.name}", row.score
    options = [word for key, value in row.model.items() for word in (_flag(key), _written(value))]
    weights = ["--model.pretrained", given.get("pretrained") or WEIGHT_FILE] if row.weight_file else []
    data = _data_of(row.paper, row.recipe)
    root = given.get("root") or data.upper()
    commands = []
    if row.after:
        first, before = f"runs/{row.paper}-{row.after}", _data_of(row.paper, row.after)
        place = ["--data.root", root if before == data else before.upper(), "--out", first]
        commands.append(["train", f"{row.paper}/{row.after}.yaml", *options, *weights, *place])
        weights = ["--init_from", first]
    commands.append(["train", f"{row.paper}/{row.recipe}.yaml", *options, *weights, "--data.root", root, "--out", run])
    protocol = ["--protocol", score.protocol] if score.protocol != "whole" else []
    if score.server:
        out = ["--format", score.server, "--out", f"{run}/submission"]
        commands.append(["predict", run, given.get("images") or TEST_IMAGES, *protocol, *out])
    else:
        boundary = ["--boundary", *map(str, score.boundary), "--boundary_empty", score.boundary_empty]
        boundary = boundary if score.boundary else []
        commands.append(["evaluate", run, "--split", score.split, *protocol, *boundary])
    return commands


def _flag(key: str) -> str:
    return "--model" if key == "name" else f"--model.{key}"


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _data_of(paper: str, recipe: str | None) -> str:
    return str(read_yaml(RECIPES / paper / f"{recipe}.yaml")["data"]["name"])


run = Recipes.start
