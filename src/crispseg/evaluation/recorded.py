"""What a run records about its data, and the data on which it is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from crispseg.config.files import real_path
from crispseg.config.settings import CONFIG, Tree, checked, fields_of, unknown
from crispseg.config.yaml_files import read_yaml
from crispseg.data import DATA_SOURCES, DataSource, FileDataset, Folder
from crispseg.data.examination import shared_by
from crispseg.data.folder import ALL
from crispseg.data.named import build_data, own_data_meant, settings_of
from crispseg.errors import CrispsegError, few
from crispseg.evaluation.checked import check_classes
from crispseg.folders.survey import Pair
from crispseg.folders.wording import lines_of
from crispseg.inference.runtime import is_exported
from crispseg.io.files import user_path, written_lines
from crispseg.io.progress import print_lines
from crispseg.models.info import ModelInfo
from crispseg.models.saving import MODEL, WEIGHTS_FILE, read_info, shipped_folder

CLASS_KEYS = ("classes", "num_classes", "palette")  # settings of custom data that define the classes
MEANING = (*CLASS_KEYS, "palette_tolerance", "merge", "drop", "ignore")
"""Settings of custom data that define the meaning of masks; a run's settings apply to other folders too."""


def recipe_of(run: str) -> Tree:
    """Return the settings that a run, a saved model or a YAML file records; an exported file records none."""
    if is_exported(run):
        return {}
    folder = user_path(run)
    config = folder if folder.is_file() else folder / CONFIG
    return read_yaml(config) if config.is_file() and not shipped_folder(run) else read_info(run).recipe


def recorded_data(run: str) -> Tree:
    """Return the data settings of `recipe_of`."""
    data = recipe_of(run).get("data") or {}
    return {"name": data} if isinstance(data, str) else checked(dict, data, "data")


def named_data(target: str) -> tuple[Tree, int]:
    """Return the data settings for a path or a name, and the channels of the model if it is a run.

    The target is a data source, a folder of data, or an argument of `recorded_data`; others raise a `CrispsegError`.
    """
    path = Path(target)
    if not path.exists() and target in DATA_SOURCES:
        return {"name": target}, 3
    if not any(file.is_file() for file in (path, path / CONFIG, path / WEIGHTS_FILE)):
        return settings_of(path), 3
    data, model = recorded_data(target), recipe_of(target).get("model")
    if not data:
        raise CrispsegError(f"{target} records no data; give the data")
    in_chans = model.get("in_chans", 3) if isinstance(model, dict) else 3
    return data, checked(int, in_chans, "model.in_chans")


def completed(given: Mapping[str, object], name: str | None = None) -> Tree:
    """Return settings of data; add the name of custom data if the settings do not belong to the data `name`."""
    implied = "name" not in given and own_data_meant(given, name)
    return {"name": Folder.name, **given} if implied else dict(given)


def data_to_score(run: str, given: Mapping[str, object], split: str | None = None) -> tuple[DataSource, str]:
    """Return the data to score a run on, and the split.

    Without settings, it returns the recorded data with split val. In other folders, the recorded meaning of masks
    applies, but not the recorded splits. The default split is test if it exists, else val, or all if the data are not
    divided. Masks of another meaning than the training masks raise a `CrispsegError`.
    """
    recorded = recorded_data(run)
    if not recorded and not given:
        raise CrispsegError(f"{run} does not record its training data; give the data")
    names = read_info(run).class_names if recorded else ()
    data, elsewhere = _with_recorded(recorded, names, given)
    if elsewhere and data.regrouped and not {"merge", "drop"} & given.keys():
        own = f"data.classes '[{','.join(names)}]', data.merge '{{}}' and data.drop '[]'"
        note = f"masks are read by the ids before data.merge and data.drop; for masks in the model's own ids give {own}"
        print_lines(Console(stderr=True), [note], "yellow")
    _check_meaning(data, given)
    return data, split or _usual_split(data, elsewhere)


def _usual_split(data: DataSource, elsewhere: bool) -> str:
    if not elsewhere:
        return "val"
    if not data.divided:
        return ALL
    return "test" if "test" in data.splits() else "val"


def read_truth(info: ModelInfo, mask: Path, given: Mapping[str, object]) -> NDArray[np.uint8]:
    """Return the class ids `(H, W)` of a mask, read like the model's training data, or according to given settings.

    If the model records no data, the values are class ids. Unknown values raise a `CrispsegError`.
    """
    for key in given.keys() - {*MEANING}:
        raise unknown(f"data.{key}", [f"data.{known}" for known in MEANING])
    recorded = dict(info.recipe.get("data", {}))
    source = None if given else _recorded_source(recorded, mask)
    if source and (lookup := source.lookup()):
        return FileDataset([Pair(mask.stem, mask, mask)], source.label_set(), lookup).read_labels(0)
    if not any({**recorded, **given}.get(key) for key in CLASS_KEYS):
        given = {"num_classes": info.num_classes, **given}
    kind = "instances" if source and source.of_instances else "masks"
    data, _ = _with_recorded(recorded, info.class_names, {**given, "images": str(mask), kind: str(mask)})
    _check_meaning(data, given)
    check_classes(info, data.label_set())
    return data.dataset(ALL).read_labels(0)


def _recorded_source(recorded: Tree, mask: Path) -> DataSource | None:
    """Return the data that a model records; if it records no folder, like bundled models, in the folder of the mask."""
    name = str(recorded.get("name"))
    if name not in DATA_SOURCES:
        return None
    if "root" in fields_of(DATA_SOURCES[name]) and not _folders(recorded):
        recorded = {**recorded, "root": str(mask.parent)}
    return build_data(recorded)


def _with_recorded(recorded: Tree, names: Sequence[str], given: Mapping[str, object]) -> tuple[DataSource, bool]:
    """Return the data from a model's settings updated by given ones, and whether they are in other folders.

    In other folders, the recorded classes apply unless there is a classes.txt; `names` are the model's classes.
    """
    before = recorded.get("name")
    given = completed(given, before)
    name = given.get("name", before)
    elsewhere = name == Folder.name and not _folders(given).items() <= _folders(recorded).items()
    if name != before:
        recorded = {}
    elif elsewhere:
        recorded = _meaning_elsewhere(recorded, names, given)
    if "palette" in given:
        recorded.pop("palette_tolerance", None)
    return build_data({**recorded, **given}), elsewhere


def _check_meaning(data: DataSource, given: Mapping[str, object]) -> None:
    if not {*MEANING} & given.keys():
        data.check_meaning()


def _folders(settings: Mapping[str, object]) -> dict[str, Path]:
    keys = "root", "images", "masks", "instances"
    return {key: real_path(str(settings[key])) for key in keys if settings.get(key)}


def _meaning_elsewhere(recorded: Tree, names: Sequence[str], given: Mapping[str, object]) -> Tree:
    """Return the recorded settings that also apply to other folders; a file of classes belongs to its folder."""
    settings = {key: recorded[key] for key in ("name", *MEANING) if key in recorded}
    regrouped = settings.get("merge") or settings.get("drop")  # the file then has other classes than the model
    if isinstance(settings.get("classes"), str) and not regrouped:
        settings["classes"] = [*names]
    if given.get("root") and Path(str(given["root"]), "classes.txt").is_file():
        settings["classes"] = None
    return settings


TRAINED = "train.txt"  # file in a run's folder that lists its training images, in the format of `data.train_list`


def warn_of_leaks(run: str, data: DataSource, split: str) -> None:
    """Warn of training images of a run in a split, compared by file or content, if both are custom data."""
    recorded = recorded_data(run)
    if not data.inferred or split == "train" or recorded.get("name") != Folder.name:
        return
    file = (Path(run).parent if Path(run).name == MODEL else Path(run)) / TRAINED
    try:
        known = _trained_on(build_data(recorded), file)
    except CrispsegError:  # they no longer exist
        return
    pairs, lines = data.pairs(split), []
    if again := [pair.name for pair in pairs if known.pop(real_path(pair.image), None)]:
        remedy = f"; data.train_list {file} leaves them out" if split == "val" and file.is_file() else ""
        images = f"{len(again)} of {len(pairs)} images in {split}"
        lines.append(f"{images} were used in training {run}: {few(again, 2)}{remedy}")
    for finding in shared_by(data, {"train": [*known.values()], split: pairs}):
        lines += lines_of(finding)
    print_lines(Console(stderr=True), lines, "yellow")


def _trained_on(data: DataSource, file: Path) -> dict[Path, Pair]:
    """Return the training pairs by the paths of their images; `file` lists their names, unless it is missing."""
    names = {*written_lines(file)} if file.is_file() else {*data.names_to_record(data.pairs("train"))}
    return {real_path(pair.image): pair for pair in data.pairs(ALL, strict=False) if pair.name in names}
