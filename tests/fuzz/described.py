"""What describes a run or a model: settings in YAML, a model's config.json."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

import yaml
from training_runs import tiny

from crispseg import create_model, from_pretrained
from crispseg.cli.parsing import parse_training, read_yaml
from crispseg.models.info import ModelInfo
from crispseg.training.checkpoints import LAST
from crispseg.training.config import config_to_dict
from crispseg.training.resuming import check_same_run
from fuzz.kinds import Case, Kind
from fuzz.mutations import damaged, damaged_json, damaged_text, damaged_tree


class Settings(Kind):
    """The recipes that come with crispseg, and all settings of a run."""

    name = "YAML"

    def __init__(self, place: Path) -> None:
        recipes = Path(str(files("crispseg"))) / "recipes"
        self.run = tiny(place / "run")
        trees = [config_to_dict(self.run), {"model": "sfnet", "data": {"name": "folder", "images": "a", "masks": "b"}}]
        texts = [path.read_text() for path in sorted(recipes.rglob("*.yaml"))]
        self.seeds = [*texts, *(yaml.safe_dump(tree, sort_keys=False) for tree in trees)]

    def case(self, random: Random, folder: Path) -> Case:
        at = random.randrange(len(self.seeds))
        text, way = self.seeds[at], random.choice(("text", "text", "tree", "tree", "bytes"))
        if way == "tree":
            content = yaml.safe_dump(damaged_tree(random, yaml.safe_load(text)), sort_keys=False).encode()
        elif way == "text":
            content = damaged_text(random, text).encode("utf-8", "surrogatepass")
        else:
            content = damaged(random, text.encode(), [other.encode() for other in self.seeds]).content
        path = folder / "config.yaml"
        path.write_bytes(content)
        (folder / LAST.parent).mkdir()
        (folder / LAST).touch()

        def resumed() -> None:
            check_same_run(tiny(folder))

        def training() -> None:
            parse_training([str(path)], {}, prog="crispseg train", description="")

        return Case(
            f"settings {at}: {way}", {"train": training, "yaml": lambda: read_yaml(path), "resume": resumed}, {}
        )


class Configs(Kind):
    """A saved model's description, beside sound weights."""

    name = "config.json"

    def __init__(self, place: Path) -> None:
        self.weights: list[Path] = []
        self.seeds: list[dict[str, Any]] = []
        for name, options in (("fpn", {"width": 8}), ("sfnet", {"width": 8})):
            create_model(name, num_classes=3, backbone="test_efficientnet", **options).save_pretrained(place / name)
            self.weights.append(place / name / "model.safetensors")
            self.seeds.append(json.loads((place / name / "config.json").read_text()))

    def case(self, random: Random, folder: Path) -> Case:
        at = random.randrange(len(self.seeds))
        path = folder / "config.json"
        path.write_bytes(damaged_json(random, self.seeds[at]))
        (folder / "model.safetensors").symlink_to(self.weights[at])

        def loaded() -> None:
            from_pretrained(folder)

        return Case(f"model {at}", {"model": loaded, "info": lambda: ModelInfo.read(path)}, {})
