"""What the commands that score trained models share: their keys, the data of a run, the split."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console

from crispseg.cli.parsing import OWN, Parser, Tree, data_name, parse_data, read_yaml, take_flag
from crispseg.config.plugins import load_plugins
from crispseg.data import DATA_SOURCES, DataSource, Folder, SegmentationDataset, check_split
from crispseg.data.bit_depth import known_range
from crispseg.data.dataset import FileDataset
from crispseg.data.folder import ALL, settle
from crispseg.data.folder_layout import recognise
from crispseg.errors import CrispsegError
from crispseg.evaluation.bootstrap import LEVEL, RESAMPLES
from crispseg.inference.runtime import AnyModel, is_exported
from crispseg.io.files import atomic_path
from crispseg.io.images import image_channels
from crispseg.io.value_range import warn_of_unknown
from crispseg.models.saving import read_info, shipped_folder
from crispseg.training.config import CONFIG, spare_processors
from crispseg.visualization.pages import check_json, check_page

MEANING = ("name", "classes", "num_classes", "palette", "ignore")
"""Recorded settings of own data that hold in other folders too."""

FEWEST = 40
"""Resamples of which one can lie outside of a 95 % interval on each side."""


def add_thin_key(parser: Parser) -> None:
    """`--thin`, for the commands that know widths."""
    parser.add_argument(
        "--thin",
        type=str,
        nargs="*",
        metavar="CLASS",
        help="also IoU and recall by the width of things, and clDice of the classes that are named",
    )


def add_scoring_keys(parser: Parser) -> None:
    """`--split`, `--bootstrap`, `--json`, `--html`, `--device`, `--workers` and `--plugins`."""
    parser.add_argument(
        "--split",
        type=str | None,
        default=None,
        help="which split; by default val or, of folders other than those that were trained on, test if they have it, "
        "else all of them",
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=RESAMPLES,
        metavar="N",
        help=f"resamples for the {LEVEL:.0f} %% intervals over images; at least {FEWEST}, or 0 for none",
    )
    parser.add_argument("--json", type=Path | None, default=None, help="also write the scores to this file")
    parser.add_argument("--html", type=Path | None, default=None, metavar="FILE.html", help="also write a page")
    parser.add_argument(
        "--device", type=str | None, default=None, help="cpu or cuda; by default CUDA where there is one"
    )
    parser.add_argument("--workers", type=int, default=spare_processors(), help="processes that load data")
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")


def parse_scoring(argv: Sequence[str], parser: Parser, *, more_runs: bool = False) -> tuple[Namespace, DataSource]:
    """Parse flags after a run, whose recorded data are those to score on unless a folder or `--data` says otherwise.

    With `more_runs` what follows is no folder. Of recorded data in other folders, what masks mean still holds, and how
    images were divided does not.

    Raises:
        CrispsegError: no run comes first, it records no data and none are given, or a key is wrong; a file cannot be
            written.
    """
    if not argv or argv[0].startswith("-"):
        parser.add_argument("--data", help="data other than the recorded ones; brings --data.* keys")
        parser.parse(list(argv))  # --help, or what is missing
        raise CrispsegError(f"give the run first: {parser.prog} RUN")
    base = recorded_data(argv[0])
    if not more_runs:
        argv = [argv[0], *_folder_as_flags(argv[1:])]
    recorded = DATA_SOURCES.get(base.get("data", {}).get("name"))
    fields = inspect.signature(recorded).parameters if recorded else ()
    if data_name(argv) is None and take_flag(argv, *(f"--data.{key}" for key in OWN if key not in fields)):
        argv = [argv[0], f"--data.name={Folder.name}", *argv[1:]]
    if "data" not in base and data_name(argv) is None:
        raise CrispsegError(f"{argv[0]} does not say which data it was trained on; give --data")
    elsewhere = _elsewhere(argv, base)
    if elsewhere and base.get("data", {}).get("name") == Folder.name:
        base = {"data": {key: value for key, value in base["data"].items() if key in MEANING}}
    parsed, data = parse_data(argv, base, parser)
    if parsed.split is None:
        whole = elsewhere and isinstance(data, Folder) and not data.divided
        parsed.split = ALL if whole else "test" if elsewhere and "test" in data.splits() else "val"
    if parsed.bootstrap and parsed.bootstrap < FEWEST:
        raise CrispsegError(
            f"bootstrap is {parsed.bootstrap}; give the number of resamples, at least {FEWEST}, or 0 for no intervals"
        )
    if parsed.html:
        check_page(parsed.html)
    if parsed.json:
        check_json(parsed.json)
    load_plugins(parsed.plugins)
    return parsed, data


def _folder_as_flags(argv: Sequence[str]) -> list[str]:
    """Flags in place of a folder of data that comes first."""
    if not argv or argv[0].startswith("-"):
        return list(argv)
    flags = [f"--data.{key}={value}" for key, value in recognise(Path(argv[0])).items()]
    return [*flags, *argv[1:]]


def _elsewhere(argv: Sequence[str], base: Tree) -> bool:
    """Whether flags name folders of own data that are not the recorded ones."""
    recorded = base.get("data", {})
    if (data_name(argv) or recorded.get("name")) != Folder.name:
        return False
    places = {key: take_flag(argv, f"--data.{key}") for key in ("root", "images", "masks")}
    return any(
        place and (recorded.get(key) is None or Path(place).resolve() != Path(recorded[key]).resolve())
        for key, place in places.items()
    )


def recorded_data(run: str) -> Tree:
    """The `data` settings of a run or a saved model, as YAML has them; empty if it has none, as an exported file."""
    if is_exported(run):
        return {}
    config = Path(run) / CONFIG
    tree = read_yaml(config) if config.is_file() and not shipped_folder(run) else read_info(run).recipe
    return {"data": tree["data"]} if "data" in tree else {}


def checked_splits(models: Sequence[AnyModel], data: DataSource, split: str) -> list[SegmentationDataset]:
    """The split, checked, as each of several models sees it; images that several see alike are checked once.

    Says so where its classes have other names than a model's, where a model was trained on some of its images, and what
    was left out or understood of own data.

    Raises:
        CrispsegError: no such split, faults in it, or images without a model's channels.
    """
    data, notes = settle(data)
    whole, checked = data.dataset(split), set()
    datasets = []
    for model in models:
        dataset = whole.with_channels(model.info.in_chans, model.info.value_range)
        channels = image_channels(model.info.in_chans)
        if channels not in checked:
            if isinstance(dataset, FileDataset) and dataset.value_range is None and (found := known_range(dataset)):
                warn_of_unknown(f"the split '{split}'", *found)  # before data workers do, each on its own
            check_split(dataset, split)
            checked.add(channels)
        names, own = dataset.labels.names, model.info.class_names
        if own and len(own) == len(names) and own != names:
            notes.append(f"the model's classes are {', '.join(own)}; those of the data have other names")
        if split != "train" and (known := _trained_on(model, dataset)):
            notes.append(f"{known} of these {len(dataset)} images were trained on, so scores on new ones will be lower")
        datasets.append(dataset)
    for line in dict.fromkeys(notes):
        Console(stderr=True).print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    return datasets


def _trained_on(model: AnyModel, dataset: SegmentationDataset) -> int:
    """How many images of a split a model was trained on, as far as both are own data that are there."""
    recorded = {**model.info.recipe.get("data", {})}
    if recorded.pop("name", None) != Folder.name or not isinstance(dataset, FileDataset):
        return 0
    trained: set[Path] = set()
    with suppress(CrispsegError):  # they have been moved
        trained = {pair.image.resolve() for pair in Folder(**recorded).pairs("train")}
    return sum(pair.image.resolve() in trained for pair in dataset.pairs)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a file of scores."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
