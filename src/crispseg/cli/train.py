"""`crispseg train [FOLDER | CONFIG.yaml] [--key value ...]`"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import yaml

from crispseg.cli.command import DATA_HEADING, Command
from crispseg.config.settings import CONFIG, Field, Tree, fields_of
from crispseg.data.folder import Folder
from crispseg.data.hints import after_training
from crispseg.errors import CrispsegError
from crispseg.folders.cache import forget
from crispseg.models.saving import FOLDS
from crispseg.training.config import ModelConfig, TrainConfig, config_to_dict
from crispseg.training.settings import flat, known_fields, recorded_settings, settings_from, training_config


@dataclass(kw_only=True)
class Training(Command):
    """Base of commands that train.

    Args:
        source: a folder of images and masks, or a YAML file of settings; for two folders, use --images and --masks.
        print_config: print the settings as YAML, and do nothing else.
    """

    words: ClassVar[tuple[str, ...]] = ("source",)
    source: str | None = None
    print_config: bool = False
    settings: Tree = field(init=False)

    @classmethod
    def more_keys(cls, tree: Tree) -> dict[str, dict[str, Field]]:
        (named,) = flat([tree])
        own = fields_of(cls)
        known = known_fields(named.get("model.name", ModelConfig.name), named.get("data.name", Folder.name))
        headings = {
            "": "The training",
            "model": "The model; --model NAME selects it",
            "data": DATA_HEADING,
            "augment": "Changes to images",
        }
        keys: dict[str, dict[str, Field]] = {heading: {} for heading in headings.values()}
        for key in known:
            if key not in own:
                keys[headings[key.rpartition(".")[0]]][key] = known[key]
        return keys

    def take(self, tree: Tree) -> None:
        """Store the settings; their keys are checked when all are known."""
        self.settings = tree | ({"plugins": self.plugins} if self.plugins else {})

    def config(self, *before: Tree, resumed: bool = False) -> TrainConfig:
        """Return the training settings, on top of `before`; errors in the file's settings name the file."""
        given = [settings_from(self.source)] if self.source else []
        try:
            return training_config(*before, *given, self.settings, resumed=resumed)
        except CrispsegError as error:
            words = {*re.findall(r"\w+", str(error))}
            if self.origin and not any(key.rpartition(".")[2] in words for key in self.settings):
                raise CrispsegError(f"{self.origin}: {error}") from None
            raise

    def show(self, config: TrainConfig) -> None:
        """Print settings as YAML."""
        self.results |= config_to_dict(config)
        print(yaml.safe_dump(self.results, sort_keys=False), end="")

    @property
    def origin(self) -> str | None:
        """File or folder of the settings that are no flags."""
        return self.source


@dataclass(kw_only=True)
class Train(Training):
    """Train a model on a folder of images and masks, on images and masks in two folders, or on public data.

    Settings come from flags and from the YAML file or folder of data that is given first. --resume RUN continues a run
    from its last checkpoint, with its settings and any flags on top. --folds 5 trains five models, each with a
    different fifth of your images as the val split.

    Args:
        resume: folder of a stopped run, or of folds, to resume.
        folds: number of models to train, each with a different part of the images as the val split.
        refresh: read all files again; by default, facts of unchanged files come from the user's cache folder.
    """

    name = "train"
    resume: str | None = None
    folds: int | None = None
    refresh: bool = False

    def __call__(self) -> None:
        if self.refresh:
            forget()
        resumed = self.resume is not None
        if resumed:
            self.settings["out"] = self.resume
        config = self.config(*self.first_settings(), resumed=resumed)
        if self.print_config:
            self.show(config)
            return

        # Importing Lightning takes seconds; --help and mistakes need not wait for it.
        from crispseg.training import train, train_folds
        from crispseg.training.trainer import is_first_process

        if resumed and (Path(config.out) / FOLDS).is_file():
            self.folds = getattr(config.data, "folds", None)
        if self.folds is not None:
            scores = train_folds(config, self.folds, resume=resumed)
            self.results |= {"run": config.out, "folds": scores} if is_first_process() else {}
            return
        run = train(config, resume=resumed)
        if is_first_process():
            self.results |= run.as_json()
            print("next:", *after_training(run.folder, run.data), sep="\n  ", file=sys.stderr)

    @property
    def origin(self) -> str | None:
        return self.source or (str(Path(self.resume) / CONFIG) if self.resume else None)

    def first_settings(self) -> list[Tree]:
        """Return settings that those of the flags and of the source override."""
        return [recorded_settings(self.resume)] if self.resume else []
