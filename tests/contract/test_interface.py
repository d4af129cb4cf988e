"""Names and signatures of the Python interface; commands and keys of the command line."""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import crispseg
from contract.formula import NEGATED, frozen, name_now, run, write_png

METHODS = {
    "Segmentation": ("labels", "probabilities", "overlay", "save", "objects", "shares"),
    "SegmentationModel": ("forward", "outputs", "save_pretrained", "from_pretrained", "parameter_groups", "offsets"),
    "Segmenter": ("__init__", "__call__", "stream"),
}
"""Of the classes that users hold; how a model or a result is made is no promise."""
HELPS = {
    "train": ("train", "--data=folder", "--model=crisp"),
    "train sfnet": ("train", "--data=folder", "--model=sfnet"),
    "train agln": ("train", "--data=folder", "--model=agln"),
    "predict": ("predict",),
    "evaluate": ("evaluate",),
    "doctor": ("doctor",),
    "convert": ("convert",),
    "export": ("export",),
    "compare": ("compare",),
}
NO_KEYS = {"key", "pretrained"}
"""What stands in prose of the help."""
TRAIN = """
{model: {name: sfnet, backbone: resnet18_deep, pretrained: false, in_chans: 1, refine: boundary, refine_steps: 3,
  refine_path: straight, width: 24, context: aspp, context_options: {rates: [1, 2]}, fuse: fam, fuse_levels: [4, 5],
  flow_kernel: 1, merge: aligned},
data: {classes: [a, b, c], num_classes: 3, palette: [[0, 0, 0], [9, 8, 7], [1, 2, 3]], val_ratio: 0.3, seed: 4,
  folds: 4, fold: 2, ignore: [7], value_range: [0, 4095]},
augment: {crop: [64, 96], scale: [0.5, 2.0], flip: 0.25, turn: true, photometric: mmseg, longer_side: 512,
  shorter_side: 256, max_share: 0.75, repeat: 2},
iterations: 40, batch_size: 3, accumulate: 2, optimizer: sgd, lr: 0.02, backbone_lr_factor: 0.1, momentum: 0.8,
weight_decay: 0.001, decay_norms_and_biases: false, schedule: step, power: 0.8, lr_drops: [0.5, 0.75], warmup: 5,
loss: {cross_entropy: 1.0, dice: 0.5}, hard_fraction: 0.5, auxiliary_weight: 0.4, clip: 1.0, freeze_backbone: early,
unlabelled: same, unlabelled_weight: 0.5, ema: 0.99, patience: 3, val_every: 2, precision: fp32, device: cpu,
devices: 1, num_nodes: 1, workers: 0, seed: 7, deterministic: true, checkpoint_every: 10, loggers: []}
"""
"""Keys of `train`, each with a value that is not its default (but for what a machine may not have)."""


def flat(tree: dict[str, Any]) -> dict[str, Any]:
    """Settings with those of groups as `group.key`."""
    settings = {key: value for key, value in tree.items() if key not in ("model", "data", "augment")}
    return settings | {
        f"{group}.{key}": value for group in ("model", "data", "augment") for key, value in tree[group].items()
    }


def signature(function: Callable[..., Any]) -> dict[str, str]:
    """Parameters and their defaults; a star for what takes all others."""
    stars = {inspect.Parameter.VAR_KEYWORD: "**", inspect.Parameter.VAR_POSITIONAL: "*"}
    return {
        f"{stars.get(parameter.kind, '')}{name}": "required"
        if parameter.default is inspect.Parameter.empty
        else repr(parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
    }


def interface() -> dict[str, Any]:
    """Signature of every function, methods of every class, names of the parts."""
    signatures: dict[str, Any] = {}
    for name in crispseg.__all__:
        entry = getattr(crispseg, name)
        if name in METHODS:
            methods = {key: inspect.getattr_static(entry, key, None) for key in METHODS[name]}
            for key, method in methods.items():
                plain = getattr(method, "__func__", method)
                signatures[f"{name}.{key}"] = signature(plain) if callable(plain) else {}
        elif hasattr(entry, "names"):
            signatures[name] = dict.fromkeys(entry.names(), "registered")
        else:
            signatures[name] = {} if isinstance(entry, type) else signature(entry)
    return signatures


def keys(*words: str) -> list[str]:
    """The keys that the help of a command explains."""
    status, text = run(*words, "--help", "all")
    assert status == 0
    return sorted({key.replace("-", "_").rstrip(".") for key in re.findall(r"--([A-Za-z][\w.-]*)", text)} - NO_KEYS)


def commands() -> list[str]:
    status, text = run("--help")
    assert status == 0
    return re.findall(r"^  (\w+)  +", text, re.MULTILINE)


def test_the_python_interface_only_grows() -> None:
    now = interface()
    for name, parameters in frozen("interface.json")["python"].items():
        if name == "Segmentation.labels":  # a field of an instance
            continue
        assert name in now
        kept = {key: value for key, value in parameters.items() if name_now(key, now[name]) not in {*now[name]} - {key}}
        lost = {key: value for key, value in kept.items() if now[name].get(key) != value}
        assert not lost, f"{name}: {lost} was; now {now[name]}"
        more = now[name].keys() - parameters.keys()
        assert not [key for key in more if now[name][key] == "required" and not key.startswith("*")]


def test_commands() -> None:
    assert {*frozen("interface.json")["commands"]} <= {*commands()}


@pytest.mark.parametrize("name", HELPS)
def test_keys(name: str) -> None:
    known = keys(*HELPS[name])
    assert {name_now(key, known) for key in frozen("interface.json")[name]} <= {*known}


def own_data(root: Path) -> Path:
    """Three pairs."""
    for index in range(3):
        write_png(root / f"images/{index}.png", np.full((40, 40, 3), 60 * index, np.uint8))
        write_png(root / f"masks/{index}.png", np.eye(40, dtype=np.uint8) * (index + 1) % 3)
    return root


def printed(*words: object) -> dict[str, Any]:
    """The settings that `train --print_config` shows, those of groups as `group.key`."""
    status, text = run("train", *words, "--print_config")
    assert status == 0
    return flat(yaml.safe_load(text))


@pytest.mark.parametrize("form", ["flags", "yaml"])
def test_settings_come_back_as_they_were_given(form: str, tmp_path: Path) -> None:
    data = own_data(tmp_path / "data")
    tree: dict[str, Any] = yaml.safe_load(TRAIN)
    settings = flat(tree)
    if form == "yaml":
        tree["data"] |= {"name": "folder", "root": str(data)}
        (tmp_path / "settings.yaml").write_text(yaml.safe_dump(tree))
        shown = printed(tmp_path / "settings.yaml")
    else:
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
        shown = printed(data, *(f"--{key}={value}" for key, value in texts.items()))
    assert {key: shown.get(key) for key in settings} == settings


def test_defaults(tmp_path: Path) -> None:
    """What a run does where nothing is said, but for what depends on the machine."""
    expected = frozen("interface.json")["defaults"]
    shown = printed(own_data(tmp_path / "data"))
    defaults = {key: shown.get(name_now(key, shown)) for key in expected}
    assert {
        key: not value if key in NEGATED and key not in shown else value for key, value in defaults.items()
    } == expected
