"""Mapillary Vistas v1.2: street scenes from all over the world, 18000 images to train and 2000 to validate on.

Neuhold et al.: The Mapillary Vistas dataset for semantic understanding of street scenes. ICCV 2017.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from crispseg.data.archives import waiting_archive
from crispseg.data.base import FileDataset
from crispseg.data.layouts import TableDecoder, TrainOn, check_choices, check_split_name, pair_below, parts_of
from crispseg.errors import CrispsegError
from crispseg.labels import IGNORE, Color, LabelSet

CONFIGS = ("config_v1.2.json", "config.json")
"""Where the data set says what its mask values mean; the first is that of the package that holds v2.0 too."""

FOLDERS = {"train": "training", "val": "validation"}

_HINT = (
    "the root of Mapillary Vistas v1.2 holds config.json (or config_v1.2.json), {training,validation}/images/*.jpg and "
    "{training,validation}/labels/*.png (or v1.2/labels); get it from https://www.mapillary.com/dataset/vistas"
)


@dataclass(frozen=True)
class Mapillary:
    """Mapillary Vistas v1.2 with the classes that its own config.json marks as evaluated, 65 of 66; others are ignored.

    The masks of its split 'testing' are not public.

    Args:
        root: folder with config.json, training and validation.
        train_on: train, or trainval to train on the validation images too, as SFNet's pre-training does; val scores are
            then of images that were trained on.
    """

    root: str | Path
    train_on: TrainOn = "train"
    name: ClassVar[str] = "mapillary"

    def __post_init__(self) -> None:
        check_choices(self)

    def label_set(self) -> LabelSet:
        """The evaluated classes.

        Raises:
            CrispsegError: the data set's own file of classes is missing or damaged.
        """
        known = [entry for entry in self._entries if entry.evaluate]
        return LabelSet(tuple(entry.name for entry in known), tuple(entry.color for entry in known))

    def splits(self) -> tuple[str, ...]:
        return tuple(FOLDERS)

    def decoder(self) -> TableDecoder:
        """From mask values to class ids. Raises as `label_set` does."""
        evaluated = iter(range(len(self._entries)))
        table = tuple(next(evaluated) if entry.evaluate else IGNORE for entry in self._entries)
        return TableDecoder(table, "values in Mapillary's config.json")

    def dataset(self, split: str) -> FileDataset:
        """One split.

        Raises:
            CrispsegError: no such split; missing folders or files.
        """
        check_split_name(split, self.splits(), "Mapillary Vistas")
        pairs = []
        for part in parts_of(split, self.train_on):
            folder = Path(self.root) / FOLDERS[part]
            masks = folder / "v1.2" / "labels"  # of the package that holds v2.0 too
            masks = masks if masks.is_dir() else folder / "labels"
            pairs += pair_below(folder / "images", ".jpg", masks, ".png", _HINT)
        return FileDataset(pairs, self.label_set(), self.decoder())

    @cached_property
    def _entries(self) -> list[_Entry]:
        """What each mask value means."""
        path = next((path for name in CONFIGS if (path := Path(self.root) / name).is_file()), None)
        if path is None:
            waiting = waiting_archive(Path(self.root) / CONFIGS[0])
            raise CrispsegError(f"{self.root} holds no {' or '.join(CONFIGS)}{waiting}; {_HINT}")
        try:
            entries = [_entry(label) for label in json.loads(path.read_text(encoding="utf-8"))["labels"]]
            if sum(entry.evaluate for entry in entries) < 2:
                raise ValueError("fewer than two are evaluated")
            return entries
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise CrispsegError(f"{path} is no list of Mapillary's labels ({reason}); restore it; {_HINT}") from None


class _Entry(NamedTuple):
    name: str
    color: Color
    evaluate: bool


def _entry(label: dict[str, Any]) -> _Entry:
    red, green, blue = map(int, label["color"])
    return _Entry(str(label["readable"]), (red, green, blue), bool(label["evaluate"]))
