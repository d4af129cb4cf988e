"""Measure the contract again: `python tests/contract/make.py [TOPIC ...]`; only where it is meant to change.

The saved models and the run of the first format in `frozen/` always stay as they are.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import contract.test_interface as interface
import contract.test_models as models
import crispseg
from contract.formula import freeze, saved, shapes_of

torch.set_num_threads(1)


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


TOPICS = {
    "models": _models,
    "bundled": _bundled,
    "interface": _interface,
}

if __name__ == "__main__":
    for topic in sys.argv[1:] or TOPICS:
        TOPICS[topic]()
