"""From YAML files and flags to a typed configuration.

Which keys exist depends on the model and the data that are named, so names are looked up first and a parser is made for
them: `--data folder` brings `--data.images`, and every key is typed, explained by --help and checked.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, get_args

import yaml
from jsonargparse import ArgumentParser, Namespace

from crispseg.cli.mistakes import Help, check_null, check_texts, in_words, keys_of
from crispseg.config.plugins import load_plugins
from crispseg.config.wording import shortened, written
from crispseg.config.yaml_files import parse_yaml
from crispseg.data import DATA_SOURCES, Augment, DataSource, Folder
from crispseg.data.folder_layout import recognise
from crispseg.errors import CrispsegError, did_you_mean, one_line
from crispseg.inference.runtime import Backend
from crispseg.io.images import SUFFIXES
from crispseg.models.info import renamed
from crispseg.models.refinement import REFINE_OPTIONS
from crispseg.models.registry import explained_options, model_options, resolved_options
from crispseg.models.saving import shipped_folder
from crispseg.training.config import LENGTHS, ModelConfig, TrainConfig, config_to_dict

Tree = dict[str, Any]

DEFAULTS: Tree = {"model": {"name": ModelConfig.name}, "data": {"name": Folder.name}}
RUN = "a run's folder, a saved model's folder, a hub id, or a name that 'crispseg list --pretrained' shows"
MODEL = f"{RUN}, or a file of crispseg export"
PRESETS = ("own", "paper")
PAPER = str(resources.files("crispseg") / "recipes" / "paper.yaml")
GROUPS = ("model", "data", "augment")
NAMED = ("model", "data")  # groups whose keys depend on their `name`
OWN = ("images", "masks", "instances")
"""Keys of `--data` that mean own data where no other are named."""
SHARED_MODEL_KEYS = ("name", "backbone", "pretrained", "in_chans", *REFINE_OPTIONS)


class Parser(ArgumentParser):  # type: ignore[misc]
    """An argument parser that reports mistakes as `CrispsegError`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(exit_on_error=False, allow_abbrev=False, print_config=None, formatter_class=Help, **kwargs)
        self._given: Sequence[str] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise, in one line; argparse would print and exit."""
        raise CrispsegError(in_words(" ".join(str(message).split()), self, self._given)) from ex

    def check_key(self, key: str, shown: str) -> None:
        """Refuse what is neither a flag nor, as `model.fuse_options.pixels`, an entry of one whose value is a mapping.

        Raises:
            CrispsegError: with a did-you-mean.
        """
        known = keys_of(self)
        above = str(getattr(known.get(key.rpartition(".")[0]), "_typehint", ""))
        if key not in known and "dict[" not in above.lower():
            raise CrispsegError(f"{shown}{_meant(key, known)}")

    def parse(self, argv: Sequence[str]) -> Namespace:
        """Parse; an unknown flag gets a did-you-mean."""
        # `--plugins a.py` adds one to the list, as `--plugins+` does.
        argv = [re.sub(r"^--plugins(?=$|=)", "--plugins+", token) for token in argv]
        for token in argv:
            if re.match(r"--[a-zA-Z]", token):
                key = token.removeprefix("--").partition("=")[0]
                self.check_key(key, f"unknown key --{key}")
        self._given = argv
        parsed = self.parse_args(argv)
        check_texts(parsed, self)
        return parsed


SYNONYMS = {
    **dict.fromkeys(("device", "gpu", "cuda"), "accelerator"),
    **dict.fromkeys(("batch", "bs", "batch_size_per_gpu"), "batch_size"),
    **dict.fromkeys(("imgsz", "img_size", "image_size", "size"), "augment.crop"),
    **dict.fromkeys(("learning_rate", "lr0"), "lr"),
    **dict.fromkeys(("weights", "checkpoint"), "init_from"),
    **dict.fromkeys(("output", "save_dir", "work_dir", "project"), "out"),
}
"""What other tools call a key → what it is called here."""


def _meant(key: str, known: Iterable[str]) -> str:
    """What an unknown key was meant to be: that of a group, as `data.classes`, or of other data, or a close one."""
    known = [name for name in known if not name.endswith("+")]
    if key in ("fold", "folds"):
        return (
            "; 'crispseg train --folds 5 …' trains a model for each of 5, data.folds and data.fold choose one of them"
        )
    inside = [name for name in known if name.endswith(f".{key}")]
    if len(inside) == 1:
        return f"; did you mean '{inside[0]}'?"
    if (same := SYNONYMS.get(key)) in known:
        return f"; did you mean '{same}'?"
    field = key.removeprefix("data.")
    if key in OWN:
        return f"; did you mean 'data.{key}'?"
    if field in Folder.__dataclass_fields__ and f"data.{field}" not in known and "data.name" in known:
        return f"; data.{field} is a key of --data folder, which has to be said too"
    return did_you_mean(key, [*known, *(group for group in NAMED if f"{group}.name" in known)])


def expand_names(argv: Sequence[str]) -> list[str]:
    """`--data camvid` is short for `--data.name camvid`."""
    pattern = re.compile(rf"--({'|'.join(NAMED)})(=.*)?$")
    return [pattern.sub(r"--\1.name\2", token) for token in argv]


def flag_values(argv: Sequence[str], *flags: str) -> list[str]:
    """All values of a flag that decides which others there are, before there is a parser for them."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument(*flags, dest="values", action="append", nargs="?", const="", default=[])
    return [value for value in first.parse_known_args(argv)[0].values if value]


def take_flag(argv: Sequence[str], *flags: str) -> str | None:
    """The last value of such a flag."""
    return next(reversed(flag_values(argv, *flags)), None)


def data_name(argv: Sequence[str]) -> str | None:
    """The data source that `--data`, or `--data.name`, names."""
    return take_flag(argv, "--data", "--data.name")


def read_yaml(path: str | Path) -> Tree:
    """A YAML file of settings, as `as_tree` makes them.

    Raises:
        CrispsegError: it is missing, no YAML, or no mapping.
    """
    try:
        tree = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        what = "missing" if not Path(path).exists() else f"unreadable ({error.strerror or one_line(error)})"
        raise CrispsegError(f"{path} is {what}; give a folder of data, or a YAML file of settings") from None
    except ValueError as error:
        if Path(path).suffix.lower() in SUFFIXES:
            raise CrispsegError(f"{path} is an image; give a folder of images and masks") from None
        raise CrispsegError(f"{path} is no YAML file of settings ({one_line(error)}); correct it") from None
    if not isinstance(tree, dict):
        raise CrispsegError(f"{path} holds no settings; write lines such as 'epochs: 20'")
    return as_tree(tree, path)


def read_recorded(path: str | Path) -> Tree:
    """The settings of a run that is to go on, as `read_yaml`; earlier ones recorded epochs beside the minutes."""
    tree = read_yaml(path)
    return tree | {"epochs": None} if tree.get("minutes") else tree


def one_too_many(first: str, second: str) -> CrispsegError:
    """What is wrong with a second path where one is taken: mostly folders of images and of masks are meant."""
    both = f"images and masks in two folders are --data.images {first} --data.masks {second}"
    return CrispsegError(f"'{second}' is one path too many; {both}")


def as_tree(tree: Mapping[Any, Any], source: str | Path) -> Tree:
    """Settings in the form that is worked with; `data: camvid` is short for `data: {name: camvid}`.

    Raises:
        CrispsegError: a key is no word, or a group no mapping.
    """
    for key, value in tree.items():
        if not isinstance(key, str) or (isinstance(value, dict) and not all(isinstance(name, str) for name in value)):
            raise CrispsegError(f"{source}: {key!r} has keys that are no words; write 'key: value'")
        if key in ("model.name", "data.name"):  # which decide what other keys there are
            raise CrispsegError(f"{source}: unknown key '{key}'; write '{key.removesuffix('.name')}: {value}'")
        if key in GROUPS and not isinstance(value, dict | str if key in NAMED else dict):
            raise CrispsegError(f"{source}: '{key}' is {value!r}; write '{key}: {{key: value}}'")
        if key == "plugins" and not (isinstance(value, list) and all(isinstance(file, str | Path) for file in value)):
            raise CrispsegError(f"{source}: plugins is {value!r}; give a list of files")
    grouped = {
        key: {"name": value} if key in NAMED and isinstance(value, str) else value for key, value in tree.items()
    }
    if isinstance(grouped.get("model"), dict):
        grouped["model"] = renamed(grouped["model"])
    names = {f"{group}.name": grouped[group]["name"] for group in NAMED if "name" in grouped.get(group, {})}
    for key, value in (
        names | {key: tree[key] for key in ("preset", "init_from") if tree.get(key) is not None}
    ).items():
        if not isinstance(value, str | Path):
            raise CrispsegError(f"{source}: {key} is {shortened(written(value))}; give a name, as text")
    return grouped


def merge(base: Tree, over: Tree) -> Tree:
    """`over` on top of `base`; keys of another model or data set, weights of its classes and another length go."""
    merged = base | over
    if any(over.get(key) is not None for key in LENGTHS):
        merged |= {key: over.get(key) for key in LENGTHS if key in base}
    for group in GROUPS:
        if group in base and group in over:
            names = [tree[group]["name"] for tree in (base, over) if "name" in tree[group]]
            kept = base[group]
            if group in NAMED and len({*names}) == 2:
                kept = {key: kept[key] for key in kept if group == "model" and key in SHARED_MODEL_KEYS}
                if group == "data" and "class_weights" not in over:
                    merged.pop("class_weights", None)
            merged[group] = kept | over[group]
    return merged


def add_model_keys(parser: Parser, name: str) -> None:
    """`--model.*`: what all models share, and the options of this one."""
    group = parser.add_argument_group(f"The model; '--model {name}' is short for '--model.name {name}'")
    group.add_class_arguments(ModelConfig, "model", as_group=False, skip={"options"})
    explained = explained_options(name)
    for key, option in model_options(name).items():
        kind = option.annotation
        if dict in (kind, *get_args(kind)):
            kind = dict[str, Any] | None  # of a plain dict the values would stay strings
        if key != "auxiliary":  # training decides
            group.add_argument(f"--model.{key}", type=kind, default=option.default, help=explained.get(key))
    parser.set_defaults({"model.name": name})


def add_data_keys(parser: Parser, name: str) -> None:
    """`--data.*`: the fields of this data source."""
    group = parser.add_argument_group(f"The data; '--data {name}' is short for '--data.name {name}'")
    group.add_argument("--data.name", default=name, help=f"one of {', '.join(sorted(DATA_SOURCES))}")
    group.add_class_arguments(data_source(name), "data", as_group=False)


def add_image_keys(parser: Parser, of: str = "", model: str = RUN) -> None:
    """What commands have that read images with a model and write as many results; `of` says which model."""
    parser.add_argument("run", help=f"{model}{of}")
    parser.add_argument(
        "images",
        nargs="+",
        help="files, folders (with their sub-folders), patterns such as 'in/*.jpg' and lists of paths, LIST.txt",
    )
    parser.add_argument(
        "--device", type=str | None, default=None, help="cpu or cuda; by default CUDA where there is one"
    )
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")


def add_backend_key(parser: Parser) -> None:
    """`--backend`, for the commands that run exported files."""
    explained = "what runs an exported file; by default ONNX Runtime for .onnx and OpenVINO for .xml"
    parser.add_argument("--backend", type=Backend, default="auto", help=explained)


def data_source(name: str) -> type[DataSource]:
    """The data source of this name.

    Raises:
        CrispsegError: there is none.
    """
    if name not in DATA_SOURCES and Path(name).is_dir():
        try:
            flags = " ".join(f"--data.{key} {value}" for key, value in recognise(Path(name)).items())
            flags = flags.replace("data.name", "data", 1)
        except CrispsegError:
            raise CrispsegError(f"data is {name}; say --data folder --data.images {name} --data.masks MASKS") from None
        raise CrispsegError(
            f"data is {name}; give it without --data, as in 'crispseg train {name}' or 'crispseg evaluate RUN {name}', "
            f"or say {flags}"
        )
    if name not in DATA_SOURCES:
        raise CrispsegError(f"unknown data '{name}'{did_you_mean(name, DATA_SOURCES)}")
    return DATA_SOURCES[name]


def build_data(values: Mapping[str, Any]) -> DataSource:
    """The data source that parsed `--data.*` values describe."""
    fields = {key: value for key, value in values.items() if key != "name"}
    return data_source(values["name"])(**fields)


def parse_data(argv: Sequence[str], base: Tree, parser: Parser) -> tuple[Namespace, DataSource]:
    """Parse flags of a command that has `--data.*` keys; `base` holds the data it starts from, as YAML has it."""
    name = data_name(argv)
    tree = merge(base, {"data": {"name": name}} if name else {})
    add_data_keys(parser, tree["data"]["name"])
    parsed = parser.parse([*as_flags({"data": tree["data"]}, parser, "the recorded data"), *expand_names(argv)])
    return parsed, build_data(vars(parsed.data))


def parse_training(
    argv: Sequence[str],
    recipe: Tree,
    *,
    prog: str,
    description: str,
    source: str | Path = "the built-in recipe",
    resumed: bool = False,
    shown: Mapping[str, str] = MappingProxyType({}),
) -> TrainConfig:
    """A training configuration from defaults, a recipe, a YAML file or a folder of data, and flags, the later winning.

    Args:
        argv: a YAML file or a folder of data first, if any; then flags.
        recipe: settings that lie under the file.
        prog, description: for the help.
        source: what the recipe is called in errors.
        resumed: the file is that of a run, which says all; what it started from need not be there any more.
        shown: further flags of the command, which have been taken from `argv`, and what the help says of them.

    Raises:
        CrispsegError: an unknown key, a wrong type or value.
    """
    argv = expand_names(argv)
    said: Tree = {}
    if argv and not argv[0].startswith("-"):
        source, *argv = argv
        if argv and not argv[0].startswith("-"):
            raise one_too_many(str(source), argv[0])
        read = read_recorded if resumed else read_yaml
        said = {"data": dict(recognise(Path(source)))} if Path(source).is_dir() else read(source)
    given = merge(recipe, said)
    preset = take_flag(argv, "--preset") or given.get("preset", "own")
    tree = default_names(preset)
    start = take_flag(argv, "--init_from") or given.get("init_from")
    named = take_flag(argv, "--model.name") or given.get("model", {}).get("name")
    here = start and (shipped_folder(str(start)) or Path(str(start)).is_dir())
    if start and not resumed and (here or not named):
        tree = merge(tree, {"model": _model_tree(ModelConfig.of(str(start)))})
    tree = merge(tree, given)
    load_plugins(tree.get("plugins", []))  # now, since what they register may be named by other keys
    for value in flag_values(argv, "--plugins", "--plugins+"):
        try:
            files = parse_yaml(value)
        except ValueError:
            files = value
        load_plugins(map(str, files if isinstance(files, list) else [files]))
    for group in NAMED:
        if name := take_flag(argv, f"--{group}.name"):
            tree = merge(tree, {group: {"name": name}})
    if not (data_name(argv) or "name" in said.get("data", {})) and take_flag(argv, *(f"--data.{key}" for key in OWN)):
        tree = merge(tree, {"data": {"name": Folder.name}})
    for key in LENGTHS:
        if length := take_flag(argv, f"--{key}"):
            tree = merge(tree, {key: length})
    tree = merge(read_yaml(PAPER) if preset == "paper" else {}, tree)

    parser = Parser(prog=prog, usage=f"{prog} [FOLDER | CONFIG.yaml] [--key value ...]", description=description)
    for flag, text in shown.items():
        parser.add_argument(flag, help=text)
    parser.add_argument("--print_config", action="store_true", help="print the settings as YAML, and do nothing else")
    parser.add_argument(
        "--preset", default="own", help="what is not said: own, made for data of one's own, or paper, SFNet's training"
    )
    add_model_keys(parser, tree["model"]["name"])
    add_data_keys(parser, tree["data"]["name"])
    group = parser.add_argument_group("Random changes to the training images")
    group.add_class_arguments(Augment, "augment", as_group=False)
    group = parser.add_argument_group("The training")
    group.add_class_arguments(TrainConfig, as_group=False, skip=set(GROUPS))
    for key in (*(flag.removeprefix("--") for flag in shown), "print_config", "help"):
        if key in tree:
            raise CrispsegError(f"{source}: '{key}' is no setting, but a flag; give it to the command, as --{key}")
    values = parser.parse([*as_flags(tree, parser, source), *argv]).as_dict()

    for flag in shown:
        del values[flag.removeprefix("--")]
    print_config, _ = values.pop("print_config"), values.pop("preset")
    model, data, augment = (values.pop(group) for group in GROUPS)
    shared = {key: model.pop(key) for key in SHARED_MODEL_KEYS}
    config = TrainConfig(
        model=ModelConfig(**shared, options=model), data=build_data(data), augment=Augment(**augment), **values
    )
    resolved_options(config.model.name, config.model.options)  # raises for what the model or its parts do not have
    if print_config:
        print(yaml.safe_dump(config_to_dict(config), sort_keys=False), end="")
        raise SystemExit(0)
    return config


def default_names(preset: str) -> Tree:
    """The model and the data where none are said.

    Raises:
        CrispsegError: there is no such preset.
    """
    if preset not in PRESETS:
        raise CrispsegError(f"unknown preset '{preset}'{did_you_mean(str(preset), PRESETS)}")
    return merge(DEFAULTS, {"model": {"name": read_yaml(PAPER)["model"]["name"]}}) if preset == "paper" else DEFAULTS


def _model_tree(model: ModelConfig) -> Tree:
    """The `model` settings, as YAML has them."""
    shared = {key: getattr(model, key) for key in SHARED_MODEL_KEYS if key != "pretrained"}
    return shared | model.options


def as_flags(tree: Tree, parser: Parser, source: str | Path) -> list[str]:
    """Settings as flags, so that files and flags are parsed, converted and checked in one way."""
    entries = {key: value for key, value in tree.items() if key not in GROUPS}
    entries |= {f"{group}.{key}": value for group in GROUPS for key, value in tree.get(group, {}).items()}
    for key in entries:
        parser.check_key(key, f"{source}: unknown key '{key}'")
    return [f"--{key}={_as_text(key, value, parser)}" for key, value in entries.items()]


def _as_text(key: str, value: Any, parser: Parser) -> str:
    if value is None and key in keys_of(parser):
        check_null(key, keys_of(parser)[key])
    try:
        text = value if isinstance(value, str) else json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise CrispsegError(
            f"{key} is no plain value ({one_line(error)}); give text, numbers, lists or dicts"
        ) from None
    if "\0" in text or r"\u0000" in text:
        raise CrispsegError(f"{key} is {shortened(repr(value))}, with a NUL byte; leave that out")
    return text
