"""`crispseg quickstart`: train, test and look, in minutes."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import lightning as L
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from crispseg.cli.parsing import merge, parse_training, read_yaml
from crispseg.cli.scoring import write_json
from crispseg.config.plugins import load_plugins
from crispseg.data import DataSource, InstanceDataset, SegmentationDataset, check_split
from crispseg.data.bit_depth import known_range
from crispseg.errors import CrispsegError
from crispseg.evaluation.evaluate import score_model
from crispseg.evaluation.summary import Evaluation, score_table
from crispseg.inference import Segmenter
from crispseg.inference.objects import NUMBERED
from crispseg.io.images import colorize, write_image
from crispseg.models import SegmentationModel
from crispseg.training import train
from crispseg.training.config import CONFIG
from crispseg.training.initialization import starting_model
from crispseg.training.resuming import check_folder
from crispseg.visualization.pictures import error_map, panels

DESCRIPTION = (
    "Train on the microscope images of nuclei that come with crispseg, from its model of aerial photographs, or with "
    "--data on your own images, or with --model another model; print IoU on unseen images "
    "before and after, and draw panels of image, ground truth, predictions before and after, and errors. All keys of "
    "'crispseg train' work."
)


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    started = time.monotonic()
    console = Console(highlight=False, soft_wrap=True)
    recipe = read_yaml(Path(str(resources.files("crispseg") / "recipes" / "quickstart.yaml")))
    recipe = merge(recipe, {"out": str(_unused(Path("runs/quickstart")))})
    if chooses_model(argv):
        recipe = {**recipe, "init_from": None, "model": {"pretrained": False}}  # nothing is downloaded
    config = parse_training(argv, recipe, prog="crispseg quickstart", description=DESCRIPTION)
    load_plugins(config.plugins)
    if config.devices > 1:
        raise CrispsegError(f"devices is {config.devices}; quickstart uses one, 'crispseg train' can use more")
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
        counts = " before and ".join(str(each.predicted.sum()) for each in found)
        console.print(f"{found[0].truth.sum()} single objects are in them; {counts} after training were predicted")
    write_json(result.folder / "scores.json", {when: each.as_json() for when, each in scores.items()})
    reached = {"unseen_miou": round(scores["after"].scores.miou, 2)}
    model.info = dataclasses.replace(model.info, metrics={**model.info.metrics, **reached})
    model.save_pretrained(result.folder / "model")
    write_image(result.folder / "panels.png", draw_panels({"before": start, "after": model}, dataset))
    console.print(f"pictures: {result.folder / 'panels.png'}")
    console.print(f"done in {time.monotonic() - started:.0f} s; the model is in {result.folder / 'model'}")
    console.print(f"try it:   crispseg predict {result.folder} IMAGE_OR_FOLDER --out predictions")


def chooses_model(argv: Sequence[str]) -> bool:
    """Whether flags or a YAML file say which model; the one of aerial photographs would not fit it."""
    settings = read_yaml(argv[0]) if argv and Path(argv[0]).is_file() else {}
    return "model" in settings or any(argument.startswith("--model") for argument in argv)


def unseen(data: DataSource) -> SegmentationDataset:
    """The test split, or the val split of data that have none."""
    return data.dataset("test" if "test" in data.splits() else "val")


def judge(model: SegmentationModel, dataset: SegmentationDataset, workers: int) -> Evaluation:
    """What is told of a model before training and after; with instance masks also how well objects are found."""
    objects = NUMBERED if isinstance(dataset, InstanceDataset) else None
    return score_model(model, dataset, objects=objects, workers=workers)


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


def _unused(folder: Path) -> Path:
    """The folder, or with a number where it is taken: another quickstart never overwrites one."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([folder], numbered) if not (candidate / CONFIG).exists())
