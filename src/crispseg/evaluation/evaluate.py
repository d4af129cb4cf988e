"""Evaluation of a model on a split of its training data or of other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from crispseg.config.settings import CONFIG, Tree, unknown
from crispseg.config.yaml_files import read_yaml
from crispseg.data import DATA_SOURCES, DataSource, FileDataset, Folder, SegmentationDataset
from crispseg.data.dataset import Sample
from crispseg.data.examination import check_splits, shared_by
from crispseg.data.folder import settle
from crispseg.data.loading import obstacle_to_workers, sample_loader
from crispseg.data.named import build_data, own_data_meant, settings_of
from crispseg.data.open_folder import ALL
from crispseg.data.sources import PublicSource
from crispseg.data.value_ranges import known_range
from crispseg.errors import CrispsegError, Question, few
from crispseg.evaluation.boundary import DISTANCES, BoundaryIoUScores, BoundaryScores, Empty
from crispseg.evaluation.object_scores import ObjectScores
from crispseg.evaluation.scores import PerImageMetric, Scores, SegmentationScores
from crispseg.evaluation.summary import Evaluation
from crispseg.evaluation.thin import ThinScores
from crispseg.folders.lookup import ColorLookup, InstanceLookup
from crispseg.folders.palettes import numbered_colors
from crispseg.folders.survey import Pair
from crispseg.folders.wording import lines_of
from crispseg.inference import Protocol, Segmenter
from crispseg.inference.objects import NUMBERED, object_rules
from crispseg.inference.runtime import AnyModel, Backend, is_exported, open_model
from crispseg.io.host import host_state_restored
from crispseg.io.images import image_channels
from crispseg.io.progress import print_lines, progress
from crispseg.io.value_range import warn_of_unknown
from crispseg.labels import IGNORE, Color, LabelSet
from crispseg.models.info import ModelInfo
from crispseg.models.saving import WEIGHTS_FILE, read_info, shipped_folder


@host_state_restored()
def evaluate(
    model: AnyModel,
    dataset: SegmentationDataset,
    *,
    device: str | torch.device | None = None,
    workers: int = 2,
    protocol: Protocol | str = "whole",
    **metrics: PerImageMetric[Any] | None,
) -> Scores:
    """Compute scores from one confusion matrix over the whole split, with images at their own size, in float32.

    The scored labels come from `crispseg.Segmenter`; `crispseg predict` writes the same labels.

    Args:
        model: model to score, which is not changed, or an exported file from `open_model`.
        dataset: split with the model's classes.
        device: device; the default is CUDA if available.
        workers: processes that read images.
        protocol: inference protocol, or its name in `PROTOCOLS`.
        **metrics: further metrics to update with all predictions, such as `boundary=BoundaryScores(19)`.

    Returns:
        The scores, with per-image counts for intervals; an image's number is its index in `dataset`.

    Raises:
        CrispsegError: the classes do not match (see `check_classes`); the data have other channels than the model, or
            other objects than requested.
    """
    segmenter = Segmenter(model, device, protocol=protocol)
    check_classes(model.info, dataset.labels)
    matrix = SegmentationScores(model.info.num_classes)
    every = [matrix, *(metric for metric in metrics.values() if metric is not None)]
    if workers and (obstacle := obstacle_to_workers(dataset)):
        print_lines(Console(stderr=True), [f"workers is 0, because {obstacle}"])
        workers = 0
    samples = sample_loader(dataset.with_channels(model.info.in_chans, segmenter.value_range), workers)
    for index, sample in enumerate(progress(samples, "Evaluating", len(dataset), Console(stderr=True))):
        prediction, truth = (torch.from_numpy(each)[None] for each in (segmenter.labels(sample.image), sample.labels))
        for metric in every:
            objects = _instances(dataset, sample, metric) if isinstance(metric, ObjectScores) else ()
            metric.update(prediction, truth, [index], *objects)
    scores: Scores = matrix.scores()
    return scores


def check_classes(info: ModelInfo, labels: LabelSet) -> None:
    """Raise a CrispsegError if data and model differ in the number of classes, or a shared name has another index."""
    names, own = [*labels.names], [*info.class_names]
    if len(names) != info.num_classes:
        raise CrispsegError(f"the model has {info.num_classes} classes, the data {len(names)}; give matching data")
    if moved := [name for name in names if name in own and own.index(name) != names.index(name)]:
        there, here = (each.index(moved[0]) for each in (names, own))
        found = f"the data's classes are {names}, the model's {own}: '{moved[0]}' is number {there} and {here}"
        raise CrispsegError(f"{found}; write masks in its order, or give data.classes and data.palette in that order")


def _instances(dataset: SegmentationDataset, sample: Sample, metric: ObjectScores) -> list[torch.Tensor]:
    """Return the numbers of the true objects of an image, `(1, H, W)`, if the data have them."""
    of_numbers = isinstance(dataset, FileDataset) and isinstance(dataset.lookup, InstanceLookup)
    if of_numbers and metric.rule.index != NUMBERED.index:
        asked, numbered = (dataset.labels.names[at] for at in (metric.rule.index, NUMBERED.index))
        raise CrispsegError(f"the instance masks number the class {numbered}; give objects {numbered}, not {asked}")
    numbers = dataset.instances(sample.name)
    if numbers is not None and numbers.shape != sample.size:
        sizes = [f"{height}x{width}" for height, width in (numbers.shape, sample.size)]
        found = f"the instances of {sample.name} are {sizes[0]} (height x width), but its image is {sizes[1]}"
        raise CrispsegError(f"{found}; resize the instance mask with nearest-neighbour interpolation")
    return [] if numbers is None else [torch.from_numpy(numbers)[None]]


def score_model(
    model: AnyModel,
    dataset: SegmentationDataset,
    *,
    boundary: bool | Sequence[int] = False,
    boundary_empty: Empty = "skip",
    boundary_iou: bool = False,
    objects: str | None = None,
    objects_border: str | None = None,
    objects_min_size: int | None = None,
    thin: Sequence[str] | None = None,
    resamples: int = 0,
    **options: Any,
) -> Evaluation:
    """Compute all scores of a model on a split.

    Args:
        model, dataset: as for `evaluate`.
        boundary: distances of boundary F-scores, in pixels, or true for `DISTANCES`.
        boundary_empty: see `BoundaryScores`.
        objects, objects_border: class whose single objects are scored, and class of the pixels between them.
        objects_min_size: `min_size` of `ObjectRule`.
        thin: classes whose centre lines are compared, in addition to scores by width; None omits these scores.
        resamples: number of resamples for intervals; 0 for none.
        options: `device`, `workers` and `protocol` of `evaluate`.

    Raises:
        CrispsegError: an error of `evaluate`; the data do not have a class.
    """
    classes, labels = len(dataset.labels), dataset.labels
    lines = [(each, labels.index(each)) for each in dict.fromkeys(thin or ())]
    distances = DISTANCES if boundary is True else boundary
    rule = object_rules(labels, objects, objects_border, min_size=objects_min_size).get(objects or "")
    metrics: dict[str, Any] = {
        "boundary": BoundaryScores(classes, distances, boundary_empty) if distances else None,
        "boundary_iou": BoundaryIoUScores(classes) if boundary_iou else None,
        "objects": None if rule is None else ObjectScores(classes, rule),
        "thin": None if thin is None else ThinScores(classes, lines),
    }
    scores = evaluate(model, dataset, **metrics, **options)
    found = {key: metric.scores() for key, metric in metrics.items() if metric is not None}
    return Evaluation(labels, scores, **found, resamples=resamples)


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
    if split is None:
        whole = elsewhere and isinstance(data, Folder) and not data.open().divided
        split = ALL if whole else "test" if elsewhere and "test" in data.splits() else "val"
    return data, split


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
    places = {key: Path(str(said[key])) for key in ("root", "images", "masks", "instances") if said.get(key)}
    elsewhere = said.get("name", name) == Folder.name and any(
        recorded.get(key) is None or place.resolve() != Path(recorded[key]).resolve() for key, place in places.items()
    )
    if str(said.get("name", name)) != name:
        recorded = {}
    elif elsewhere:
        recorded = {key: value for key, value in recorded.items() if key in ("name", *MEANING)}
        if isinstance(recorded.get("classes"), str) and not (recorded.get("merge") or recorded.get("drop")):  # a file
            recorded["classes"] = [*names]
        if "root" in places and (places["root"] / "classes.txt").is_file():
            recorded["classes"] = None
    if "palette" in said:
        recorded.pop("palette_tolerance", None)
    data = build_data({**recorded, **said})
    if isinstance(data, Folder) and elsewhere and (classes := data.open().declared.names):
        try:
            LabelSet.colored(classes).regrouped(data.merge, data.drop)
        except CrispsegError as error:
            raise CrispsegError(f"{error}; {_own_ids(names)}") from None
    if isinstance(data, Folder) and not data.of_instances and not {*MEANING} & {*said}:
        _check_meaning(data, elsewhere)
    return data, elsewhere


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


def checked_splits(models: Sequence[AnyModel], data: DataSource, split: str) -> list[SegmentationDataset]:
    """Return the split with the channels of each model; faulty data or other classes raise a `CrispsegError`.

    Print a note if class names differ from a model's, and for omitted or interpreted files of custom data.
    """
    data, notes = settle(data)
    whole = data.dataset(split)
    for model in models:
        check_classes(model.info, whole.labels)
    datasets = [whole.with_channels(model.info.in_chans, model.info.value_range) for model in models]
    by_channels = {image_channels(model.info.in_chans): each for model, each in zip(models, datasets, strict=True)}
    for dataset in by_channels.values():
        if isinstance(dataset, FileDataset) and dataset.value_range is None and (found := known_range(dataset)):
            warn_of_unknown(f"the split '{split}'", *found)  # before each data worker does
        examined, findings = check_splits({split: dataset})
        report = examined.reports[0]
        for finding in findings:
            notes += lines_of(finding) if finding.code != "class-absent" else []
        if report.absent:
            notes.append(f"never in '{split}': {few(report.absent, 20)}; not scored")
        if isinstance(data, Folder) and (data.merge or data.drop) and report.void > 0.05:
            notes.append(f"{report.void:.0%} of the pixels of '{split}' are ignored")
    names = whole.labels.names
    for own in (model.info.class_names for model in models):
        if own and len(own) == len(names) and own != names:
            notes.append(f"the model's classes are {', '.join(own)}; those of the data have different names")
    print_lines(Console(stderr=True), dict.fromkeys(notes), "yellow")
    return datasets


def score_run(
    run: str,
    data: DataSource,
    split: str,
    *,
    boundary: bool | Sequence[int] = False,
    backend: Backend = "auto",
    **options: Any,
) -> tuple[AnyModel, SegmentationDataset, Evaluation]:
    """Return the model of a run, the checked split and the scores; options are those of `score_model`."""
    model = open_model(run, backend)
    (dataset,) = checked_splits([model], data, split)
    warn_of_leaks(run, data, split)
    scored = score_model(model, dataset, boundary=boundary, boundary_iou=boundary is not False, **options)
    return model, dataset, scored


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
