"""What a table says of its rows: means, differences at the same seed, and a picture of every run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import tables
from results import Row, f_column, iou_column, read_rows, recipe_hash, score_rows
from rich.console import Console
from rich.table import Table

from crispseg.errors import CrispsegError
from crispseg.io.files import atomic_path

COLUMNS = 160  # characters, of what is printed

Measures = dict[str, tuple[str, ...]]
"""Title → columns of the CSV file, of which a run's value is the mean."""


def report(table: tables.Comparison) -> None:
    """Print the table and draw the plot.

    Raises:
        CrispsegError: there are no rows, some are of another recipe, or they began with different weights.
    """
    rows = score_rows(table)
    if not rows:
        raise CrispsegError(f"{table.scores} has no rows; train and score first")
    for row in rows:
        if row["recipe"] != recipe_hash():
            raise CrispsegError(
                f"{table.scores}: {row['model']} with seed {row['seed']} followed recipe {row['recipe']}, but "
                f"{tables.RECIPE.name} is {recipe_hash()}; remove the row and train anew"
            )
    if len(weights := sources(rows, "weights")) > 1:
        raise CrispsegError(f"{table.scores} mixes weights: {', '.join(weights)}; keep the rows of one file")
    console = Console(width=COLUMNS)
    console.print(means(table, rows))
    if (pairs := differences(table, rows)).row_count:
        console.print(pairs)
    if len(commits := sources(rows, "commit")) > 1:
        print(f"more than one commit, which may train differently: {', '.join(commits)}")
    draw(table, rows)


def sources(rows: Sequence[Row], key: str) -> list[str]:
    """Each value of a column, with the runs that have it in brackets."""
    runs: dict[str, list[str]] = {}
    for row in rows:
        runs.setdefault(row[key], []).append(f"{row['model']}-{row['seed']}")
    return [f"{value} ({', '.join(names)})" for value, names in runs.items()]


def measures(table: tables.Comparison) -> Measures:
    """mIoU, boundary F at each distance, the mean of these where there are several, and IoU of the table's classes."""
    columns = [f_column(distance) for distance in table.distances]
    single = {f"F, {distance} px": (column,) for distance, column in zip(table.distances, columns, strict=True)}
    classes = {name: (iou_column(name),) for name in table.classes}
    return {"mIoU": ("miou",), **single, **({"F, mean": tuple(columns)} if len(columns) > 1 else {}), **classes}


def value(row: Row, columns: Sequence[str]) -> float:
    """A score of one run, the mean of its columns."""
    return statistics.fmean(float(row[column]) for column in columns)


def means(table: tables.Comparison, rows: Sequence[Row]) -> Table:
    """A line for each network that has rows."""
    seconds = {row["model"]: row["seconds"] for row in read_rows(table.seconds)}
    shown = Table("model", "seeds", *measures(table), "M parameters", "G multiply-adds", "s / image")
    for name, entry in table.entries.items():
        if own := [row for row in rows if row["model"] == name]:
            scores = [mean_and_sd(value(row, columns) for row in own) for columns in measures(table).values()]
            if len({row["multiply_adds"] for row in own}) > 1:
                raise CrispsegError(f"{table.scores} has rows of {name} with other multiply-adds; score them alike")
            costs = [f"{int(own[0]['parameters']) / 1e6:.2f}", f"{int(own[0]['multiply_adds']) / 1e9:.2f}"]
            shown.add_row(entry.label, str(len(own)), *scores, *costs, seconds.get(name, "not run"))
    return shown


def differences(table: tables.Comparison, rows: Sequence[Row]) -> Table:
    """What each network has over its base, at each seed of both; means of different seeds would be no comparison."""
    found = {(row["model"], int(row["seed"])): row for row in rows}
    shown = Table("difference", "seed", *measures(table))
    for name, entry in table.entries.items():
        if entry.base is None:
            continue
        label = f"{entry.label} − {table.entries[entry.base].label}"
        seeds = [seed for own, seed in sorted(found) if own == name and (entry.base, seed) in found]
        gains = [
            [value(found[name, seed], columns) - value(found[entry.base, seed], columns) for seed in seeds]
            for columns in measures(table).values()
        ]
        for at, seed in enumerate(seeds):
            shown.add_row(label, str(seed), *(f"{gain[at]:+.1f}" for gain in gains))
        if len(seeds) > 1:
            shown.add_row(label, "mean", *(mean_and_sd(gain, "+") for gain in gains))
    return shown


def mean_and_sd(values: Iterable[float], sign: str = "") -> str:
    """ "70.1 ± 0.4", the sample's standard deviation; without it for a single value."""
    values = list(values)
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.1f}{spread}"


def draw(table: tables.Comparison, rows: Sequence[Row]) -> None:
    """Every seed as a dot, the mean of several as a line, for mIoU and boundary F."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = [name for name in table.entries if any(row["model"] == name for row in rows)]
    *most, last = map(str, table.distances)
    at = f", mean of {', '.join(most)} and {last} px" if most else f" at {last} px"
    panels = [("mIoU (%)", ("miou",)), (f"boundary F-score{at} (%)", tuple(map(f_column, table.distances)))]
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 1.2 + 0.55 * len(names)), layout="constrained")
        all_axes = figure.subplots(1, 2, sharey=True)
        for axes, (title, columns) in zip(all_axes, panels, strict=True):
            for height, name in enumerate(names):
                values = [value(row, columns) for row in rows if row["model"] == name]
                axes.plot(values, [height] * len(values), "o", color="tab:blue", markersize=6, alpha=0.7)
                if len(values) > 1:
                    axes.vlines(statistics.fmean(values), height - 0.3, height + 0.3, color="black", linewidth=1.5)
            axes.set_xlabel(title)
            axes.grid(axis="x", alpha=0.3)
            axes.margins(x=0.1)
        costs = {row["model"]: int(row["multiply_adds"]) / 1e9 for row in rows}
        labels = [f"{table.entries[name].label}\n{costs[name]:.2f} G multiply-adds" for name in names]
        all_axes[0].set_yticks(range(len(names)), labels)
        all_axes[0].set_ylim(len(names) - 0.5, -0.5)
        figure.supxlabel("CamVid val; a dot is a seed, a line the mean of several", fontsize=10)
        with atomic_path(table.plot) as temporary:
            figure.savefig(temporary, dpi=150)
