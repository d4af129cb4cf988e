"""Whether a run may begin, or resume, in its folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from crispseg.config.settings import CONFIG
from crispseg.config.yaml_files import parse_yaml
from crispseg.errors import CrispsegError, one_line
from crispseg.models.info import renamed
from crispseg.training.checkpoints import LAST, MODEL
from crispseg.training.config import TrainConfig, config_to_dict
from crispseg.training.result import METRICS, PICTURES

MAY_CHANGE = {
    *("out", "epochs", "minutes", "patience", "val_every", "workers", "accelerator", "precision", "loggers"),
    *("plugins", "checkpoint_every"),
}
"""Settings that a resumed run may change; its checkpoint depends on the others."""

IMAGES_A_STEP = ("batch_size", "devices", "num_nodes")
"""Settings that a resumed run may change if their product stays."""


def check_folder(config: TrainConfig, *, resume: bool) -> None:
    """Make sure that the run's folder holds nothing that training would overwrite; with `resume`, that it holds a run.

    Raises:
        CrispsegError: it does not.
    """
    folder = Path(config.out)
    if folder == Path():
        raise CrispsegError("out is the current folder; give the run a folder of its own")
    if resume:
        if not (folder / LAST).is_file() or not (folder / CONFIG).is_file():
            raise CrispsegError(f"{folder} has no {LAST} to resume from; start the run again")
    elif (folder / LAST).is_file():
        raise CrispsegError(f"{folder} already holds a run; resume it, or choose another out")
    elif (folder / MODEL).is_dir():
        raise CrispsegError(f"{folder} already holds a model; choose another out")
    elif not (folder / LAST.parent).is_dir():  # a run makes it before it writes anything
        for name in (CONFIG, METRICS, PICTURES):
            if (folder / name).exists():
                raise CrispsegError(f"{folder} holds {name}, which no run wrote there; choose another out")


def check_same_run(config: TrainConfig) -> None:
    """Make sure that the settings, none of them auto any more, are those of the run that they resume.

    Raises:
        CrispsegError: others than may change have changed, or the recorded ones are damaged.
    """
    path = Path(config.out) / CONFIG
    try:
        recorded = parse_yaml(path.read_text(encoding="utf-8"))
        asked: dict[str, Any] = config_to_dict(config)
        groups = ("model", "data", "augment")
        recorded["model"] = renamed(recorded["model"])
        for key in groups:  # settings that are newer than the run have its defaults
            recorded[key] = asked[key] | recorded[key]
        changed = {key for key, value in asked.items() if recorded.get(key, value) != value} - MAY_CHANGE
        images = [math.prod(settings[key] for key in IMAGES_A_STEP) for settings in (recorded, asked)]
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise CrispsegError(f"{path} holds no settings of a run ({one_line(error)}); restore it") from None
    if images[0] == images[1]:
        changed -= {*IMAGES_A_STEP}
    if changed:
        unless = f", unless {' × '.join(IMAGES_A_STEP)} stays {images[0]}" if changed <= {*IMAGES_A_STEP} else ""
        raise CrispsegError(
            f"a resumed run cannot change {', '.join(sorted(changed))}{unless}; start another one with init_from "
            f"{config.out}"
        )
