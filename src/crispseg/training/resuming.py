"""Whether a run may begin, or go on, in its folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from crispseg.config.yaml_files import parse_yaml
from crispseg.errors import CrispsegError, one_line
from crispseg.io.files import writable_folder
from crispseg.models.info import renamed
from crispseg.training.checkpoints import LAST, MODEL
from crispseg.training.config import CONFIG, EARLIER, ModelConfig, TrainConfig, config_to_dict
from crispseg.training.processes import is_first_process
from crispseg.training.result import METRICS, PICTURES

MAY_CHANGE = {
    "out",
    "epochs",
    "minutes",
    "patience",
    "val_every",
    "workers",
    "accelerator",
    "precision",
    "loggers",
    "plugins",
    "checkpoint_every",
}
"""What a resumed run may do differently; the rest is part of what its checkpoint means."""

DEALT = {"batch_size", "devices", "num_nodes"}
"""What a resumed run may do differently as long as a step has as many images."""

FOUND = {"classes", "num_classes", "palette", "ignore"}
"""Settings of the data that a run records as its files told, and that need not be said again."""


def check_folder(config: TrainConfig, *, resume: bool) -> Path:
    """The run's folder, writable and with nothing in it that training would overwrite.

    Raises:
        CrispsegError: it holds a run, or with `resume` none that goes on with this configuration; it cannot be written.
    """
    folder = Path(config.out)
    if not is_first_process():
        return folder
    if folder == Path():
        raise CrispsegError("out is the current folder; give the run a folder of its own")
    if resume:
        if not (folder / LAST).is_file() or not (folder / CONFIG).is_file():
            raise CrispsegError(f"{folder} has no {LAST} to resume from; start it again without --resume")
        recorded = _recorded(folder / CONFIG)
        # Settings that did not exist when the run began count as their defaults, or as what was done before.
        known = config_to_dict(TrainConfig(model=ModelConfig(config.model.name), data=config.data))
        known["augment"] |= EARLIER["augment"]
        for key, value in recorded.items():
            known[key] = {**known[key], **value} if key in ("model", "data", "augment") else value
        asked = config_to_dict(config)
        for tree, had in ((asked, known), (asked["augment"], known["augment"])):
            tree |= {key: had[key] for key, value in tree.items() if value == "auto"}  # decided by the same data
        unsaid = {key for key in FOUND & known["data"].keys() if asked["data"].get(key) is None}
        asked["data"] |= {key: known["data"][key] for key in unsaid}
        fixed = {key for key, value in asked.items() if known[key] != value} - MAY_CHANGE
        had, wanted = (_images_a_step(tree) for tree in (known, asked))
        if had is not None and had == wanted:
            fixed -= DEALT
        if fixed:
            unless = f", unless {' × '.join(sorted(DEALT))} stays {had}" if fixed <= DEALT and had else ""
            raise CrispsegError(
                f"--resume cannot change {', '.join(sorted(fixed))}{unless}; start another run with --init_from "
                f"{folder} instead"
            )
    elif (folder / LAST).is_file():
        raise CrispsegError(
            f"{folder} holds a run already; resume it with --resume {folder}, in Python resume=True, or choose another "
            "--out"
        )
    elif (folder / MODEL).is_dir():
        raise CrispsegError(f"{folder} holds a model already; choose another --out")
    elif not (folder / LAST.parent).is_dir():  # which a run makes before it writes anything
        for name in (CONFIG, METRICS, PICTURES):
            if (folder / name).exists():
                raise CrispsegError(f"{folder} holds {name}, which no run wrote there; choose another --out")
    writable_folder(folder)
    return folder


def _images_a_step(settings: dict[str, Any]) -> int | None:
    """None where they are not known."""
    factors = [settings[key] for key in DEALT]
    return math.prod(factors) if all(isinstance(factor, int) for factor in factors) else None


def _recorded(path: Path) -> dict[str, Any]:
    """The settings in a run's folder.

    Raises:
        CrispsegError: they are damaged.
    """
    try:
        recorded = parse_yaml(path.read_text(encoding="utf-8"))
        groups = [recorded, *(recorded.get(key, {}) for key in ("model", "data", "augment"))]
        if not all(isinstance(group, dict) and all(isinstance(key, str) for key in group) for group in groups):
            raise ValueError("a group holds no settings")
    except (ValueError, AttributeError) as error:
        raise CrispsegError(f"{path} holds no settings of a run ({one_line(error)}); restore it") from None
    return {**recorded, "model": renamed(recorded.get("model", {}))}
