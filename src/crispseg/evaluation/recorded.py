"""What a run records about its data, and the data on which it is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from crispseg.config.settings import CONFIG, Tree, unknown
from crispseg.config.yaml_files import read_yaml
from crispseg.data import DATA_SOURCES, DataSource, FileDataset, Folder
from crispseg.data.examination import shared_by
from crispseg.data.named import build_data, own_data_meant, settings_of
from crispseg.data.open_folder import ALL
from crispseg.data.sources import PublicSource
from crispseg.errors import CrispsegError, Question, few
from crispseg.evaluation.checked import check_classes
from crispseg.folders.lookup import ColorLookup
from crispseg.folders.palettes import numbered_colors
from crispseg.folders.survey import Pair
from crispseg.folders.wording import lines_of
from crispseg.inference.runtime import is_exported
from crispseg.io.progress import print_lines
from crispseg.labels import IGNORE, Color, LabelSet
from crispseg.models.info import ModelInfo
from crispseg.models.saving import WEIGHTS_FILE, read_info, shipped_folder

MEANING = ("classes", "num_classes", "palette", "palette_tolerance", "merge", "drop", "ignore")
"""Settings of custom data that define the meaning of masks; a run's settings apply to other folders too."""


def recorded_data(run: str) -> tuple[Tree, int]:
    """Return the data settings of a run, a saved model or a YAML file, and the channels of its model.

    An exported file records no data.
    """
    if is_exported(run):
        return {}, 3
    config = Path(run) if Path(run).is_file() else Path(run) / CONFIG
    tree = read_yaml(config) if config.is_file() and not shipped_folder(run) else read_info(run).recipe
    data, model = tree.get("data") or {}, tree.get("model")
    in_chans = model.get("in_chans", 3) if isinstance(model, dict) else 3
    return {"name": data} if isinstance(data, str) else dict(data), int(in_chans)


def named_data(target: str) -> tuple[Tree, int]:
    """Return the data settings for a path or a name, and the channels of the model if it is a run.

    The target is a data source, a folder of data, or an argument of `recorded_data`; others raise a `CrispsegError`.
    """
    path = Path(target)
    if not path.exists() and target in DATA_SOURCES:
        return {"name": target}, 3
    if not any(each.is_file() for each in (path, path / CONFIG, path / WEIGHTS_FILE)):
        return settings_of(path), 3
    data, in_chans = recorded_data(target)
    if not data:
        raise CrispsegError(f"{target} records no data; give the data")
    return data, in_chans


def completed(said: Mapping[str, object], name: str | None = None) -> Tree:
    """Return settings of data; add the name of custom data if the settings do not belong to the data `name`."""
    return {"name": Folder.name, **said} if "name" not in said and own_data_meant(said, name) else dict(said)


def data_to_score(run: str, said: Mapping[str, object], split: str | None = None) -> tuple[DataSource, str]:
    """Return the data to score a run on, and the split.

    Without settings, it returns the recorded data with split val. In other folders, the recorded meaning of masks
    applies, but not the recorded splits. The default split is test if it exists, else val, or all if the data are not
    divided. Masks of another meaning than the training masks raise a `CrispsegError`.
    """
    recorded, _ = recorded_data(run)
    if not recorded and not said:
        raise CrispsegError(f"{run} does not record its training data; give the data")
    names = read_info(run).class_names if recorded else ()
    data, elsewhere = _with_recorded(recorded, names, said)
    if elsewhere and isinstance(data, Folder) and (data.merge or data.drop) and not {"merge", "drop"} & said.keys():
        note = f"masks are read by the ids before data.merge and data.drop; {_own_ids(names)}"
        print_lines(Console(stderr=True), [note], "yellow")
    return data, _usual_split(data, elsewhere) if split is None else split


def _usual_split(data: DataSource, elsewhere: bool) -> str:
    if not elsewhere:
        return "val"
    if isinstance(data, Folder) and not data.open().divided:
        return ALL
    return "test" if "test" in data.splits() else "val"


def read_truth(info: ModelInfo, mask: Path, said: Mapping[str, object]) -> NDArray[np.uint8]:
    """Return the class ids `(H, W)` of a mask, read like the model's training data, or according to `said`.

    If the model records no data, the values are class ids. Unknown values raise a `CrispsegError`.
    """
    for key in said.keys() - {*MEANING}:
        raise unknown(f"data.{key}", [f"data.{each}" for each in MEANING])
    recorded = dict(info.recipe.get("data", {}))
    source = build_data(recorded) if recorded.get("name") in DATA_SOURCES and not said else None
    if isinstance(source, PublicSource):
        return FileDataset([Pair(mask.stem, mask, mask)], source.label_set(), source.lookup()).read_labels(0)
    if not any({**recorded, **said}.get(key) for key in MEANING[:3]):
        said = {"num_classes": info.num_classes, **said}
    kind = "instances" if isinstance(source, Folder) and source.of_instances else "masks"
    data, _ = _with_recorded(recorded, info.class_names, {**said, "images": str(mask), kind: str(mask)})
    check_classes(info, data.label_set())
    return data.dataset(ALL).read_labels(0)


def _with_recorded(recorded: Tree, names: Sequence[str], said: Mapping[str, object]) -> tuple[DataSource, bool]:
    """Return the data from a model's settings updated by `said`, and whether they are in other folders.

    In other folders, the recorded classes apply unless there is a classes.txt; `names` are the model's classes.
    """
    name = recorded.get("name")
    said = completed(said, name)
    elsewhere = said.get("name", name) == Folder.name and _in_other_folders(recorded, said)
    if str(said.get("name", name)) != name:
        recorded = {}
    elif elsewhere:
        recorded = _meaning_elsewhere(recorded, names, said)
    if "palette" in said:
        recorded.pop("palette_tolerance", None)
    data = build_data({**recorded, **said})
    if isinstance(data, Folder):
        if elsewhere:
            _check_regrouped(data, names)
        if not data.of_instances and not {*MEANING} & {*said}:
            _check_meaning(data, elsewhere)
    return data, elsewhere


def _in_other_folders(recorded: Tree, said: Mapping[str, object]) -> bool:
    """Return whether settings give a folder that is not the recorded one."""
    for key in ("root", "images", "masks", "instances"):
        place, before = said.get(key), recorded.get(key)
        if place and (before is None or Path(str(place)).resolve() != Path(before).resolve()):
            return True
    return False


def _meaning_elsewhere(recorded: Tree, names: Sequence[str], said: Mapping[str, object]) -> Tree:
    """Return the recorded settings that also apply to other folders; a file of classes belongs to its folder."""
    settings = {key: recorded[key] for key in ("name", *MEANING) if key in recorded}
    regrouped = settings.get("merge") or settings.get("drop")  # the file then has other classes than the model
    if isinstance(settings.get("classes"), str) and not regrouped:
        settings["classes"] = [*names]
    if said.get("root") and Path(str(said["root"]), "classes.txt").is_file():
        settings["classes"] = None
    return settings


def _check_regrouped(data: Folder, names: Sequence[str]) -> None:
    """Raise a CrispsegError if the classes of data in another folder cannot be merged or dropped as recorded."""
    classes = data.open().declared.names
    if not classes:
        return
    try:
        LabelSet.colored(classes).regrouped(data.merge, data.drop)
    except CrispsegError as error:
        raise CrispsegError(f"{error}; {_own_ids(names)}") from None


def _own_ids(names: Sequence[str]) -> str:
    own = f"data.classes '[{','.join(names)}]', data.merge '{{}}' and data.drop '[]'"
    return f"for masks in the model's own ids give {own}"


def _named_colors(file: Path) -> dict[Color, str]:
    """Return the class names of the colours in a file; nothing if it lists other things."""
    try:
        colors, names = numbered_colors(file)
    except CrispsegError:
        return {}
    return {color: names[index] for color, index in colors.items()} if names else {}


def _check_meaning(data: Folder, elsewhere: bool) -> None:
    """Raise a CrispsegError for masks of another meaning than the recorded one."""
    declared, place = data.open().declared, Path(data.root or Path(str(data.images)).parent)
    if elsewhere and declared.palette and declared.names:
        named = {color: declared.names[index] for color, index in declared.palette.items()}
        for file in data.open().content.class_files:
            _check_legend(file, named)
    lookup = data.open().meaning.lookup
    if declared.palette is None and isinstance(lookup, ColorLookup):
        palette = [*lookup.palette]
        choices: dict[str, Mapping[str, object]] = {"if 255 means ignore": {"data.ignore": [IGNORE]}}
        if declared.count == len(palette):
            choices = {"if black and white are its classes": {"data.palette": palette}} | choices
        title = f"{place}: the masks are black and white, but the model was trained on class ids"
        raise Question(title, [], choices, "write class ids")


def _check_legend(file: Path, named: Mapping[Color, str]) -> None:
    """Raise a CrispsegError if a file gives the colour of one of the classes another name."""
    for color, name in _named_colors(file).items():
        if named.get(color, name) != name and name in named.values():
            what = f"{file} gives the colour {list(color)} to {name}, but the training data to {named[color]}"
            raise CrispsegError(f"{what}; give data.palette {file}, or the palette of the training data")


TRAINED = "train.txt"  # file in a run's folder that lists its training images, in the format of `data.train_list`


def warn_of_leaks(run: str, data: DataSource, split: str) -> None:
    """Warn of training images of a run in a split, compared by file or content, if both are custom data."""
    recorded, _ = recorded_data(run)
    if not isinstance(data, Folder) or recorded.get("name") != Folder.name or split == "train":
        return
    file = (Path(run).parent if Path(run).name == "model" else Path(run)) / TRAINED
    try:
        trained = build_data(recorded)
        assert isinstance(trained, Folder)
        listed = file.is_file()
        own = trained.open()
        names = {*(file.read_text("utf-8").splitlines() if listed else own.full_names(own.pairs("train")))}
        known = {one.image.resolve(): one for one in trained.pairs(ALL, strict=False) if one.name in names}
    except CrispsegError:  # they no longer exist
        return
    pairs = data.pairs(split)
    lines = []
    if again := [one.name for one in pairs if known.pop(one.image.resolve(), None)]:
        remedy = f"; data.train_list {file} leaves them out" if split == "val" and listed else ""
        lines.append(f"{len(again)} of {len(pairs)} images in {split} were used in training: {few(again, 2)}{remedy}")
    for finding in shared_by(data, {"train": [*known.values()], split: pairs}):
        lines += lines_of(finding)
    print_lines(Console(stderr=True), lines, "yellow")
