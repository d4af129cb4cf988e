"""Build the settings of a training run from trees of settings: YAML files, flags and keyword arguments."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from crispseg.config.registry import load_plugins
from crispseg.config.settings import CONFIG, Field, Tree, checked, fields_of, unknown
from crispseg.config.yaml_files import RECIPES, read_yaml
from crispseg.data import Augment, Folder
from crispseg.data.named import build_data, data_source, own_data_meant, settings_of
from crispseg.errors import CrispsegError
from crispseg.models.info import renamed
from crispseg.models.refinement import REFINE_OPTIONS
from crispseg.models.registry import model_options, resolved_options
from crispseg.models.saving import read_info, shipped_folder
from crispseg.training.config import ModelConfig, TrainConfig

PAPER = RECIPES / "paper.yaml"
GROUPS = ("model", "data", "augment")
LENGTHS = ("epochs", "iterations", "minutes")  # settings of the length of a run; only one applies
BUILT_ON = ("name", "backbone", "pretrained", "in_chans")  # these stay if another model is chosen
SHARED_MODEL_KEYS = (*BUILT_ON, "design", *REFINE_OPTIONS)
PRESET = Field(Literal["own", "paper"], "own", "defaults: own for your own data, or paper for SFNet's training")


def settings_from(place: str | Path) -> Tree:
    """Return the settings in a YAML file, or the detected data settings of a folder."""
    return {"data": settings_of(Path(place))} if Path(place).is_dir() else read_yaml(place)


def recorded_settings(run: str | Path) -> Tree:
    """Return the settings of the run in a folder; raise a `CrispsegError` if the folder has none."""
    if not (Path(run) / CONFIG).is_file():
        raise CrispsegError(f"is {run}, which has no {CONFIG}; give the folder of a run", "resume")
    return read_yaml(Path(run) / CONFIG)


def training_config(*layers: Mapping[str, Any], resumed: bool = False) -> TrainConfig:
    """Return the settings of a training run from defaults and trees of settings; later trees override earlier ones.

    A tree has the structure of a YAML file. Keys of groups may be flat: `augment.crop`, or `loss.dice` to add an
    entry. `data: camvid` is short for `data: {name: camvid}`. The group can be omitted if only one of model, data and
    augment has the key. The trees may contain `crispseg.config.settings.Text`.

    If the first tree belongs to a `resumed` run, its initial weights need not exist any more. An unknown key, a wrong
    type or value, or no data raise a `CrispsegError`.
    """
    trees = flat(layers)
    given = functools.reduce(operator.or_, trees, Tree())
    preset = checked(PRESET.kind, given.get("preset", PRESET.default), "preset")
    base = flat([read_yaml(PAPER)])[0] if preset == "paper" else {"model.name": ModelConfig.name}
    saved = None if resumed else inherited_model(given)
    if saved:
        base = merge(base, model_settings(saved))
    known = known_fields(str({**base, **given}["model.name"]), str(given.get("data.name", Folder.name)))
    if saved and "data.value_range" in known and read_info(saved).value_range == "image":
        base["data.value_range"] = "image"
    # Trees are merged with each other first: a key without a model's name belongs to the name that a later tree gives.
    asked = functools.reduce(merge, (_in_groups(tree, known) for tree in trees), Tree())
    return _build(merge(base, asked), known)


def inherited_model(given: Tree) -> str | None:
    """Return the saved model whose settings are inherited; a hub id is asked for them only if no model is given."""
    start = str(given.get("init_from") or "")
    inherits = shipped_folder(start) or Path(start).is_dir() or "model.name" not in given
    return start if start and inherits else None


def model_settings(saved: str) -> Tree:
    """Return the settings of a saved model, without its weights."""
    config = ModelConfig.of(saved)
    shared = {key: getattr(config, key) for key in SHARED_MODEL_KEYS if key != "pretrained"}
    return {f"model.{key}": value for key, value in (shared | config.options).items()}


def flat(layers: Sequence[Mapping[str, Any]]) -> list[Tree]:
    """Return trees with flat keys, such as `augment.crop`, and a name for custom data; load plugins."""
    trees: list[Tree] = []
    name: str | None = None
    for layer in layers:
        tree = _flat_keys(layer)
        if "data.name" not in tree and own_data_meant({key.removeprefix("data.") for key in tree}, name):
            tree["data.name"] = Folder.name
        name = tree.get("data.name", name)
        trees.append(tree)
    return trees


NAMES_TODAY = {"accelerator": "device"}  # settings of earlier runs, by their names then
GONE = ("layer_decay", "cache_features", "cache_versions", "cache_limit")  # settings of earlier runs, which are ignored


def _flat_keys(layer: Mapping[str, Any]) -> Tree:
    tree = {NAMES_TODAY.get(key, key): value for key, value in layer.items() if key not in GONE}
    if "plugins" in tree:
        tree["plugins"] = checked(list[str], tree["plugins"], "plugins")
        load_plugins(tree["plugins"])  # they may register parts that other keys name
    for group in sorted({*GROUPS} & {*tree}):
        settings = _group_settings(group, tree.pop(group))
        if twice := settings.keys() & tree.keys():
            raise CrispsegError("is given twice, with a dot and in its group; leave one out", min(twice))
        tree |= settings
    return tree


def _group_settings(group: str, value: Any) -> Tree:
    """Return the settings of a group by their flat keys; the group may be its name alone."""
    settings = {"name": value} if isinstance(value, str) else checked(dict, value, group)
    entries = renamed(settings) if group == "model" else settings
    return {f"{group}.{key}": entry for key, entry in entries.items()}


def _in_groups(tree: Tree, known: Mapping[str, Field]) -> Tree:
    """Add the group to each key without one, if only one group has the key."""
    grouped = dict(tree)
    for key in tree:
        name = key.partition(".")[0]
        homes = [group for group in GROUPS if f"{group}.{name}" in known]
        if name in (*known, *GROUPS, "folds") or len(homes) != 1:
            continue
        if f"{homes[0]}.{key}" in tree:
            raise CrispsegError(f"is given with and without {homes[0]}; leave one out", key)
        grouped[f"{homes[0]}.{key}"] = grouped.pop(key)
    return grouped


def _build(tree: Tree, known: Mapping[str, Field]) -> TrainConfig:
    values = _by_known_keys(tree, known)
    model, data, augment = (_inside(group, values) for group in GROUPS)
    if not data:
        raise CrispsegError("is missing; give a folder of images and masks, or images and masks", "data")
    further = [key for key in model if key not in SHARED_MODEL_KEYS]
    options = {key: checked(known[f"model.{key}"].kind, model.pop(key), f"model.{key}") for key in further}
    resolved_options(model["name"], options)  # raises an error for options that the parts do not have
    own = {key: value for key, value in values.items() if "." not in key and key != "preset"}
    return TrainConfig(
        **own, model=ModelConfig(**model, options=options), augment=Augment(**augment), data=build_data(data)
    )


def _by_known_keys(tree: Tree, known: Mapping[str, Field]) -> Tree:
    """Return values by known keys; an entry of a mapping, such as `loss.dice`, is added to the mapping."""
    values = {key: value for key, value in tree.items() if key in known}
    for key, entry in tree.items():
        if "\\udc" in ascii(entry).replace("\\\\", ""):  # ascii doubles the backslashes of texts
            raise CrispsegError("has a name that is not UTF-8, which a model cannot record; rename it", key)
        if key in known:
            continue
        owner, _, name = key.rpartition(".")
        if owner not in known:
            raise unknown(key, known)
        before = checked(dict[str, Any], values.get(owner, known[owner].default) or {}, owner)
        values[owner] = before | {name: checked(Any, entry, key)}
    return values


def _inside(group: str, tree: Tree) -> Tree:
    """Return the settings of a group by their keys in it."""
    return {key.removeprefix(f"{group}."): value for key, value in tree.items() if key.startswith(f"{group}.")}


def known_fields(model: str, data: str) -> dict[str, Field]:
    """Return all settings of a training run with this model and data by their keys, such as "augment.crop"."""
    own = {key: field for key, field in fields_of(TrainConfig).items() if key not in GROUPS}
    shared = {key: field for key, field in fields_of(ModelConfig).items() if key in SHARED_MODEL_KEYS}
    of_model = shared | model_options(model)
    of_data = {"name": Field(str, Folder.name, "name of the data")} | fields_of(data_source(data))
    groups = {"model": of_model, "data": of_data, "augment": fields_of(Augment)}
    for group, fields in groups.items():
        own |= {f"{group}.{key}": field for key, field in fields.items()}
    return {"preset": PRESET} | own


def merge(base: Tree, over: Tree) -> Tree:
    """Merge `over` into `base`; drop keys, class weights and lengths of `base` that no longer apply."""
    outdated = set[str]()
    if _differ("model.name", base, over):
        outdated |= {f"model.{key}" for key in {*_inside("model", base)} - {*BUILT_ON}}
    if _differ("data.name", base, over):
        outdated |= {f"data.{key}" for key in _inside("data", base)} | {"class_weights"}
    if any(over.get(key) is not None for key in LENGTHS):
        outdated |= {*LENGTHS}
    settings = {key: base[key] for key in base if key not in outdated} | over
    if "plugins" in settings:
        settings["plugins"] = [*dict.fromkeys([*base.get("plugins", ()), *over.get("plugins", ())])]
    return settings


def _differ(key: str, base: Tree, over: Tree) -> bool:
    return key in base and base[key] != over.get(key, base[key])
