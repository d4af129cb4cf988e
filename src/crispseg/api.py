"""Training, prediction and scoring with keyword arguments; they match the keys of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import NonNegativeInt, PositiveInt, StrictBool
from rich.console import Console

from crispseg import training
from crispseg.config.settings import Tree, checked, checks_arguments, plain
from crispseg.data import Folder
from crispseg.data.named import settings_of, write_pairs
from crispseg.errors import CrispsegError
from crispseg.evaluation.bootstrap import RESAMPLES
from crispseg.evaluation.boundary import Empty
from crispseg.evaluation.evaluate import score_run
from crispseg.evaluation.recorded import data_to_score
from crispseg.evaluation.summary import Evaluation
from crispseg.inference.device import DeviceName
from crispseg.inference.protocols import Protocol
from crispseg.inference.runtime import Backend
from crispseg.io.files import user_path
from crispseg.io.host import imports_unnoticed, only_training
from crispseg.prediction import predict_files as predict
from crispseg.training import TrainConfig
from crispseg.training.config import spare_processors
from crispseg.training.settings import recorded_settings, training_config

if TYPE_CHECKING:
    from lightning import Callback
    from torch import Tensor

    from crispseg.training import Run

__all__ = ["evaluate", "load", "predict", "train"]


@only_training()
def train(
    images: str | Path | Iterable[Any] | None = None,
    masks: str | Path | Iterable[Any] | None = None,
    *,
    unlabelled: str | Path | None = None,
    teacher: str | Path | Callable[[Tensor], Tensor] | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    transform: Callable[..., Mapping[str, Any]] | None = None,
    **settings: Any,
) -> Run:
    """Train a model, like `crispseg train`.

    Args:
        images: folder of images, or of images and masks in a known layout. A list may have paths, PIL images, arrays
            `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)`, or tensors `(C, H, W)`, of uint8, uint16 or floats from 0
            to 1. Lists are written to a folder in `out`.
        masks: folder of masks with the same names; or a list in the order of the images, arrays `(H, W)` of class ids.
        unlabelled: folder of further images, without masks, to learn from; "same" for those of `images` without a mask.
        teacher: trained model that labels these images, such as a run; or a function of images `(N, C, H, W)`, values
            from 0 to 1, that returns logits `(N, classes, H, W)`.
        resume: resume the run in `out` with its settings; given settings override them.
        callbacks: further callbacks of Lightning's trainer.
        transform: custom augmentation before crispseg's own, such as `albumentations.Compose`. It is called with
            `image=` `(H, W, C)` and `mask=` `(H, W)`, uint8, and returns a mapping of both.
        **settings: keys of `crispseg train`: `epochs=20`, `model="fpn"`, `out="runs/mine"`. A group is a dict, such as
            `augment={"crop": (256, 256)}`; keys that only one group has, such as `backbone`, need no group. `loss` may
            also be a function of logits `(N, classes, H, W)` and labels `(N, H, W)`, 255 if ignored.

    Raises:
        CrispsegError: settings, data, weights or folders are invalid; the loss is not finite.

    Example:
        >>> run = crispseg.train("photos", "masks", classes=["background", "road"], out="runs/mine")  # doctest: +SKIP
        >>> run.predict("photo.jpg").save("out")  # doctest: +SKIP
    """
    with imports_unnoticed():
        from crispseg.training.checkpoints import check_folder  # imports Lightning, which takes seconds
        from crispseg.training.fit import Hooks
        from crispseg.training.trainer import launcher

    if launcher().world_size() > 1:
        raise CrispsegError("crispseg.train supports one process; on several machines start the command crispseg train")
    resume = checked(bool, resume, "resume")
    transform = checked(Callable | None, transform, "transform")
    teacher = checked(str | Path | Callable | None, teacher, "teacher")
    if unlabelled is not None:
        settings["unlabelled"] = str(unlabelled)
    if isinstance(teacher, str | Path):
        settings["teacher"] = str(teacher)
    loss = settings.pop("loss") if callable(settings.get("loss")) else None
    config, lists = _chosen(images, masks, resume, settings)
    if lists:
        if not resume:
            check_folder(config.out, resume=False)  # before any file is written to it
        config, _ = _chosen(*write_pairs(**lists, folder=Path(config.out)), resume, settings)
    # Notebooks get plain lines: rich would make a block of HTML of each, or take the kernel's output for a terminal.
    console = Console(force_jupyter=False, force_terminal=False if Console().is_jupyter else None)
    hooks = Hooks(callbacks, transform, loss, teacher if callable(teacher) else None)
    return training.train(config, resume=resume, console=console, hooks=hooks)


def load(run: str | PathLike[str]) -> Run:
    """Open a finished run with its model, scores, history and data, as returned by `crispseg.train`.

    Raises:
        CrispsegError: the folder contains no finished run.
    """
    return training.Run.open(run)


@checks_arguments
def evaluate(
    run: str | PathLike[str],
    images: str | Path | None = None,
    masks: str | Path | None = None,
    *,
    split: str | None = None,
    protocol: Protocol | str = "whole",
    boundary: StrictBool | Sequence[PositiveInt] = False,
    boundary_empty: Empty = "skip",
    objects: str | None = None,
    objects_border: str | None = None,
    objects_min_size: NonNegativeInt | None = None,
    objects_split: StrictBool = False,
    panoptic: StrictBool = False,
    thin: Sequence[str] | None = None,
    bootstrap: NonNegativeInt = RESAMPLES,
    backend: Backend = "auto",
    device: DeviceName | None = None,
    workers: NonNegativeInt | None = None,
    **data: Any,
) -> Evaluation:
    """Score a trained model on a split, like `crispseg evaluate`.

    Args:
        run: run folder, saved model, name of a bundled model, hub id, or exported file.
        images, masks: folders of images and masks, or one folder of both in a known layout; by default the run's data.
        split: split to score; the default is val. For folders other than the training data, it is test if it exists,
            or all images if there are no splits.
        protocol: inference protocol.
        boundary: compute Boundary IoU and the boundary F-score at these distances in pixels; true for 3, 5, 9 and 12.
        boundary_empty: 1 counts an image without any boundary of a class as F = 1, as in the code of DAVIS and
            Gated-SCNN; the default skips it.
        objects: class whose single objects are scored.
        objects_border: class of the pixels between objects.
        objects_min_size: area in pixels; smaller objects are left out, except those of instance masks. By default, a
            tenth of the median area of the image's predicted objects with objects_border, else 0.
        objects_split: separate touching objects at their necks, if they have no border class.
        panoptic: compute panoptic quality of these objects and of the other classes.
        thin: compute IoU and recall by the width of structures, and clDice of the named classes.
        bootstrap: number of resamples for the intervals over images; 0 for none.
        backend: runtime of an exported file; the default is ONNX Runtime for .onnx, OpenVINO for .xml.
        device: cpu or cuda; the default is CUDA if available.
        workers: processes that load data.
        **data: further settings of the data, such as `classes`, or `name` and `root` of a public data set.

    Raises:
        CrispsegError: the run, the data or the split is missing or faulty; the classes do not match the model's.
    """
    place: Tree = {}
    if masks is not None:
        place = {"name": "folder", "images": images, "masks": masks}
    elif images is not None:
        place = settings_of(user_path(images))
    source, split = data_to_score(fspath(run), {**place, **_plain(data)}, split)
    return score_run(
        fspath(run),
        source,
        split,
        protocol=protocol,
        boundary=boundary,
        boundary_empty=boundary_empty,
        objects=objects,
        objects_border=objects_border,
        objects_min_size=objects_min_size,
        objects_split=objects_split,
        panoptic=panoptic,
        thin=thin,
        resamples=bootstrap,
        backend=backend,
        device=device,
        workers=spare_processors() if workers is None else workers,
    )[2]


def _chosen(images: Any, masks: Any, resume: bool, settings: Tree) -> tuple[TrainConfig, Tree]:
    """Return the settings of the run, and the images and masks to write to its folder."""
    settings = _plain(settings)
    out, data = user_path(checked(str, settings.get("out", str(TrainConfig.out)), "out")), settings.get("data", {})
    given = {key: value for key, value in (("images", images), ("masks", masks)) if value is not None}
    lists = {key: value for key, value in given.items() if not isinstance(value, str | Path)}
    if len(lists) == 1:
        raise CrispsegError("only one of images and masks is a folder; give two folders or two lists")
    keys = {*settings, *data} if isinstance(data, dict) else {"masks"}
    layers: list[Tree] = [recorded_settings(out)] if resume else []
    if isinstance(images, str | Path) and not {"masks", "instances"} & {*given, *keys}:
        layers.append({"data": settings_of(user_path(images))})
        given = {}
    elif given:
        given = {"data": {"name": Folder.name, **(given | dict.fromkeys(lists, str(out)))}}  # lists are written later
    return training_config(*layers, _plain(given), settings, resumed=resume), lists


def _plain(settings: Tree) -> Tree:
    return {key: plain(value, key) for key, value in settings.items()}
