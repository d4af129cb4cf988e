"""`crispseg quickstart`: train, test and look, in minutes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from rich.console import Console

from crispseg.cli.command import HELP
from crispseg.cli.train import FLAGS, config_of, print_config, take_flags, training_help, training_layers
from crispseg.config.settings import CONFIG, Tree
from crispseg.config.yaml_files import read_yaml

USAGE = "usage: crispseg quickstart [FOLDER | CONFIG.yaml] [--key value ...]"
ABOUT = """\
Train on the bundled microscope images of nuclei, from the bundled model of aerial photographs; or on your own images,
or with --model another model.

It prints IoU on unseen images before and after, and draws panels of image, ground truth, predictions before and after,
and errors. All keys of 'crispseg train' work."""
KEYS = {key: FLAGS[key] for key in ("preset", "print_config")}


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    if {*HELP} & {*argv}:
        print(training_help(argv, USAGE, ABOUT, KEYS))
        return
    layers = training_layers(argv, KEYS)
    chosen = take_flags(layers[-1])
    recipe: Tree = read_yaml(Path(str(resources.files("crispseg") / "recipes" / "quickstart.yaml")))
    if any("model" in layer for layer in layers):  # the one of aerial photographs might not fit it
        recipe |= {"init_from": None, "model": {"pretrained": False}}  # nothing is downloaded
    config = config_of([recipe, {"out": str(_unused(Path("runs/quickstart")))}, *layers], argv[0] if argv else "")
    if chosen.get("print_config"):
        print_config(config)
        return

    from crispseg.training.quickstart import quickstart  # Lightning takes seconds, which a mistake need not wait for

    console = Console(highlight=False, soft_wrap=True)
    result = quickstart(config, console)
    console.print(f"try it:   crispseg predict {result.folder} IMAGE_OR_FOLDER --out predictions")


def _unused(folder: Path) -> Path:
    """The folder, or with a number where it is taken: another quickstart never overwrites one."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([folder], numbered) if not (candidate / CONFIG).exists())
