"""Where pixels are lost: what perfect labels on a coarse grid would score, and what a trained model gets wrong, where.

    python benchmarks/boundary_budget.py RUN [RUN …] [--classes pole] [--figure budget.png]

The data are those of the first run. An oracle of stride s knows the share of each class in every cell of s × s pixels,
and is upsampled bilinearly, as networks do with their logits: no network that classifies at this stride and
upsamples so is expected to score higher; one at stride 4 that sees images a third larger has cells of 3 pixels. What is
upsampled to equal pixels within each cell shows what the last upsampling is worth. Wrong pixels of a run are told apart
by what they are:

- thin: the true thing is at most 3 pixels wide there (`crispseg.evaluation.thin`);
- moved: the predicted class is there in truth, within `NEAR` pixels, so that a boundary lies in the wrong place;
- confused: all others, where a region or a part of one has the wrong class.

Where several runs are given, "agreed" is the share of a run's wrong pixels that all others get wrong in the same way:
what labels have wrong or leave open is among these.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare import PEERS
from numpy.typing import NDArray
from reporting import COLUMNS
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from crispseg.cli.parsing import build_data
from crispseg.cli.scoring import recorded_data
from crispseg.config.plugins import load_plugins
from crispseg.data import SegmentationDataset
from crispseg.evaluation import BoundaryScores, SegmentationScores, ThinScores
from crispseg.evaluation.thin import WIDTHS, widths
from crispseg.inference import Segmenter
from crispseg.io.files import atomic_path
from crispseg.io.images import write_image
from crispseg.labels import IGNORE
from crispseg.visualization.charts import drawn, new_figure

ORACLES = {f"oracle, stride {stride}": (stride, "bilinear") for stride in (2, 3, 4, 8)}
ORACLES["oracle, stride 4, equal cells"] = 4, "nearest"
DISTANCE = 3
NEAR = 7
KINDS = ("thin", "moved", "confused")


class Budget:
    """Scores of one way to label the images, and of which kinds its wrong pixels are."""

    def __init__(self, classes: int) -> None:
        self.metrics = SegmentationScores(classes), BoundaryScores(classes, [DISTANCE]), ThinScores(classes)
        self.wrong = dict.fromkeys((*KINDS, "agreed"), 0)
        self.pixels = 0

    def add(
        self, labels: NDArray[np.uint8], truth: NDArray[np.uint8], others: Sequence[NDArray[np.uint8]] = ()
    ) -> None:
        """An image: its labels and the truth `(H, W)`, and the labels of others, to agree with."""
        for metric in self.metrics:
            metric.update(torch.from_numpy(labels)[None], torch.from_numpy(truth)[None])
        wrong = (labels != truth) & (truth != IGNORE)
        thin = wrong & thin_pixels(truth)
        moved = wrong & ~thin & near_own(labels, truth)
        self.wrong["thin"] += int(thin.sum())
        self.wrong["moved"] += int(moved.sum())
        self.wrong["confused"] += int((wrong & ~thin & ~moved).sum())
        if others:
            self.wrong["agreed"] += int((wrong & np.all([other == labels for other in others], axis=0)).sum())
        self.pixels += int((truth != IGNORE).sum())

    def row(self, classes: Sequence[int] = ()) -> list[str]:
        """mIoU, boundary F, recall of each width, IoU of some classes."""
        scores, boundary, thin = (metric.scores() for metric in self.metrics)
        of_classes = [float(scores.iou[index]) for index in classes]
        values = [scores.miou, boundary.mean[DISTANCE], *thin.measures()["recall_of_widths"], *of_classes]
        return [f"{value:.1f}" for value in values]

    def shares(self) -> list[str]:
        """Wrong pixels in percent of all: in all, of each kind; and how many of them in percent are agreed."""
        total = sum(self.wrong[kind] for kind in KINDS)
        shares = [total, *(self.wrong[kind] for kind in KINDS)]
        return [f"{100 * each / self.pixels:.2f}" for each in shares] + [f"{100 * self.wrong['agreed'] / total:.0f}"]


def oracle(truth: NDArray[np.uint8], classes: int, stride: int, mode: str = "bilinear") -> NDArray[np.uint8]:
    """Labels `(H, W)` from the shares of classes in cells of the stride."""
    height, width = truth.shape
    padded = np.pad(truth, ((0, -height % stride), (0, -width % stride)), constant_values=IGNORE)
    known = torch.from_numpy(padded).long()
    shares: Tensor = F.one_hot(known.where(known != IGNORE, classes), classes + 1)[..., :classes].movedim(-1, 0)
    cells = F.avg_pool2d(shares[None].float(), stride)  # (1, C, H/s, W/s)
    upsampled = F.interpolate(cells, size=padded.shape, mode=mode)[0]
    return upsampled.argmax(0)[:height, :width].numpy().astype(np.uint8)


def thin_pixels(truth: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the true thing is of the first of `WIDTHS`."""
    thin = np.zeros(truth.shape, np.bool_)
    for index in set(np.unique(truth)) - {IGNORE}:
        thing = truth == index
        thin |= thing & (widths(thing) == 0)
    return thin


def near_own(labels: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the class of the label is there in truth within `NEAR` pixels, in rows and columns."""
    near = np.zeros(truth.shape, np.bool_)
    for index in np.unique(labels):
        there = torch.from_numpy(truth == index)[None].float()
        spread = F.max_pool2d(there, 2 * NEAR + 1, stride=1, padding=NEAR)[0].numpy() > 0
        near |= (labels == index) & spread
    return near


def short(runs: Sequence[str]) -> list[str]:
    """The names of the runs' folders, or where some are alike, their paths."""
    names = [Path(run).name for run in runs]
    return names if len(set(names)) == len(names) else list(runs)


def budgets(dataset: SegmentationDataset, runs: Sequence[str]) -> tuple[dict[str, Budget], dict[str, Budget]]:
    """Of the oracles and of the runs, by their names."""
    classes = len(dataset.labels)
    oracles = {name: Budget(classes) for name in ORACLES}
    models = {name: Budget(classes) for name in short(runs)}
    load_plugins([str(PEERS)])
    segmenters = [Segmenter(run) for run in runs]
    for at in range(len(dataset)):
        image, truth, _ = dataset[at]
        for name, one in oracles.items():
            one.add(oracle(truth, classes, *ORACLES[name]), truth)
        found = [segmenter.labels(image) for segmenter in segmenters]
        for index, one in enumerate(models.values()):
            one.add(found[index], truth, [*found[:index], *found[index + 1 :]])
    return oracles, models


def table(title: str, head: Sequence[str], rows: dict[str, list[str]]) -> Table:
    """A table of names and numbers."""
    result: Any = Table("", *head, title=title, title_justify="left")
    for name, values in rows.items():
        result.add_row(name, *values)
    return result


def draw(file: Path, every: dict[str, list[str]], shares: dict[str, list[str]]) -> None:
    """Of the runs the kinds of wrong pixels as bars, and of all the recall by width as lines."""
    figure = new_figure(1100, 340)
    bars, lines = figure.subplots(1, 2)
    left = np.zeros(len(shares))
    for at, (kind, color) in enumerate(zip(KINDS, ("tab:red", "tab:blue", "tab:orange"), strict=True), 1):
        lengths = np.array([float(values[at]) for values in shares.values()])
        bars.barh(list(shares), lengths, left=left, color=color, label=kind)
        left += lengths
    bars.invert_yaxis()
    bars.set_xlabel("wrong pixels, percent of all")
    bars.legend()
    for name, values in every.items():
        lines.plot(
            WIDTHS,
            [float(value) for value in values[2 : 2 + len(WIDTHS)]],
            "--" if name not in shares else "-o",
            label=name,
        )
    lines.set_xlabel("width of the true thing, pixels")
    lines.set_ylabel("recall, percent")
    lines.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.subplots_adjust(wspace=0.25, right=0.8)
    with atomic_path(file) as temporary:
        write_image(temporary, drawn(figure))


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--split", default="val")
    parser.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="whose IoU is shown too")
    parser.add_argument("--figure", type=Path, help="draw both tables into this PNG")
    given = parser.parse_args(argv)
    dataset = build_data(recorded_data(given.runs[0])["data"]).dataset(given.split)
    if unknown := set(given.classes).difference(dataset.labels.names):
        parser.error(f"no class is named {', '.join(sorted(unknown))}; give some of {', '.join(dataset.labels.names)}")
    shown = [dataset.labels.names.index(name) for name in given.classes]
    oracles, models = budgets(dataset, given.runs)
    console = Console(width=COLUMNS)
    every = {name: one.row(shown) for name, one in (oracles | models).items()}
    head = ["mIoU", f"F {DISTANCE} px", *(f"recall, {width} px" for width in WIDTHS), *given.classes]
    console.print(table("What can be reached, in percent", head, every))
    shares = {name: one.shares() for name, one in models.items()}
    console.print(table("Wrong pixels, in percent of all", ["all", *KINDS, "agreed, of these"], shares))
    if given.figure is not None:
        draw(given.figure, every, shares)


if __name__ == "__main__":
    main()
