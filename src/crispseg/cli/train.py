"""`crispseg train [FOLDER | CONFIG.yaml] [--key value ...]`"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from crispseg.cli.command import DATA, HELP, help_page, read_flags
from crispseg.config.settings import Field, Tree, checked, fields_of, plain
from crispseg.data.dataset import FileDataset
from crispseg.data.folder import Folder
from crispseg.data.transforms import Augment
from crispseg.errors import CrispsegError
from crispseg.training.config import ModelConfig, TrainConfig, config_to_dict
from crispseg.training.settings import (
    GROUPS,
    known_fields,
    names_of,
    recorded_settings,
    settings_from,
    training_config,
)

if TYPE_CHECKING:
    from crispseg.training import Run

FLAGS = {
    "resume": Field(str | None, None, "folder of a run that was stopped, or of folds, to go on with"),
    "folds": Field(int | None, None, "number of models to train, each with another part of the images as val split"),
    "preset": Field(str, "own", "defaults: own, made for your own data, or paper, SFNet's training"),
    "print_config": Field(bool, False, "print the settings as YAML, and do nothing else"),
}
"""Keys that are no settings of a run."""
USAGE = "usage: crispseg train [FOLDER | CONFIG.yaml] [--key value ...]"
ABOUT = """\
Train a model on a folder of images and masks, on images and masks in two folders, or on public data.

Settings come from flags and, given first, from a YAML file or from a folder of data. With --resume RUN a run
continues from its last checkpoint, with its settings and any flags on top. With --folds 5 five models are trained, each
with another fifth of your images as the val split."""
FIRST = (
    *("data.images", "data.masks", "data.classes", "out", "minutes", "epochs", "batch_size", "augment.crop"),
    *("model.name", "model.backbone", "model.pretrained", "init_from", "resume", "folds"),
)
"""Keys on the first page of help."""


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    if {*HELP} & {*argv}:
        print(training_help(argv, USAGE, ABOUT, FLAGS))
        return
    *given, flags = training_layers(argv, FLAGS)
    chosen = take_flags(flags)
    folder, folds = chosen.get("resume"), chosen.get("folds")
    layers = [*given, flags] if folder is None else [recorded_settings(folder), *given, flags, {"out": folder}]
    config = config_of(layers, argv[0] if given else "", resumed=folder is not None)
    if chosen.get("print_config"):
        print_config(config)
        return

    # Lightning takes seconds, which --help and a mistake need not wait for
    from crispseg.training import train, train_folds
    from crispseg.training.folds import SCORES

    if folder is not None and (Path(folder) / SCORES).is_file():
        folds = getattr(config.data, "folds", None)
    if folds is None:
        print_next(train(config, resume=folder is not None))
    else:
        train_folds(config, folds, resume=folder is not None)


def take_flags(tree: Tree) -> Tree:
    """Take the keys out of a tree that are no settings of a run, and return their values."""
    kinds = {key: each.kind for key, each in FLAGS.items() if key in tree and key != "preset"}
    return {key: checked(kind, plain(tree.pop(key), kind), key) for key, kind in kinds.items()}


def print_config(config: TrainConfig) -> None:
    """Print settings as YAML."""
    print(yaml.safe_dump(config_to_dict(config), sort_keys=False), end="")


def config_of(layers: list[Tree], source: str, *, resumed: bool = False) -> TrainConfig:
    """Return the settings of a training; what is wrong in the file that is their `source` is said of the file.

    Raises:
        CrispsegError: as `training_config`.
    """
    try:
        return training_config(*layers, resumed=resumed)
    except CrispsegError as error:
        group, _, key = (error.field or "").rpartition(".")
        flags = {*layers[-1], *(layers[-1].get(group) or {})}
        if source and error.field and not {error.field, key} & flags:
            raise CrispsegError(f"{source}: {error}") from None
        raise


def parse_training(argv: Sequence[str], *recipes: Tree) -> TrainConfig:
    """Return the settings of a training that the words of a command line give, on top of recipes.

    Raises:
        CrispsegError: as `training_layers` and `training_config`.
    """
    layers = training_layers(argv, {"preset": FLAGS["preset"]})
    return config_of([*recipes, *layers], argv[0] if len(layers) > 1 else "")


def training_layers(argv: Sequence[str], flags: Mapping[str, Field]) -> list[Tree]:
    """Return the settings of a YAML file or a folder of data that is given first, if one is, and those of flags.

    Raises:
        CrispsegError: there are more words, or the file or folder cannot be read.
    """
    kinds: dict[str, Any] = {key: each.kind for key, each in {**fields_of(TrainConfig), **flags}.items()}
    kinds |= {f"augment.{key}": each.kind for key, each in fields_of(Augment).items()}
    kinds |= {key: each.kind for key, each in fields_of(Folder).items() if key not in kinds}
    words, tree = read_flags(argv, kinds, groups=GROUPS, words=1)
    if len(words) > 1:
        both = f"images and masks in two folders are --images {words[0]} --masks {words[1]}"
        raise CrispsegError(f"'{words[1]}' is one path too many; {both}")
    return [*map(settings_from, words), tree]


def training_help(argv: Sequence[str], usage: str, about: str, flags: Mapping[str, Field]) -> str:
    """Return the help of a command that trains: its first page, or all keys where model, data or `all` are named."""
    program = usage.removeprefix("usage: ").partition(" [")[0]
    layers = training_layers([word for word in argv if word not in (*HELP, "all")], flags)
    model, data = names_of(*layers)
    known = known_fields(model or ModelConfig.name, data or Folder.name)
    keys = {key: each for key, each in known.items() if "." not in key}
    groups: dict[str, dict[str, Field]] = {"The command": dict(flags), "The training": keys}
    for group, heading in zip(GROUPS, ("The model; --model NAME says which", DATA, "Changes to images"), strict=True):
        groups[heading] = {key: each for key, each in known.items() if key.startswith(f"{group}.")}
    first = FIRST if argv[-1] != "all" and not (model or data) else ()
    return help_page(usage, about, groups, program, first)


def print_next(trained: Run) -> None:
    """Print the commands that a finished run is for; of several processes, the first one does."""
    from crispseg.training.trainer import is_first_process

    if not is_first_process():
        return
    val = trained.data.dataset("val")
    run = shlex.quote(str(trained.folder))
    image = shlex.quote(str(val.pairs[0].image)) if isinstance(val, FileDataset) else "IMAGE"
    print(
        "next:",
        f"  crispseg predict {run} {image} --out predictions",
        f"  crispseg evaluate {run} --html scores.html",
        f"  crispseg inspect {run} {image} --out inspect.html",
        sep="\n",
        file=sys.stderr,
    )
