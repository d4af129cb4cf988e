"""From trees of settings, such as YAML files, flags and keyword arguments, to the settings of a training run."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from crispseg.config.registry import load_plugins
from crispseg.config.settings import (
    CONFIG,
    Entries,
    Field,
    Tree,
    accepted,
    checked,
    construct,
    fields_of,
    merged,
    plain,
    unknown,
)
from crispseg.config.yaml_files import read_yaml
from crispseg.data import Augment, Folder
from crispseg.data.folder_layout import recognise
from crispseg.data.named import build_data, data_fields, own_data_meant
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.models.info import renamed
from crispseg.models.refinement import REFINE_OPTIONS
from crispseg.models.registry import model_options, resolved_options
from crispseg.models.saving import shipped_folder
from crispseg.training.config import ModelConfig, TrainConfig

PRESETS = ("own", "paper")
PAPER = Path(str(resources.files("crispseg") / "recipes" / "paper.yaml"))
NAMED = ("model", "data")
"""Groups whose keys depend on their `name`."""
GROUPS = (*NAMED, "augment")
LENGTHS = ("epochs", "iterations", "minutes")
"""Settings of the length of a run, of which one counts."""
BUILT_ON = ("name", "backbone", "pretrained", "in_chans")
"""Settings that stay if another model is chosen; all others are options of the first."""
SHARED_MODEL_KEYS = (*BUILT_ON, *REFINE_OPTIONS)
TYPED_OTHERWISE = {
    **dict.fromkeys(("device", "gpu", "cuda"), "accelerator"),
    **dict.fromkeys(("batch", "bs", "batch_size_per_gpu"), "batch_size"),
    **dict.fromkeys(("imgsz", "img_size", "image_size", "size"), "augment.crop"),
    **dict.fromkeys(("learning_rate", "lr0"), "lr"),
    **dict.fromkeys(("weights", "checkpoint"), "init_from"),
    **dict.fromkeys(("output", "save_dir", "work_dir", "project"), "out"),
}
"""What other tools call a key, and what it is called here."""


def settings_from(place: str | Path) -> Tree:
    """Return the settings in a YAML file, or those that mean the data in a folder.

    Raises:
        CrispsegError: there is no such file, it holds no settings, or the folder has no known layout.
    """
    return {"data": dict(recognise(Path(place)))} if Path(place).is_dir() else read_yaml(place)


def recorded_settings(run: str | Path) -> Tree:
    """Return the settings of the run in a folder.

    Raises:
        CrispsegError: there is none.
    """
    if not (Path(run) / CONFIG).is_file():
        raise CrispsegError(f"is {run}, which holds no {CONFIG}; give the folder of a run", "resume")
    return read_yaml(Path(run) / CONFIG)


def training_config(*layers: Mapping[str, Any], resumed: bool = False) -> TrainConfig:
    """Return the settings of a training run from trees of settings, later ones winning, and defaults.

    A tree is one as a YAML file has it. `data: camvid` is short for `data: {name: camvid}`, and a key that only one of
    the groups model, data and augment has may stand without the group. The trees may contain
    `crispseg.config.settings.Text`.

    Args:
        layers: the trees.
        resumed: the first tree is that of a run, which says all; what it started from need not exist any more.

    Raises:
        CrispsegError: an unknown key, a wrong type or value, or no data.
    """
    trees, data = _named(layers)
    said = functools.reduce(merge, trees, Tree())
    preset = said.get("preset", "own")
    if preset not in PRESETS:
        raise CrispsegError(f"unknown preset '{preset}'{did_you_mean(str(preset), PRESETS)}")
    base: Tree = read_yaml(PAPER) if preset == "paper" else {"model": {"name": ModelConfig.name}}
    start = said.get("init_from")
    if start and not resumed:
        here = shipped_folder(str(start)) or Path(str(start)).is_dir()
        if here or "name" not in said.get("model", {}):
            saved = ModelConfig.of(str(start))
            shared = {key: getattr(saved, key) for key in SHARED_MODEL_KEYS if key != "pretrained"}
            base = merge(base, {"model": shared | saved.options})
    known = known_fields(str(merge(base, said)["model"]["name"]), data or Folder.name)
    tree = merge(base, functools.reduce(merge, (_in_groups(each, known) for each in trees), Tree()))
    tree.pop("preset", None)
    return _build(tree, known)


def names_of(*layers: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the names of the model and the data that trees of settings say, if they do; plugins are loaded."""
    trees, data = _named(layers)
    model = functools.reduce(merge, trees, Tree()).get("model", {}).get("name")
    return None if model is None else str(model), data


def _named(layers: Iterable[Mapping[str, Any]]) -> tuple[list[Tree], str | None]:
    """The trees, in which groups are trees and own data have their name, and the name of the data that all mean."""
    name, trees = None, []
    for layer in layers:
        tree = dict(layer)
        if "plugins" in tree:
            tree["plugins"] = checked(list[str], plain(tree["plugins"], list[str]), "plugins")
            load_plugins(tree["plugins"])  # they may register what other keys name
        for group in {*GROUPS} & {*tree}:
            value = {"name": tree[group]} if isinstance(tree[group], str) and group in NAMED else tree[group]
            if not isinstance(value, Mapping):
                raise CrispsegError(f"is {value!r}; give {accepted(dict)} of its keys", group)
            if not isinstance(value.get("name", ""), str):
                raise CrispsegError(f"is {value['name']!r}; give a name, as text", f"{group}.name")
            tree[group] = renamed(value) if group == "model" else dict(value)
        data = tree.get("data", {})
        if "name" not in data and own_data_meant({*data, *tree}, name):
            tree["data"] = data = {"name": Folder.name} | data
        name = str(data["name"]) if "name" in data else name
        trees.append(tree)
    return trees, name


def _in_groups(tree: Tree, known: Mapping[str, Field]) -> Tree:
    """The tree with each key that stands alone in its group, if only one group has it."""
    tree = dict(tree)
    for key in [key for key in tree if key not in known and key not in (*GROUPS, "preset", "folds")]:
        homes = [group for group in GROUPS if f"{group}.{key}" in known]
        if len(homes) > 1:
            raise CrispsegError(f"is a key of {' and of '.join(homes)}; give {homes[0]}.{key}", key)
        if homes:
            group = dict(tree.get(homes[0], {}))
            if key in group:
                raise CrispsegError(f"is given alone and in {homes[0]}; leave one out", key)
            tree[homes[0]] = group | {key: tree.pop(key)}
    return tree


def _build(tree: Tree, known: Mapping[str, Field]) -> TrainConfig:
    for key in (key for group in GROUPS for key in (f"{group}.{each}" for each in tree.get(group, {}))):
        if key not in known:
            raise unknown(key, known)
    for key in tree:
        if key not in known and key not in GROUPS:
            if meant := TYPED_OTHERWISE.get(key):
                raise CrispsegError(f"is no key; did you mean '{meant}'?", key)
            raise unknown(key, known)
    values: dict[str, Any] = {
        key: {each: _plain(value, known[f"{key}.{each}"]) for each, value in given.items()}
        if key in GROUPS
        else _plain(given, known[key])
        for key, given in tree.items()
    }
    model, data, augment = (values.pop(group, {}) for group in GROUPS)
    options = {key: model.pop(key) for key in [*model] if key not in SHARED_MODEL_KEYS}
    chosen = ModelConfig(**model, options=options)
    if not data:
        raise CrispsegError("is missing; give a folder of images and masks, or images and masks", "data")
    resolved_options(chosen.name, options)  # raises for what the model or its parts do not have
    return TrainConfig(data=build_data(data), model=chosen, augment=construct(Augment, augment, "augment."), **values)


def _plain(value: Any, field: Field) -> Any:
    """The value without `Text`, entries of a mapping on top of the default's."""
    if isinstance(value, Entries) and isinstance(field.default, Mapping):
        value = {**field.default, **value}
    return plain(value, field.kind)


def known_fields(model: str, data: str) -> dict[str, Field]:
    """Return all settings of a training by their key, such as "augment.crop", those of this model and these data."""
    own = {key: field for key, field in fields_of(TrainConfig).items() if key not in GROUPS}
    shared = {key: field for key, field in fields_of(ModelConfig).items() if key in SHARED_MODEL_KEYS}
    options = model_options(model)
    name = Field(str, Folder.name, "name of the data")
    groups = {"model": shared | options, "data": {"name": name} | data_fields(data), "augment": fields_of(Augment)}
    return own | {f"{group}.{key}": field for group, fields in groups.items() for key, field in fields.items()}


def merge(base: Tree, over: Tree) -> Tree:
    """Return `over` on top of `base`, without keys of another model or data set, weights of its classes, or lengths."""
    tree = merged(base, over)
    if "plugins" in base and "plugins" in over:
        tree["plugins"] = [*dict.fromkeys([*base["plugins"], *over["plugins"]])]
    if any(over.get(key) is not None for key in LENGTHS):
        tree |= {key: over.get(key) for key in LENGTHS if key in base or key in over}
    for group in GROUPS:
        if group in base and group in over:
            names = {str(each[group]["name"]) for each in (base, over) if "name" in each[group]}
            kept = base[group]
            if group in NAMED and len(names) == 2:
                kept = {key: kept[key] for key in kept if group == "model" and key in BUILT_ON}
                if group == "data" and "class_weights" not in over:
                    tree.pop("class_weights", None)
            tree[group] = merged(kept, over[group])
    return tree
