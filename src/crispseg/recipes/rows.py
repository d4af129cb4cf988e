"""Rows of the papers' tables: the model of each, what trains, scores and counts it, and the paper's values."""

from __future__ import annotations

from dataclasses import field
from typing import Any

import torch
from pydantic.dataclasses import dataclass

from crispseg.benchmarking.cost import count_multiply_adds, count_parameters
from crispseg.config.yaml_files import RECIPES, read_yaml
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.models import SegmentationModel, create_model

PAPERS = ("sfnet", "ddsm", "agln", "unept")


@dataclass
class Score:
    """How a row is scored.

    Args:
        split: the split of the data.
        protocol: the test protocol; one pass over the whole image by default.
        server: format of the files for a benchmark's server, which alone has the truth of the test split.
        boundary: distances in pixels at which boundaries are scored.
        boundary_empty: as `crispseg evaluate` takes it.
    """

    split: str = "val"
    protocol: str = "whole"
    server: str | None = None
    boundary: tuple[int, ...] = ()
    boundary_empty: str = "skip"


@dataclass
class Counted:
    """What a paper's counts are of: the number of classes, `(height, width)`, and products of two features or not."""

    classes: int
    size: tuple[int, int]
    attention: bool = True


@dataclass(kw_only=True)
class PaperRow:
    """A row of a table, with the paper's values.

    Args:
        paper: the system, such as "sfnet".
        table: number of the table.
        title: what the table is about.
        row: name of the row in its table; None for a method whose values the paper takes from elsewhere.
        label: what the paper calls it.
        recipe: file of settings that trains it, in the folder of the paper; None as for `row`.
        after: recipe of an earlier run that it starts from.
        model: name and options of the model, as `create_model` takes them.
        weight_file: no library publishes the weights of the backbone; the authors do.
        score: how it is scored.
        counted: what parameters and multiply-adds are of.
        miou, pixel_accuracy: percent.
        iou: percent, of each class in the order of the data.
        boundary_f: percent, by distance in pixels.
        parameters: in millions.
        multiply_adds: in billions.
        fps: images a second.
        memory: of a training, in GB.
        note: what the paper leaves open, or how ours differs.
    """

    paper: str
    table: str
    title: str
    label: str
    row: str | None = None
    recipe: str | None = None
    after: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    weight_file: bool = False
    score: Score = field(default_factory=Score)
    counted: Counted
    miou: float | None = None
    pixel_accuracy: float | None = None
    iou: tuple[float, ...] = ()
    boundary_f: dict[int | str, float] = field(default_factory=dict)
    parameters: float | None = None
    multiply_adds: float | None = None
    fps: float | tuple[float, float] | None = None
    memory: float | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """The name by which `crispseg recipes` knows it, such as "1b.ppm"."""
        return f"{self.table}.{self.row}"

    def build(self) -> SegmentationModel:
        """Return its model with random weights."""
        return create_model(num_classes=self.counted.classes, **self.model)

    def counts(self) -> tuple[float, float]:
        """Return the parameters in millions and the multiply-adds in billions of its model here."""
        with torch.device("meta"):  # shapes are enough
            model = self.build()
        products = count_multiply_adds(model, *self.counted.size, attention=self.counted.attention)
        return count_parameters(model) / 1e6, products / 1e9


def read_rows(paper: str) -> list[PaperRow]:
    """Return all rows of the tables of one of `PAPERS`, in the paper's order; any other is a `CrispsegError`."""
    if paper not in PAPERS:
        raise CrispsegError(f"there are no recipes of '{paper}'{did_you_mean(paper, PAPERS)}")
    tree = read_yaml(RECIPES / f"{paper}.yaml")
    rows = []
    for table in tree["tables"]:
        shared = {"paper": paper, "counted": tree["counted"], **table}
        ours, others = shared.pop("rows"), shared.pop("others", [])
        for row in ours:
            model = row.get("model", {})
            if model.get("name", table["model"]["name"]) == table["model"]["name"]:
                model = table["model"] | model
            else:  # another model has none of the table's options but the backbone
                model = {"backbone": table["model"].get("backbone"), **model}
            weight_file = model["backbone"] in tree.get("weight_files", ())
            rows.append(PaperRow(**{**shared, **row, "model": model, "weight_file": weight_file}))
        elsewhere = {key: shared[key] for key in ("paper", "table", "title", "counted")}
        rows += [PaperRow(**elsewhere, **row) for row in others]
    return rows


def find_row(paper: str, name: str) -> PaperRow:
    """Return the row of this name, such as "1b.ppm"; a `CrispsegError` if there is none."""
    rows = {row.name: row for row in read_rows(paper) if row.row}
    if name not in rows:
        raise CrispsegError(f"{paper} has no row '{name}'{did_you_mean(name, rows)}")
    return rows[name]
