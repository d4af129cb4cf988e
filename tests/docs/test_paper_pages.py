"""The papers' pages list every table, figure and setting, and what they name exists."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from training_runs import DRAWN

from crispseg import create_model, list_models
from crispseg.backbones import NAMED_BACKBONES
from crispseg.benchmarking.counting import count_multiply_adds, count_parameters
from crispseg.cli.main import COMMANDS
from crispseg.data import DATA_SOURCES, Augment
from crispseg.inference.protocols import PROTOCOLS
from crispseg.models.refinement import REFINE_OPTIONS
from crispseg.models.registry import resolved_options
from crispseg.training import ModelConfig, TrainConfig
from tests.recipes.recipe_files import RECIPES

ROOT = Path(__file__).resolve().parents[2]
SOURCES = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/crispseg/models").glob("*.py"))
ROMAN = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII"]
PAPERS = {  # tables and figures
    "agln": (ROMAN, ["1", "2", "3", "4", "5", "6"]),
    "ddsm": (["1", "2", "3", "4"], ["1", "2", "3", "4"]),
    "sfnet": (
        ["1a", "1b", "1c", "1d", "2a", "2b", "2c", "2d", "3", "4", "5a", "5b", "6", "7", "8"],
        ["1", "2", "3", "4", "5", "6", "7", "8"],
    ),
    "unept": (["1", "2", "3", "4", "5", "6", "7", "8"], ["1", "2", "3", "4"]),
}
COUNTED = {  # the backbone where a row names none, classes, side of the image
    "agln": ("resnet50_deep", 59, 480),
    "ddsm": ("resnet50", 19, 1024),
    "sfnet": ("resnet18_deep", 19, 1024),
}


def rows(paper: str) -> list[dict[str, str]]:
    """By column, the rows of all tables of a page that say what is here and the status; the first column is `what`."""
    found, columns = [], []
    for line in (ROOT / f"docs/papers/{paper}.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells or set(cells[0]) == {"-"} or set(line) <= set("|- "):
            columns = columns if cells else []
        elif not columns:
            columns = cells
        elif {"here", "status"} <= set(columns):
            assert len(cells) == len(columns), line
            found.append(dict(zip(["what", *columns[1:]], cells, strict=True)))
    return found


def named(words: str, what: str, known: list[str]) -> set[str]:
    """The numbers behind `what`: "Tables IV, V and VII", "Figs. 1 to 3", "Table 1a"."""
    numbers, number = set(), r"(?:[IVX]+|\d+[a-d]?)\b"
    for listed in re.findall(rf"\b{what}s?\.? ({number}(?:(?:, | and | to ){number})*)", words):
        for part in re.split(r", | and ", listed):
            first, _, last = part.partition(" to ")
            numbers |= {*known[known.index(first) : known.index(last or first) + 1]}
    return numbers


@pytest.mark.parametrize("paper", PAPERS)
def test_every_table_and_figure_is_listed_with_a_status(paper: str) -> None:
    listed, (tables, figures) = rows(paper), PAPERS[paper]
    assert {number for row in listed for number in named(row["what"], "Table", tables)} == {*tables}
    assert {number for row in listed for number in named(row["what"], "Fig", figures)} == {*figures}
    for row in listed:
        assert re.match(r"(works|differs|not run)\b", row["status"]), row


OPTIONS = re.compile(r"\w+=\S+( \w+=\S+)*")


def options(code: str) -> dict[str, Any]:
    """`fuse=add fuse_levels=[5]`"""
    return {key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in code.split())}


def check_options(model: str, pairs: dict[str, Any]) -> None:
    """That `create_model` knows them and takes their values."""
    shared = {key: value for key, value in pairs.items() if key in (*REFINE_OPTIONS, "backbone")}
    own = {key: value for key, value in pairs.items() if key not in shared}
    resolved_options(model, own)
    if "backbone" in shared:
        assert shared["backbone"] in NAMED_BACKBONES or timm.is_model(shared["backbone"])
    refinement = {key: value for key, value in shared.items() if key != "backbone"}
    if refinement:
        small = ModelConfig("fpn", "test_efficientnet", False, **refinement, options={"width": 8})
        assert small.build(3, auxiliary=False).refiner is not None


def check_setting(key: str, value: Any) -> None:
    """That `crispseg train` has it and takes the value."""
    group, _, field = key.rpartition(".")
    if group == "augment":
        dataclasses.replace(Augment(), **{field: value})
    elif key == "data.name":
        assert value in DATA_SOURCES
    elif group == "data":
        assert any(field in source.__dataclass_fields__ for source in DATA_SOURCES.values())
    else:
        dataclasses.replace(TrainConfig(DRAWN), **{key: value})


def check(code: str, model: str | None) -> str | None:
    """That what a code span names exists; gives the model of which options behind it are."""
    if code in list_models():
        return code
    if code.endswith(".yaml"):
        assert (RECIPES / code).is_file()
    elif code.startswith("crispseg "):
        assert shlex.split(code)[1] in COMMANDS  # test_documentation.py has their flags
    elif code.startswith("python "):
        assert (ROOT / code.split()[1]).is_file()
    elif OPTIONS.fullmatch(code):
        assert model is not None
        check_options(model, options(code))
    elif ": " in code:
        key, _, value = code.partition(": ")
        check_setting(key, yaml.safe_load(value))
    else:
        assert code in PROTOCOLS or f"\nclass {code}(" in SOURCES
    return model


@pytest.mark.parametrize("paper", PAPERS)
def test_what_the_tables_name_exists(paper: str) -> None:
    checked = 0
    for row in rows(paper):
        what, here, status = row["what"], row["here"], row["status"]
        model = None
        for code in re.findall(r"`([^`]+)`", here):
            try:
                model = check(code, model)
            except Exception as error:
                raise AssertionError(f"{paper}: {what}: `{code}`: {error}") from error
            checked += 1
        assert here == "–" or "`" in here, what
        assert here != "–" or status.startswith(("not run", "differs")), what
    assert checked > 30


@pytest.mark.slow
@pytest.mark.parametrize("paper", COUNTED)
def test_counts_of_the_tables_are_counted(paper: str) -> None:
    backbone, classes, side = COUNTED[paper]
    counted = [row for row in rows(paper) if row.get("parameters")]
    assert len(counted) > 10
    for row in counted:
        name, *codes = re.findall(r"`([^`]+)`", row["here"])
        given = options(" ".join(filter(OPTIONS.fullmatch, codes)))
        with torch.device("meta"):  # nothing is computed
            model = create_model(name, num_classes=classes, **{"backbone": backbone, **given})
        found = [count_parameters(model) / 1e6, count_multiply_adds(model, side, side) / 1e9]
        shown = [row["parameters"], row["multiply-adds"].partition(" (")[0]]
        if "with weights" in row:
            found.append(count_multiply_adds(model, side, side, attention=False) / 1e9)
            shown.append(row["with weights"])
        assert shown == [f"{each:.2f}" for each in found], row["what"]


def test_what_does_not_exist_is_noticed() -> None:
    for code in ("agln_figure_9", "descriptors=few", "depth=3", "lrs: 0.1", "augment.colour: 1", "optimizer: lion"):
        with pytest.raises(Exception, match=r"."):
            check(code, "agln")
