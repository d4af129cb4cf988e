"""A first run in minutes: train a model, and show what it has learned on images that it has not seen."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping

import lightning as L
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from crispseg.data import DataSource, InstanceDataset, SegmentationDataset, check_split
from crispseg.data.split_check import known_range
from crispseg.errors import CrispsegError
from crispseg.evaluation.evaluate import score_model
from crispseg.evaluation.summary import Evaluation, score_table
from crispseg.inference import Segmenter
from crispseg.inference.objects import NUMBERED
from crispseg.io.files import atomic_path
from crispseg.io.images import colorize, write_image
from crispseg.models import SegmentationModel
from crispseg.training.checkpoints import check_folder
from crispseg.training.config import TrainConfig
from crispseg.training.fit import starting_model, train
from crispseg.training.result import Run
from crispseg.visualization.pictures import error_map, panels


def quickstart(config: TrainConfig, console: Console) -> Run:
    """Train, and print and draw the scores before and after.

    The folder of the run gets `scores.json` and `panels.png` too.

    Args:
        config: the run; on one device.
        console: where to print.

    Raises:
        CrispsegError: more than one device; as `train`.
    """
    started = time.monotonic()
    if config.devices > 1:
        raise CrispsegError(f"is {config.devices}; quickstart uses one, 'crispseg train' can use more", "devices")
    check_folder(config, resume=False)
    dataset = unseen(config.data).with_channels(config.model.in_chans, known_range(config.data.dataset("train")))
    check_split(dataset, "unseen")

    console.print("Before training:")
    L.seed_everything(config.seed, verbose=False)
    start, _ = starting_model(config, dataset.labels)  # as training will find it
    scores = {"before": judge(start, dataset, config.workers)}
    console.print(f"mIoU on {len(dataset)} unseen images: {scores['before'].scores.miou:.1f}")
    result = train(config, console=console)
    model = result.model
    scores["after"] = judge(model, dataset, config.workers)

    console.print(f"{config.model.name} on {config.data.name}, IoU in percent on {len(dataset)} unseen images")
    console.print(score_table(scores), soft_wrap=False)
    if found := [each.objects for each in scores.values() if each.objects]:
        before, after = (int(each.predicted.sum()) for each in found)
        console.print(f"Objects: {found[0].truth.sum()} true; {before} predicted before training, {after} after")
    with atomic_path(result.folder / "scores.json") as temporary:
        summary = {when: each.as_json() for when, each in scores.items()}
        temporary.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    reached = {"unseen_miou": round(scores["after"].scores.miou, 2)}
    model.info = dataclasses.replace(model.info, metrics={**model.info.metrics, **reached})
    model.save_pretrained(result.folder / "model")
    write_image(result.folder / "panels.png", draw_panels({"before": start, "after": model}, dataset))
    console.print(f"pictures: {result.folder / 'panels.png'}")
    console.print(f"done in {time.monotonic() - started:.0f} s; the model is in {result.folder / 'model'}")
    return result


def unseen(data: DataSource) -> SegmentationDataset:
    """The test split, or the val split of data that have none."""
    return data.dataset("test" if "test" in data.splits() else "val")


def judge(model: SegmentationModel, dataset: SegmentationDataset, workers: int) -> Evaluation:
    """Scores of a model before and after training; with instance masks also those of objects."""
    rule = NUMBERED if isinstance(dataset, InstanceDataset) else None
    return score_model(model, dataset, objects=rule, workers=workers)


def draw_panels(
    models: Mapping[str, SegmentationModel], dataset: SegmentationDataset, count: int = 4
) -> NDArray[np.uint8]:
    """Rows of image, truth, each model's prediction and the last one's errors, `(H, W, 3)`; images all over a split."""
    segmenters = [Segmenter(model, "cpu") for model in models.values()]
    palette = dataset.labels.palette
    rows = []
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int):
        image, truth, _ = dataset[int(index)]
        results = [segmenter(image) for segmenter in segmenters]
        shown = [colorize(labels, palette) for labels in (truth, *(result.labels for result in results))]
        rows.append([results[-1].image, *shown, error_map(results[-1].labels, truth, palette)])
    return panels(rows, ["image", "ground truth", *models, "errors"], dataset.labels)
