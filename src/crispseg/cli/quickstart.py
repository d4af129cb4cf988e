"""`crispseg quickstart`: train, test and look, in minutes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from crispseg.cli.parsing import merge, parse_training, read_yaml, take_flag
from crispseg.data import DataSource, SegmentationDataset, check_split
from crispseg.errors import CrispsegError
from crispseg.evaluation.evaluate import evaluate
from crispseg.evaluation.scores import Scores
from crispseg.evaluation.summary import Evaluation, score_table
from crispseg.files import atomic_path
from crispseg.imaging import colorize, write_image
from crispseg.inference import Segmenter
from crispseg.models import SegmentationModel
from crispseg.plugins import load_plugins
from crispseg.training import TrainConfig, train
from crispseg.training.precision import lacks_bf16
from crispseg.training.run import CONFIG, check_folder, starting_model
from crispseg.visuals import error_map, panels

DESCRIPTION = (
    "Train SFNet on built-in street scenes, or with --data on your own images; print IoU on unseen images before and "
    "after, and draw panels of image, truth, prediction and errors. All keys of 'crispseg train' work."
)


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    started = time.monotonic()
    console = Console()
    recipe = read_yaml(Path(str(resources.files("crispseg") / "recipes" / "quickstart.yaml")))
    in_fp32 = lacks_bf16() and not torch.cuda.is_available()  # where bf16 would take more than twice as long
    if in_fp32:
        recipe = merge(recipe, {"precision": "fp32"})
    if take_flag(argv, "--out") is None:
        recipe = merge(recipe, {"out": str(_unused(Path("runs/quickstart")))})
    config = parse_training(argv, recipe, prog="crispseg quickstart", description=DESCRIPTION)
    load_plugins(config.plugins)
    if config.devices > 1:
        raise CrispsegError(f"devices is {config.devices}; quickstart uses one, 'crispseg train' can use more")
    check_folder(config, resume=False)
    dataset = unseen(config.data).with_channels(config.model.in_chans)
    check_split(dataset, "unseen")

    if in_fp32 and config.precision == "fp32":
        console.print("Training in fp32, since this processor has no bf16 instructions.", highlight=False)
    console.print("Before training:", highlight=False)
    before = evaluate(_untrained(config, dataset), dataset, workers=config.workers)
    console.print(f"mIoU on {len(dataset)} unseen images: {before.miou:.1f}", highlight=False)
    result = train(config, console=console)
    after = evaluate(result.model, dataset, workers=config.workers)

    title = f"{config.model.name} on {config.data.name}, IoU in percent on {len(dataset)} unseen images"
    console.print(title, highlight=False, soft_wrap=True)
    console.print(
        score_table({"before": Evaluation(dataset.labels, before), "after": Evaluation(dataset.labels, after)})
    )
    _save_scores(result.folder, result.model, before, after)
    picture = result.folder / "panels.png"
    write_image(picture, draw_panels(result.model, dataset))
    console.print(f"pictures: {picture}", highlight=False)
    console.print(
        f"done in {time.monotonic() - started:.0f} s; the model is in {result.folder / 'model'}", highlight=False
    )
    console.print(f"try it:   crispseg predict {result.folder} IMAGE_OR_FOLDER --out predictions", highlight=False)


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
    return panels(rows, ["image", "truth", "prediction", "errors"], dataset.labels)


def _untrained(config: TrainConfig, dataset: SegmentationDataset) -> SegmentationModel:
    """The model as training will find it."""
    L.seed_everything(config.seed, verbose=False)
    return starting_model(config, dataset.labels)[0]


def _save_scores(folder: Path, model: SegmentationModel, before: Scores, after: Scores) -> None:
    """`scores.json` in the run, and the score on unseen images in the saved model."""
    labels = model.info.label_set()
    with atomic_path(folder / "scores.json") as temporary:
        scores = {"before": Evaluation(labels, before).as_json(), "after": Evaluation(labels, after).as_json()}
        temporary.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    model.info = dataclasses.replace(model.info, metrics={**model.info.metrics, "unseen_miou": round(after.miou, 2)})
    model.save_pretrained(folder / "model")


def _unused(folder: Path) -> Path:
    """The folder, or with a number where it is taken: another quickstart never overwrites one."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([folder], numbered) if not (candidate / CONFIG).exists())
