"""`crispseg quickstart`: train, test and look, in minutes."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import lightning as L
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from crispseg.cli.parsing import merge, parse_training, read_yaml
from crispseg.cli.scoring import write_json
from crispseg.data import DataSource, SegmentationDataset, check_split
from crispseg.errors import CrispsegError
from crispseg.evaluation.evaluate import evaluate
from crispseg.evaluation.summary import Evaluation, score_table
from crispseg.imaging import colorize, write_image
from crispseg.inference import Segmenter
from crispseg.models import SegmentationModel
from crispseg.plugins import load_plugins
from crispseg.training import train
from crispseg.training.run import CONFIG, check_folder, starting_model
from crispseg.visuals import error_map, panels

DESCRIPTION = (
    "Train SFNet on built-in street scenes, or with --data on your own images; print IoU on unseen images before and "
    "after, and draw panels of image, ground truth, prediction and errors. All keys of 'crispseg train' work."
)


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    started = time.monotonic()
    console = Console(highlight=False, soft_wrap=True)
    recipe = read_yaml(Path(str(resources.files("crispseg") / "recipes" / "quickstart.yaml")))
    recipe = merge(recipe, {"out": str(_unused(Path("runs/quickstart")))})
    config = parse_training(argv, recipe, prog="crispseg quickstart", description=DESCRIPTION)
    load_plugins(config.plugins)
    if config.devices > 1:
        raise CrispsegError(f"devices is {config.devices}; quickstart uses one, 'crispseg train' can use more")
    check_folder(config, resume=False)
    dataset = unseen(config.data).with_channels(config.model.in_chans)
    check_split(dataset, "unseen")

    console.print("Before training:")
    L.seed_everything(config.seed, verbose=False)
    model, _ = starting_model(config, dataset.labels)  # as training will find it
    before = evaluate(model, dataset, workers=config.workers)
    console.print(f"mIoU on {len(dataset)} unseen images: {before.miou:.1f}")
    result = train(config, console=console)
    model = result.model
    after = evaluate(model, dataset, workers=config.workers)

    console.print(f"{config.model.name} on {config.data.name}, IoU in percent on {len(dataset)} unseen images")
    scores = {"before": Evaluation(dataset.labels, before), "after": Evaluation(dataset.labels, after)}
    console.print(score_table(scores), soft_wrap=False)
    write_json(result.folder / "scores.json", {when: each.as_json() for when, each in scores.items()})
    model.info = dataclasses.replace(model.info, metrics={**model.info.metrics, "unseen_miou": round(after.miou, 2)})
    model.save_pretrained(result.folder / "model")
    write_image(result.folder / "panels.png", draw_panels(model, dataset))
    console.print(f"pictures: {result.folder / 'panels.png'}")
    console.print(f"done in {time.monotonic() - started:.0f} s; the model is in {result.folder / 'model'}")
    console.print(f"try it:   crispseg predict {result.folder} IMAGE_OR_FOLDER --out predictions")


def unseen(data: DataSource) -> SegmentationDataset:
    """The test split, or the val split of data that have none."""
    return data.dataset("test" if "test" in data.splits() else "val")


def draw_panels(model: SegmentationModel, dataset: SegmentationDataset, count: int = 4) -> NDArray[np.uint8]:
    """Rows of image, truth, prediction and errors for images spread over a split, `(H, W, 3)`."""
    segmenter = Segmenter(model, "cpu")
    palette = dataset.labels.palette
    rows = []
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int):
        image, truth, _ = dataset[int(index)]
        result = segmenter(image)
        truth_colors, colors = (colorize(labels, palette) for labels in (truth, result.labels))
        rows.append([result.image, truth_colors, colors, error_map(result.labels, truth, palette)])
    return panels(rows, ["image", "ground truth", "prediction", "errors"], dataset.labels)


def _unused(folder: Path) -> Path:
    """The folder, or with a number where it is taken: another quickstart never overwrites one."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([folder], numbered) if not (candidate / CONFIG).exists())
