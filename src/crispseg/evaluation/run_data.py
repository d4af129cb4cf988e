"""The data that a run was trained on, and those that it is scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from crispseg.config.settings import CONFIG, Tree
from crispseg.config.yaml_files import read_yaml
from crispseg.data import DATA_SOURCES, DataSource, Folder, SegmentationDataset, check_split
from crispseg.data.bit_depth import known_range
from crispseg.data.dataset import FileDataset
from crispseg.data.folder import ALL, settle
from crispseg.data.folder_layout import recognise
from crispseg.data.named import build_data, own_data_meant
from crispseg.errors import CrispsegError
from crispseg.inference.runtime import AnyModel, is_exported
from crispseg.io.images import image_channels
from crispseg.io.value_range import warn_of_unknown
from crispseg.models.saving import WEIGHTS_FILE, read_info, shipped_folder

MEANING = ("name", "classes", "num_classes", "palette", "ignore")
"""Recorded settings of own data that hold in other folders too."""


def recorded_data(run: str) -> Tree:
    """Return the settings of the data of a run or a saved model; empty if it has none, as an exported file."""
    if is_exported(run):
        return {}
    config = Path(run) / CONFIG
    tree = read_yaml(config) if config.is_file() and not shipped_folder(run) else read_info(run).recipe
    data = tree.get("data", {})
    return {"name": data} if isinstance(data, str) else dict(data)


def named_data(target: str) -> tuple[Tree, int]:
    """Return the settings of the data that a path or a name means, and the channels of the model of a run.

    Args:
        target: a data source, a folder of data, a run, a saved model, or a YAML file of a training.

    Raises:
        CrispsegError: it means no data.
    """
    path = Path(target)
    if not path.exists() and target in DATA_SOURCES:
        return {"name": target}, 3
    if path.is_file() or (path / CONFIG).is_file() or (path / WEIGHTS_FILE).is_file():
        settings = path if path.is_file() else path / CONFIG
        tree = read_yaml(settings) if settings.is_file() else {"data": recorded_data(target)}
        data = tree.get("data")
        if not data:
            raise CrispsegError(f"{target} does not say which data it is about; give the data")
        in_chans = (tree.get("model") or {}).get("in_chans", 3) if isinstance(tree.get("model"), dict) else 3
        return {"name": data} if isinstance(data, str) else data, int(in_chans)
    return recognise(path), 3


def completed(said: Mapping[str, object]) -> Tree:
    """Return settings of data with the name of own data, if they mean these and say no name."""
    return {"name": Folder.name, **said} if "name" not in said and own_data_meant(said, None) else dict(said)


def data_to_score(run: str, said: Mapping[str, object], split: str | None = None) -> tuple[DataSource, str]:
    """Return the data to score a run on, and the split.

    Of recorded data in other folders, what masks mean still holds, and how images were divided does not.

    Args:
        run: its recorded data are scored where nothing else is said.
        said: settings of other data, or of the same.
        split: by default val, or of folders other than those that were trained on test if they have it, else all.

    Raises:
        CrispsegError: the run records no data and none are given, or a setting is wrong.
    """
    recorded = recorded_data(run)
    name, said = recorded.get("name"), dict(said)
    if "name" not in said and own_data_meant(said, name):
        said["name"] = Folder.name
    if not recorded and not said:
        raise CrispsegError(f"{run} does not say which data it was trained on; give the data")
    places = {key: Path(str(said[key])) for key in ("root", "images", "masks") if said.get(key) is not None}
    elsewhere = said.get("name", name) == Folder.name and any(
        recorded.get(key) is None or place.resolve() != Path(recorded[key]).resolve() for key, place in places.items()
    )
    if str(said.get("name", name)) != name:
        recorded = {}
    elif elsewhere:
        recorded = {key: value for key, value in recorded.items() if key in MEANING}
    data = build_data({**recorded, **said})
    if split is None:
        whole = elsewhere and isinstance(data, Folder) and not data.divided
        split = ALL if whole else "test" if elsewhere and "test" in data.splits() else "val"
    return data, split


def checked_splits(models: Sequence[AnyModel], data: DataSource, split: str) -> list[SegmentationDataset]:
    """Return the split, checked, as each of several models sees it; images that several see alike are checked once.

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
    if recorded.get("name") != Folder.name or not isinstance(dataset, FileDataset):
        return 0
    trained: set[Path] = set()
    with suppress(CrispsegError):  # they have been moved
        own = build_data(recorded)
        assert isinstance(own, Folder)
        trained = {pair.image.resolve() for pair in own.pairs("train")}
    return sum(pair.image.resolve() in trained for pair in dataset.pairs)
