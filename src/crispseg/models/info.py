"""What a saved model carries beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from crispseg.errors import CrispsegError
from crispseg.labels import IGNORE, LabelSet, default_palette

FORMAT_VERSION = 1


@dataclass(frozen=True)
class ModelInfo:
    """How a model was built, what its classes mean, and how it came about.

    Args:
        name, num_classes, backbone, in_chans, options: for `create_model`; all options, defaults included.
        class_names, palette: one name and one RGB colour (0 to 255) a class, or none for numbers and default colours.
        mean, std: statistics of the images it expects, one value a channel, for images in 0 to 1.
        ignore_label: label of pixels that count in no loss and no metric.
        recipe: the settings of its training.
        metrics: its scores.

    Raises:
        ValueError: a field has the wrong type or length.
    """

    name: str
    num_classes: int
    backbone: str
    in_chans: int
    options: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    ignore_label: int = IGNORE
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        types: dict[str, type] = {
            **dict.fromkeys(("name", "backbone"), str),
            **dict.fromkeys(("num_classes", "in_chans", "ignore_label"), int),
            **dict.fromkeys(("options", "recipe", "metrics"), dict),
            **dict.fromkeys(("class_names", "palette", "mean", "std"), tuple),
        }
        for key, expected in types.items():
            if not isinstance(getattr(self, key), expected):
                raise ValueError(f"{key} is {getattr(self, key)!r}, not of type {expected.__name__}")
        for key in ("mean", "std"):
            values = getattr(self, key)
            if len(values) != self.in_chans or not all(isinstance(value, int | float) for value in values):
                raise ValueError(f"{key} is {list(values)}, not {self.in_chans} numbers")
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names has {len(self.class_names)} names for {self.num_classes} classes")
        if self.ignore_label != IGNORE:
            raise ValueError(f"ignore_label is {self.ignore_label}, not {IGNORE}")
        self.label_set()

    def label_set(self) -> LabelSet:
        """Class names and colours; numbered ones where none were given."""
        if not self.class_names and not self.palette:
            return LabelSet.numbered(self.num_classes)
        return LabelSet(self.class_names, self.palette or default_palette(self.num_classes))

    def to_json(self) -> str:
        """The text of `config.json`."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def read(cls, path: str | Path) -> ModelInfo:
        """Read a `config.json`.

        Raises:
            CrispsegError: it is damaged, or of a later format.
        """
        try:
            config = json.loads(Path(path).read_text(encoding="utf-8"))
            version = config.pop("format_version")
            if version > FORMAT_VERSION:
                raise CrispsegError(
                    f"{path} has format version {version}, newer than {FORMAT_VERSION}; upgrade crispseg"
                )
            return cls(**_tuples(config))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, CrispsegError) as error:
            if isinstance(error, CrispsegError) and "format version" in str(error):
                raise
            reason = f"missing {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise CrispsegError(f"{path} is no saved crispseg model ({reason}); save the model again") from None


def _tuples(config: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples they were."""
    tuples = {f.name for f in fields(ModelInfo) if str(f.type).startswith("tuple")}
    return {
        key: tuple(tuple(entry) if isinstance(entry, list) else entry for entry in value)
        if key in tuples and isinstance(value, list)
        else value
        for key, value in config.items()
    }
