"""What the commands that score trained models share: their keys, the data of a run, the split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console

from crispseg.cli.parsing import Parser, Tree, data_name, parse_data, read_yaml
from crispseg.data import DataSource, SegmentationDataset, check_split
from crispseg.data.base import FileDataset
from crispseg.data.depth import known_range
from crispseg.errors import CrispsegError
from crispseg.evaluation.per_image import LEVEL, RESAMPLES
from crispseg.files import atomic_path, writable_file
from crispseg.imaging import image_channels
from crispseg.models import SegmentationModel
from crispseg.models.saving import read_info
from crispseg.pages import check_page
from crispseg.plugins import load_plugins
from crispseg.training.config import CONFIG
from crispseg.value_range import warn_of_unknown

FEWEST = 40
"""Resamples of which one can lie outside of a 95 % interval on each side."""


def add_scoring_keys(parser: Parser) -> None:
    """`--split`, `--bootstrap`, `--json`, `--html`, `--device`, `--workers` and `--plugins`."""
    parser.add_argument("--split", default="val", help="which split")
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
    parser.add_argument("--workers", type=int, default=2, help="processes that load data")
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")


def parse_scoring(argv: Sequence[str], parser: Parser) -> tuple[Namespace, DataSource]:
    """Parse flags after a run, whose recorded data are those to score on unless `--data` says otherwise.

    Raises:
        CrispsegError: no run comes first, it records no data and none are given, or a key is wrong; a file cannot be
            written.
    """
    if not argv or argv[0].startswith("-"):
        parser.add_argument("--data", help="data other than the recorded ones; brings --data.* keys")
        parser.parse(list(argv))  # --help, or what is missing
        raise CrispsegError(f"give the run first: {parser.prog} RUN")
    base = recorded_data(argv[0])
    if "data" not in base and data_name(argv) is None:
        raise CrispsegError(f"{argv[0]} does not say which data it was trained on; give --data")
    parsed, data = parse_data(argv, base, parser)
    if parsed.bootstrap and parsed.bootstrap < FEWEST:
        raise CrispsegError(
            f"bootstrap is {parsed.bootstrap}; give the number of resamples, at least {FEWEST}, or 0 for no intervals"
        )
    if parsed.html:
        check_page(parsed.html)
    if parsed.json:
        writable_file(parsed.json)
    if parsed.json and parsed.html and parsed.json.resolve() == parsed.html.resolve():
        raise CrispsegError(f"--json and --html are both {parsed.json}; give two files")
    load_plugins(parsed.plugins)
    return parsed, data


def recorded_data(run: str) -> Tree:
    """The `data` settings of a run or a saved model, as YAML has them; empty if it has none."""
    tree = read_yaml(Path(run) / CONFIG) if (Path(run) / CONFIG).is_file() else read_info(run).recipe
    return {"data": tree["data"]} if "data" in tree else {}


def checked_splits(models: Sequence[SegmentationModel], data: DataSource, split: str) -> list[SegmentationDataset]:
    """The split, checked, as each of several models sees it; images that several see alike are checked once.

    Says so where its classes have other names than a model's.

    Raises:
        CrispsegError: no such split, faults in it, or images without a model's channels.
    """
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
            Console(stderr=True).print(
                f"the model's classes are {', '.join(own)}; those of the data have other names",
                style="yellow",
                soft_wrap=True,
            )
        datasets.append(dataset)
    return datasets


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a file of scores."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
