"""From YAML files and flags to a typed configuration.

Which keys exist depends on the model and the data that are named, so names are looked up first and a parser is made for
them: `--data folder` brings `--data.images`, and every key is typed, explained by --help and checked.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace

from crispseg.data import DATA_SOURCES, Augment, DataSource
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.models.registry import models
from crispseg.plugins import load_plugins
from crispseg.training.config import ModelConfig, TrainConfig, config_to_dict

Tree = dict[str, Any]

GROUPS = ("model", "data", "augment")
NAMED = ("model", "data")  # groups whose keys depend on their `name`
SHARED_MODEL_KEYS = ("name", "backbone", "pretrained", "in_chans", "refine")


class Parser(ArgumentParser):  # type: ignore[misc]
    """An argument parser that reports mistakes as `CrispsegError`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(exit_on_error=False, allow_abbrev=False, print_config=None, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise, in one line; argparse would print and exit."""
        lines = [line.strip() for line in str(message).splitlines() if line.strip()]
        raise CrispsegError(re.sub(r"<class '(\w+)'>|typing\.", r"\1", " ".join(lines))) from ex

    def keys(self) -> list[str]:
        """All flags, without dashes."""
        flags = [flag for action in self._actions for flag in action.option_strings]
        return [flag.removeprefix("--") for flag in flags if flag.startswith("--") and not flag.endswith("+")]

    def parse(self, argv: Sequence[str]) -> Namespace:
        """Parse; an unknown flag gets a did-you-mean."""
        # `--plugins a.py` adds one to the list, as `--plugins+` does.
        argv = [re.sub(r"^--plugins(?=$|=)", "--plugins+", token) for token in argv]
        known = self.keys()
        for token in argv:
            key = token.removeprefix("--").partition("=")[0].removesuffix("+")
            if re.match(r"--[a-zA-Z]", token) and key not in known:
                raise CrispsegError(f"unknown key --{key}{did_you_mean(key, known)}")
        return self.parse_args(argv)


def expand_names(argv: Sequence[str]) -> list[str]:
    """`--data camvid` is short for `--data.name camvid`."""
    pattern = re.compile(rf"--({'|'.join(NAMED)})(=.*)?$")
    return [pattern.sub(r"--\1.name\2", token) for token in argv]


def take_flag(argv: Sequence[str], flag: str) -> str | None:
    """The last value of a flag that decides which others there are."""
    value = None
    for index, token in enumerate(argv):
        if token.startswith(f"{flag}="):
            value = token.partition("=")[2]
        elif token == flag and index + 1 < len(argv):
            value = argv[index + 1]
    return value


def load_named_plugins(argv: Sequence[str], tree: Tree) -> None:
    """Load the plugins of a file and of flags now, since what they register may be named by other keys."""
    files = list(tree.get("plugins") or [])
    for index, token in enumerate(argv):
        key, _, value = token.partition("=")
        if key.removesuffix("+") == "--plugins":
            entry = yaml.safe_load(value or (argv[index + 1] if index + 1 < len(argv) else "[]"))
            files += entry if isinstance(entry, list) else [str(entry)]
    load_plugins(files)


def read_yaml(path: str | Path) -> Tree:
    """A YAML file of settings; `data: camvid` is short for `data: {name: camvid}`.

    Raises:
        CrispsegError: it is missing, no YAML, or no mapping.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CrispsegError(f"cannot read the configuration {path} ({error.strerror}); give a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CrispsegError(f"{path} is no YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(tree, dict):
        raise CrispsegError(f"{path} holds no settings; write lines such as 'epochs: 20'")
    for key, value in tree.items():
        if not isinstance(key, str) or (isinstance(value, dict) and not all(isinstance(name, str) for name in value)):
            raise CrispsegError(f"{path}: {key!r} has keys that are no words; write 'key: value'")
        if key in GROUPS and not isinstance(value, dict | str if key in NAMED else dict):
            raise CrispsegError(f"{path}: '{key}' is {value!r}; write '{key}: {{key: value}}'")
        if key == "plugins" and not isinstance(value, list):
            raise CrispsegError(f"{path}: plugins is {value!r}; give a list of files")
    return {key: {"name": value} if key in NAMED and isinstance(value, str) else value for key, value in tree.items()}


def merge(base: Tree, over: Tree) -> Tree:
    """`over` on top of `base`; keys of another model or data set, and weights of its classes, are left behind."""
    merged = dict(base)
    if _renames("data", base, over):
        merged.pop("class_weights", None)
    for key, value in over.items():
        below = merged.get(key)
        if key in GROUPS and isinstance(value, dict) and isinstance(below, dict):
            if key in NAMED and _renames(key, base, over):
                kept = SHARED_MODEL_KEYS if key == "model" else ()
                below = {name: entry for name, entry in below.items() if name in kept}
            merged[key] = {**below, **value}
        else:
            merged[key] = value
    return merged


def _renames(group: str, base: Tree, over: Tree) -> bool:
    """Whether `over` names another model or other data than `base` does."""
    old, new = ((tree.get(group) or {}).get("name") for tree in (base, over))
    return None not in (old, new) and old != new


def add_model_keys(parser: Parser, name: str) -> None:
    """`--model.*`: what all models share, and the options of this one."""
    group = parser.add_argument_group(f"The model; '--model {name}' is short for '--model.name {name}'")
    group.add_class_arguments(ModelConfig, "model", as_group=False, skip={"options"})
    group.add_function_arguments(models[name], "model", as_group=False, skip={"spec", "num_classes", "auxiliary"})
    parser.set_defaults({"model.name": name})


def add_data_keys(parser: Parser, name: str) -> None:
    """`--data.*`: the fields of this data source."""
    group = parser.add_argument_group(f"The data; '--data {name}' is short for '--data.name {name}'")
    group.add_argument("--data.name", default=name, help=f"one of {', '.join(sorted(DATA_SOURCES))}")
    group.add_class_arguments(data_source(name), "data", as_group=False)


def data_source(name: str) -> type[DataSource]:
    """The data source of this name.

    Raises:
        CrispsegError: there is none.
    """
    if name not in DATA_SOURCES:
        raise CrispsegError(f"unknown data '{name}'{did_you_mean(name, DATA_SOURCES)}")
    return DATA_SOURCES[name]


def build_data(values: Mapping[str, Any]) -> DataSource:
    """The data source that parsed `--data.*` values describe."""
    fields = {key: value for key, value in values.items() if key != "name"}
    return data_source(values["name"])(**fields)


def parse_data(argv: Sequence[str], base: Tree, parser: Parser) -> tuple[Namespace, DataSource]:
    """Parse flags of a command that has `--data.*` keys; `base` holds the data it starts from, as YAML has it."""
    argv = expand_names(argv)
    chosen = {"data": {"name": take_flag(argv, "--data.name")}} if take_flag(argv, "--data.name") else {}
    tree = merge(base, chosen)
    add_data_keys(parser, tree["data"]["name"])
    parsed = parser.parse([*as_flags({"data": tree["data"]}, parser, "the recorded data"), *argv])
    return parsed, build_data(vars(parsed.data))


def parse_training(argv: Sequence[str], recipe: Tree, *, prog: str, description: str) -> TrainConfig:
    """A training configuration from defaults, a recipe, a YAML file and flags, the later ones winning.

    Args:
        argv: a YAML file first, if any; then flags.
        recipe: settings that lie under the file.
        prog, description: for the help.

    Raises:
        CrispsegError: an unknown key, a wrong type or value.
    """
    argv = expand_names(argv)
    tree, source = recipe, "the built-in recipe"
    if argv and not argv[0].startswith("-"):
        source = argv[0]
        tree = merge(tree, read_yaml(source))
        argv = argv[1:]
    if argv and not argv[0].startswith("-"):
        raise CrispsegError(f"'{argv[0]}' is one file too many; flags are written --key value")
    load_named_plugins(argv, tree)
    for group in NAMED:
        if name := take_flag(argv, f"--{group}.name"):
            tree = merge(tree, {group: {"name": name}})

    parser = Parser(prog=prog, description=description)
    parser.add_argument("--print_config", action="store_true", help="print the settings as YAML, and do nothing else")
    names = {group: (tree.get(group) or {}).get("name", default) for group, default in _DEFAULT_NAMES.items()}
    add_model_keys(parser, names["model"])
    add_data_keys(parser, names["data"])
    group = parser.add_argument_group("Random changes to the training images")
    group.add_class_arguments(Augment, "augment", as_group=False)
    group = parser.add_argument_group("The training")
    group.add_class_arguments(TrainConfig, as_group=False, skip=set(GROUPS))
    parsed = parser.parse([*as_flags(tree, parser, source), *argv])

    values = dict(vars(parsed))
    model, data, augment = (dict(vars(values.pop(group))) for group in GROUPS)
    shared = {key: model.pop(key) for key in SHARED_MODEL_KEYS}
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    config = TrainConfig(
        model=ModelConfig(**shared, options=model),
        data=build_data(data),
        augment=Augment(**augment),
        **{key: value for key, value in values.items() if key in fields},
    )
    if parsed.print_config:
        print(yaml.safe_dump(config_to_dict(config), sort_keys=False), end="")
        raise SystemExit(0)
    return config


_DEFAULT_NAMES = {"model": "sfnet", "data": "scenes"}


def as_flags(tree: Tree, parser: Parser, source: str) -> list[str]:
    """Settings as flags, so that files and flags are parsed, converted and checked in one way."""
    flags: list[str] = []
    known = parser.keys()
    for key, value in tree.items():
        nested = key in GROUPS and isinstance(value, dict)
        entries = {f"{key}.{name}": entry for name, entry in value.items()} if nested else {key: value}
        for name, entry in entries.items():
            if name not in known:
                raise CrispsegError(f"{source}: unknown key '{name}'{did_you_mean(name, known)}")
            flags.append(f"--{name}={entry if isinstance(entry, str) else json.dumps(entry)}")
    return flags
