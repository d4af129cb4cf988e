"""First run in minutes: train a model, and show its results on unseen images."""

from __future__ import annotations

import dataclasses
import json

import lightning as L
from rich.console import Console

from crispseg.data import check_split
from crispseg.errors import CrispsegError
from crispseg.evaluation.evaluate import score_model
from crispseg.evaluation.summary import score_table
from crispseg.inference import Segmenter
from crispseg.io.host import host_state_restored
from crispseg.io.images import write_image
from crispseg.models.saving import MODEL
from crispseg.training.checkpoints import check_folder
from crispseg.training.config import TrainConfig
from crispseg.training.feedback import draw_panels
from crispseg.training.fit import train
from crispseg.training.initial_weights import starting_model
from crispseg.training.result import Run
from crispseg.training.trainer import write_text


def quickstart(config: TrainConfig, console: Console) -> Run:
    """Train on one device, then print and draw the scores before and after; the run's folder keeps them."""
    if config.devices > 1:
        raise CrispsegError(f"is {config.devices}; give 1, or use 'crispseg train'", "devices")
    check_folder(config.out, resume=False)
    scores_file, panels = config.out / "scores.json", config.out / "panels.png"
    for path in (scores_file, panels):
        if path.exists():
            raise CrispsegError(f"is {config.out}, which already contains {path.name}; choose another folder", "out")
    split = "test" if "test" in config.data.splits() else "val"
    dataset = config.data.dataset(split).with_channels(
        config.model.in_chans, config.data.dataset("train").known_range()
    )
    check_split(dataset, "unseen")

    with host_state_restored():
        L.seed_everything(config.seed, verbose=False)
        start, _ = starting_model(config, dataset.labels)  # the same weights as training will start from
    scores = {"before": score_model(start, dataset, workers=config.workers)}
    result = train(config, console=console)
    model = result.model
    scores["after"] = score_model(model, dataset, workers=config.workers)

    console.print(f"{config.model.name} on {config.data.name}, IoU in percent on {len(dataset)} unseen images")
    console.print(score_table(scores), soft_wrap=False)
    summary = {when: evaluation.as_json() for when, evaluation in scores.items()}
    write_text(scores_file, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    reached = {"unseen_miou": round(scores["after"].scores.miou, 2)}
    model.info = dataclasses.replace(model.info, metrics={**model.info.metrics, **reached})
    model.save_pretrained(result.folder / MODEL)
    write_image(panels, draw_panels({"before": Segmenter(start), "after": Segmenter(model)}, dataset))
    console.print(f"the model is in {result.folder / MODEL}, pictures in {panels}")
    return result
