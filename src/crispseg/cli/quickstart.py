"""`crispseg quickstart`: train, test and view a model in minutes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from crispseg.cli.train import Training
from crispseg.config.settings import CONFIG
from crispseg.config.yaml_files import RECIPES, read_yaml
from crispseg.data.hints import after_training
from crispseg.training.settings import settings_from


@dataclass(kw_only=True)
class Quickstart(Training):
    """Train on the bundled microscope images of nuclei, starting from the bundled model of aerial photographs.

    You can also train on your own images, or choose another model with --model. The command prints IoU on unseen images
    before and after. It draws panels of image, ground truth, predictions before and after, and errors.
    """

    name = "quickstart"

    def __call__(self) -> None:
        recipe = read_yaml(RECIPES / "quickstart.yaml")
        given = {**(settings_from(self.source) if self.source else {}), **self.settings}
        if any(key.partition(".")[0] == "model" for key in given):  # the aerial model might not match
            recipe["init_from"] = None
        names = itertools.chain(["quickstart"], (f"quickstart-{number}" for number in itertools.count(2)))
        recipe["out"] = next(f"runs/{name}" for name in names if not (Path("runs") / name / CONFIG).exists())
        config = self.config(recipe)
        if self.print_config:
            self.show(config)
            return

        from crispseg.training.quickstart import quickstart  # importing Lightning takes seconds; report mistakes first

        console = Console(highlight=False, soft_wrap=True)
        result = quickstart(config, console)
        self.results |= result.as_json()
        console.print("next:", *after_training(result.folder, result.data), sep="\n  ")
