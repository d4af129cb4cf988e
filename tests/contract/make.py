"""Measure the contract again: `python tests/contract/make.py [TOPIC ...]`; only where it is meant to change."""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from torch import nn

import contract.test_evaluate as evaluate
import contract.test_folders as folders
import contract.test_interface as interface
import contract.test_models as models
import contract.test_predict as predict
import contract.test_training as training
import crispseg
from contract.formula import FROZEN, freeze, run, saved, shapes_of

torch.set_num_threads(1)


def _each(file: str, ways: Iterable[str], measure: Callable[[str, Path], Any]) -> None:
    """What each way gives in a folder of its own."""
    found = {}
    for way in ways:
        with tempfile.TemporaryDirectory() as folder:
            found[way] = measure(way, Path(folder))
    freeze(file, found)


def _models() -> None:
    cases: dict[str, Any] = {}
    outputs = {}
    for case in models.BUILT:
        model = models.build(case)
        shapes = shapes_of(model)
        backbone = {key: shape for key, shape in shapes.items() if key.startswith("backbone.")}
        own = {key: shape for key, shape in shapes.items() if key not in backbone}
        text = models.packed(backbone)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            config = json.loads((Path(folder) / "config.json").read_text())
            name = next((key for key, value in cases.items() if value == text), f"backbone of {case}")
            cases |= {name: text, case: [config, models.packed(own), name]}
            loaded = crispseg.from_pretrained(saved(Path(folder) / "formula", config, shapes))
        outputs |= models.logits(loaded, case)
    freeze("models.json", cases)
    freeze("logits.npz", outputs)


def _saved() -> None:
    outputs = {}
    options: dict[str, dict[str, Any]] = {
        "sfnet": {"width": 8, "merge": "aligned"},
        "crisp": {"width": 8},
        "unept": {"width": 8, "points": 4, "refine": "boundary"},
    }
    for name in models.FOLDERS:
        torch.manual_seed(0)
        model = crispseg.create_model(name, num_classes=3, backbone=models.TINY, **options[name])
        _enliven(model)
        names, palette = ("background", "thing", "edge"), ((128, 128, 128), (238, 153, 0), (187, 0, 255))
        model.info = dataclasses.replace(model.info, class_names=names, palette=palette)
        model.save_pretrained(FROZEN / name, dtype=torch.float16)
        outputs |= models.logits(crispseg.from_pretrained(FROZEN / name), name) | models.seen(FROZEN / name)
    freeze("saved.npz", outputs)


def _enliven(model: crispseg.SegmentationModel) -> None:
    """Statistics of one batch, and logits of about the same spread in every class."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)
            norm.momentum = 0.9
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        model.train()(images)
        logits = model.eval()(images)
        classifier: Any = model.classifier
        classifier.bias -= logits.mean(dim=(0, 2, 3))
        classifier.weight /= logits.std()
        classifier.bias /= logits.std()


def _bundled() -> None:
    outputs: dict[str, Any] = {}
    for name in models.BUNDLED:
        outputs |= models.logits(crispseg.from_pretrained(name), name) | models.seen(name)
        outputs[f"{name} sha256"] = models.sha256(models.weight_file(name))
    freeze("bundled.npz", outputs)


def _interface() -> None:
    with tempfile.TemporaryDirectory() as folder:
        shown = interface.printed(interface.own_data(Path(folder)))
    machine = ("out", "workers", "data.root", "data.images", "data.masks", "loggers")
    freeze(
        "interface.json",
        {
            "python": interface.interface(),
            "commands": interface.commands(),
            **{name: interface.keys(*words) for name, words in interface.HELPS.items()},
            "defaults": {key: value for key, value in shown.items() if key not in machine},
        },
    )


def _predict() -> None:
    pixels, tables = {}, {}
    for way in predict.WAYS:
        with tempfile.TemporaryDirectory() as folder:
            found = predict.predicted(Path(folder), way)
        tables[way] = {"files": [*found]} | {key: one for key, one in found.items() if isinstance(one, list | dict)}
        for name, one in found.items():
            if isinstance(one, tuple):
                pixels |= {f"{way}/{name}": one[0], f"{way}/{name}/palette": one[1]}
    freeze("predict.npz", pixels)
    freeze("predict.json", tables)


def _trained(name: str, folder: Path) -> Any:
    training.train("plain" if name == "longer" else name, folder)
    if name == "longer":
        assert run("train", "--resume", folder / "run", "--epochs=3")[0] == 0
    return training.rows(folder / "run")


def _run() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = {"classes": training.NAMES, "lr": 0.002, "optimizer": "sgd", "augment": {"crop": 32}}
        keywords = training.COMMON | training.RUNS["plain"] | own
        crispseg.train(training.data(folder / "data"), out=folder / "run", **keywords)
        crispseg.from_pretrained(folder / "run").save_pretrained(FROZEN / "run/model", dtype=torch.float16)
        places = {str(folder / "data"): "@DATA@", str(FROZEN / "sfnet"): "@START@", str(folder / "run"): "runs/tiny"}
        for file in ("config.yaml", "metrics.csv", "model/config.json"):
            text = (folder / "run" / file).read_text()
            for place, name in places.items():
                text = text.replace(place, name)
            (FROZEN / "run" / file).write_text(text)
    with tempfile.TemporaryDirectory() as name:
        scores, found, shown = training.seen(Path(name))
    keys = ("epochs", "batch_size", "optimizer", "lr", "seed", "precision", "loss", "augment")
    settings = {key: shown[key] for key in keys}
    freeze("run.json", {"scores": scores, "samples": found.tolist(), "settings": settings})


TOPICS = {
    "models": _models,
    "saved": _saved,
    "bundled": _bundled,
    "interface": _interface,
    "predict": _predict,
    "evaluate": partial(_each, "evaluate.json", evaluate.WAYS, evaluate.scores),
    "training": partial(_each, "training.json", [*training.RUNS, "longer"], _trained),
    "run": _run,
    "folders": partial(_each, "folders.json", folders.ROWS, folders.outcome),
}

if __name__ == "__main__":
    for topic in sys.argv[1:] or TOPICS:
        TOPICS[topic]()
