"""Rows of the papers' tables: model, training recipe, scoring, counts and the paper's values."""

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
    """Scoring of a row.

    Args:
        split: split of the data.
        protocol: test protocol; the default is one pass over the whole image.
        server: file format of the benchmark's server, if only the server has the truth of the test split.
        boundary: distances of boundary scores in pixels.
        boundary_empty: see `crispseg evaluate`.
    """

    split: str = "val"
    protocol: str = "whole"
    server: str | None = None
    boundary: tuple[int, ...] = ()
    boundary_empty: str = "skip"


@dataclass
class Counted:
    """Conditions of a paper's counts: classes, `(height, width)`, and whether products of two features count.

    `auxiliary` is the size of an auxiliary head of training that the paper also counts, in millions of parameters.
    """

    classes: int
    size: tuple[int, int]
    attention: bool = True
    auxiliary: float = 0


@dataclass(kw_only=True)
class PaperRow:
    """Row of a table, with the paper's values.

    Args:
        paper: name of the paper's model, such as "sfnet".
        table: number of the table.
        title: topic of the table.
        row: name of the row in its table; None for a method with values from another source.
        label: name of the method in the paper.
        recipe: file of training settings in the folder of the paper; None in the same case as `row`.
        after: recipe of the earlier run that provides the initial weights.
        model: name and options of the model for `create_model`.
        weight_file: the authors publish the weights of the backbone, but no library does.
        score: scoring of the row.
        counted: conditions of parameters and multiply-adds.
        miou, pixel_accuracy: scores in percent.
        iou: IoU in percent of each class in the order of the data.
        boundary_f: boundary F-score in percent, by distance in pixels.
        parameters: parameters in millions.
        multiply_adds: multiply-adds in billions.
        fps: images per second.
        memory: memory of a training run in GB.
        note: open details of the paper, or differences of crispseg.
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
        """Name of the row in `crispseg recipes`, such as "1b.ppm"."""
        return f"{self.table}.{self.row}"

    def build(self) -> SegmentationModel:
        """Build the model of the row with random weights."""
        return create_model(num_classes=self.counted.classes, **self.model)

    def counts(self) -> tuple[float, float]:
        """Return the parameters in millions and the multiply-adds in billions of crispseg's model."""
        with torch.device("meta"):  # shapes are enough
            model = self.build()
        products = count_multiply_adds(model, *self.counted.size, attention=self.counted.attention)
        return count_parameters(model) / 1e6 + self.counted.auxiliary, products / 1e9


def read_rows(paper: str) -> list[PaperRow]:
    """Return all rows of a paper's tables in order; a name that is not in `PAPERS` raises a `CrispsegError`."""
    if paper not in PAPERS:
        raise CrispsegError(f"there are no recipes for '{paper}'{did_you_mean(paper, PAPERS)}")
    tree = read_yaml(RECIPES / f"{paper}.yaml")
    rows = []
    for table in tree["tables"]:
        shared = {"paper": paper, "counted": tree["counted"], **table}
        ours, others = shared.pop("rows"), shared.pop("others", [])
        for row in ours:
            model = row.get("model", {})
            if model.get("name", table["model"]["name"]) == table["model"]["name"]:
                model = table["model"] | model
            else:  # another model shares only the backbone with the table's model
                model = {"backbone": table["model"].get("backbone"), **model}
            weight_file = model["backbone"] in tree.get("weight_files", ())
            rows.append(PaperRow(**{**shared, **row, "model": model, "weight_file": weight_file}))
        elsewhere = {key: shared[key] for key in ("paper", "table", "title", "counted")}
        rows += [PaperRow(**elsewhere, **row) for row in others]
    return rows


def find_row(paper: str, name: str) -> PaperRow:
    """Return the row of this name, such as "1b.ppm"; an unknown name raises a `CrispsegError`."""
    rows = {row.name: row for row in read_rows(paper) if row.row}
    if name not in rows:
        raise CrispsegError(f"{paper} has no row '{name}'{did_you_mean(name, rows)}")
    return rows[name]
