"""`crispseg.train`: a training run from keyword arguments, which are the keys of the command line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import to_jsonable_python
from rich.console import Console

from crispseg import training
from crispseg.cli.parsing import (
    NAMED,
    SHARED_MODEL_KEYS,
    Tree,
    as_tree,
    data_source,
    default_names,
    merge,
    parse_training,
    read_recorded,
)
from crispseg.config.plugins import load_plugins
from crispseg.data import Augment, Folder
from crispseg.data.folder_layout import recognise
from crispseg.data.memory import write_pairs
from crispseg.errors import CrispsegError
from crispseg.models.registry import model_options
from crispseg.training import Run, TrainConfig
from crispseg.training.config import CONFIG, EARLIER
from crispseg.training.resuming import check_folder
from crispseg.training.trainer import launcher

SOURCE = "crispseg.train"


def train(
    images: str | Path | Iterable[Any] | None = None,
    masks: str | Path | Iterable[Any] | None = None,
    *,
    resume: bool = False,
    **settings: Any,
) -> Run:
    """Train a model, as `crispseg train` does.

    Args:
        images: folder of images; or a list of them, paths, PIL images, arrays `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or
            `(H, W, 4)`, or tensors `(C, H, W)`, of uint8, uint16 or floats from 0 to 1.
        masks: folder of masks with the same names; or a list in the order of the images, arrays `(H, W)` of class ids.
            Lists are written to a folder in `out`, so that the run can be resumed and scored later. Without masks,
            images may be a folder that holds both in a known layout.
        resume: go on with the run in `out`; its settings hold unless others are given.
        **settings: the keys of `crispseg train --help`: `epochs=20`, `model="fpn"`, `out="runs/mine"`. Those of a group
            are a dict, `augment={"crop": (256, 256)}`, or stand alone where one group only has them: `classes` of the
            data, `backbone` of the model, `crop` of the augmentation.

    Raises:
        CrispsegError: an unknown key; anything wrong with the settings, the data, weights or folders; a loss that is
            not finite.

    Example:
        >>> run = crispseg.train("photos", "masks", classes=["background", "road"], out="runs/mine")  # doctest: +SKIP
        >>> run.predict("photo.jpg").save("out")  # doctest: +SKIP
    """
    if launcher().world_size() > 1:
        raise CrispsegError("crispseg.train is for one process; on several machines start the command crispseg train")
    try:
        return _train(images, masks, resume, settings)
    except CrispsegError as error:
        error.args = (as_keywords(str(error)),)
        raise


def as_keywords(message: str) -> str:
    """What an error says, of flags of the data in keywords: masks=DIR for "--data folder with --data.masks DIR"."""
    message = message.replace("--data folder with ", "").replace("--data folder ", "")
    message = re.sub(r"--data\.(\w+) (?:'(.*?)'|([A-Z]+)\b)", r"\1=\2\3", message)
    return re.sub(r"(?:--)?\bdata\.(\w+)", r"\1", message)


def _train(images: Any, masks: Any, resume: bool, settings: Tree) -> Run:
    out = Path(settings.setdefault("out", TrainConfig.out))
    data = settings.get("data", {})
    alone = masks is None and isinstance(data, dict) and not {"masks", "instances"} & {*settings, *data}
    if alone and isinstance(images, str | Path):
        if not Path(images).is_dir():
            what = "is not a folder" if Path(images).exists() else "is missing"
            raise CrispsegError(f"{images} {what}; give a folder of images and masks, or one of each")
        settings["data"], images = recognise(Path(images)) | data, None
    given = {key: value for key, value in (("images", images), ("masks", masks)) if value is not None}
    lists = {key: value for key, value in given.items() if not isinstance(value, str | Path)}
    if len(lists) == 1:
        raise CrispsegError("one of images and masks is a folder, the other is none; give two folders or two lists")
    settings |= given | dict.fromkeys(lists, out)  # lists are written further down
    base = default_names(settings.get("preset", "own"))
    if given:
        base = merge(base, {"data": {"name": "folder"}})
    if resume:
        if not (out / CONFIG).is_file():
            raise CrispsegError(f"resume: {out} holds no {CONFIG}; give the folder of a run as out")
        base = merge(merge(base, EARLIER), read_recorded(out / CONFIG))
    tree = merge(base, in_groups(settings, base))
    config = parse_training([], tree, prog=SOURCE, description="", source=SOURCE)
    if lists:
        if not resume:
            check_folder(config, resume=False)  # before anything is written to it
        assert isinstance(config.data, Folder)
        image_folder, mask_folder = write_pairs(**lists, folder=out)
        written = dataclasses.replace(config.data, images=image_folder, masks=mask_folder)
        config = dataclasses.replace(config, data=written)
    # Plain lines in a notebook, where rich would make a block of HTML of each; bars in a terminal.
    return training.train(config, resume=resume, console=Console(force_jupyter=False))


def in_groups(settings: Tree, base: Tree) -> Tree:
    """Settings as a YAML file has them: each key that stands alone and is one group's goes to its group.

    Args:
        settings: keys and values.
        base: the settings below, which say what model and data there are where these do not.

    Raises:
        CrispsegError: a key could be that of several groups, or is given twice; a value is no plain one.
    """
    tree = as_tree(settings, SOURCE)
    for key, value in tree.items():
        try:
            tree[key] = to_jsonable_python(value, fallback=_plain)
        except ValueError:
            kind = type(value).__name__
            raise CrispsegError(f"{SOURCE}: {key} is of type {kind}; give plain values, lists and dicts") from None
    load_plugins(tree.get("plugins") or base.get("plugins", []))  # the model may be one of theirs
    model, data = (merge(base, tree)[group]["name"] for group in NAMED)
    own = _fields(TrainConfig)
    groups = {
        "model": {*SHARED_MODEL_KEYS, *model_options(model)},
        "data": _fields(data_source(data)) - {"folds"},  # alone it is the flag that trains several models
        "augment": _fields(Augment),
    }
    for key in [key for key in tree if key not in own]:
        homes = [group for group, keys in groups.items() if key in keys]
        if len(homes) > 1:
            raise CrispsegError(f"{SOURCE}: {' and '.join(homes)} both have '{key}'; write {homes[0]}={{'{key}': …}}")
        if homes:
            group = tree.setdefault(homes[0], {})
            if key in group:
                raise CrispsegError(f"{SOURCE}: '{key}' is given alone and in {homes[0]}; leave one out")
            group[key] = tree.pop(key)
    return tree


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python."""
    if isinstance(value, np.generic):
        return value.item()
    raise ValueError


def _fields(settings: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(settings)}
