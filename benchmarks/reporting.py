"""Rows of the CamVid tables: CSV files, means, paired differences, and a plot of every run."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import tables
import yaml
from scipy import stats

from crispseg.errors import CrispsegError
from crispseg.io.files import atomic_path

Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a CSV file; empty if it does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a CSV file atomically; fields that a row lacks are empty."""
    names = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def recipe_hash(recipe_file: Path) -> str:
    """Return a digest of the recipe's settings without comments, so that tables do not mix recipes."""
    recipe = yaml.safe_load(recipe_file.read_text(encoding="utf-8"))
    settings = {key: value for key, value in recipe.items() if key != "preset"}  # older recipes lack it
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def report(table: tables.Comparison) -> None:
    """Print mean ± sd of each network and its gain over its base at the same seeds; plot every run.

    Rows of earlier recipes are left out.

    Raises:
        CrispsegError: there are no rows of the recipe, or rows of several weights.
    """
    every_row = read_rows(table.scores)
    rows = [row for row in every_row if row["recipe"] == recipe_hash(table.recipe)]
    if not rows:
        raise CrispsegError(f"{table.scores} has no rows of {table.recipe.name} as it is; train and score first")
    if earlier := len(every_row) - len(rows):
        print(f"{earlier} rows of earlier recipes are left out.")
    frame = pd.DataFrame(rows).replace("", float("nan"))  # older rows lack some scores
    weights = frame["weights"][0]
    if wrong := {f"{row['model']}-{row['seed']}" for row in rows if row["weights"] != weights}:
        raise CrispsegError(f"{table.scores}: weights are not {weights} for {', '.join(wrong)}; remove these rows")
    scores = {"miou": "mIoU", **{f"boundary_f_{distance}": f"F, {distance} px" for distance in table.distances}}
    scores |= {f"iou_{label}": label for label in table.classes}
    values = frame.set_index(["model", "seed"])[list(scores)].astype(float).rename(columns=scores)
    if len(table.distances) > 1:
        values["F, mean"] = values.filter(like=" px").mean(axis=1, skipna=False)
    labels = {name: entry.label for name, entry in table.entries.items() if name in values.index}
    costs = frame.drop_duplicates("model").set_index("model")[["parameters", "multiply_adds"]].astype(float)
    summary = mean_and_sd(values).loc[list(labels)]
    summary["M parameters"] = (costs["parameters"] / 1e6).map("{:.2f}".format)
    summary["G multiply-adds"] = (costs["multiply_adds"] / 1e9).map("{:.2f}".format)
    if seconds := read_rows(table.seconds):
        summary["s / image"] = pd.DataFrame(seconds).set_index("model")["seconds"]
    print(summary.rename(labels).to_markdown())
    gains = {
        f"{entry.label} − {table.entries[entry.base].label}": values.loc[name] - values.loc[entry.base]
        for name, entry in table.entries.items()
        if entry.base in labels and name in labels
    }
    if gains:
        paired = pd.concat(gains, names=["difference"]).dropna(how="all")
        intervals = mean_and_interval(paired, len(gains) if table.corrected else 1)
        print(intervals.to_markdown(disable_numparse=True))  # else +1.0 becomes 1
    draw(table, values, labels)


def mean_and_sd(values: pd.DataFrame) -> pd.DataFrame:
    """Return mean ± sd ("70.1 ± 0.4") of each column over the seeds of each name, and their number."""
    groups = values.groupby(level=0, sort=False)
    mean, sd = groups.mean(), groups.std()
    cells = mean.map("{:.1f}".format) + sd.map(lambda value: "" if pd.isna(value) else f" ± {value:.1f}")
    cells.insert(0, "seeds", groups.size())
    return cells


def mean_and_interval(gains: pd.DataFrame, comparisons: int = 1) -> pd.DataFrame:
    """Return the mean of paired differences with its 95 % interval (t), such as "+0.5 (+0.1 to +0.9)".

    The intervals are Bonferroni-corrected for the number of comparisons.
    """
    groups = gains.groupby(level=0, sort=False)
    mean, counts = groups.mean(), groups.count()
    half = groups.sem() * stats.t.ppf(1 - 0.025 / comparisons, (counts - 1).clip(lower=1))
    ranges = (mean - half).map(" ({:+.1f} to ".format) + (mean + half).map("{:+.1f})".format)
    cells = mean.map("{:+.1f}".format) + ranges.where(half.notna(), "")
    cells.insert(0, "seeds", groups.size())
    return cells


def draw(table: tables.Comparison, values: pd.DataFrame, labels: dict[str, str]) -> None:
    """Plot mIoU and boundary F of each run as dots, and their means as lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.55 * len(labels)), layout="constrained")
    for axes, column in zip(figure.subplots(1, 2, sharey=True), ["mIoU", values.columns[1]], strict=True):
        for height, name in enumerate(labels):
            own = values.loc[name][column]
            axes.plot(own, [height] * len(own), "o", color="tab:blue", alpha=0.7)
            axes.vlines(own.mean(), height - 0.3, height + 0.3, color="black")
        axes.set_xlabel(f"{column} (%), CamVid val")
        axes.set_yticks(range(len(labels)), list(labels.values()))
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.grid(axis="x", alpha=0.3)
    with atomic_path(table.plot) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
