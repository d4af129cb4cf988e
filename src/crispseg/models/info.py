"""Description of a saved model, stored next to its weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from crispseg.config.settings import CHECKS, Settings
from crispseg.errors import CrispsegError, one_line
from crispseg.labels import IGNORE, Color, LabelSet
from crispseg.licences import Licence

FORMAT_VERSION = 2

MIN_SIDE = 32  # smallest height and width of a model's input; smaller images are extended by their last row and column

RENAMED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "centred": ("align_corners", lambda value: not value),
    "enlarge": ("inference_scale", lambda value: value),
    "residual": ("block", lambda value: "residual" if value else "paper"),
}
"""Renamed options of models: the new name, and the function from the old to the new value.
Saved models and settings of runs may still contain the old names."""


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a model, or of its parts, by their current names."""
    current: dict[str, Any] = {}
    for key, value in options.items():
        if key in RENAMED:
            name, of_today = RENAMED[key]
            current[name] = of_today(value)
        else:
            current[key] = renamed(value) if isinstance(value, dict) else value
    return current


CORNER_PARTS = ("ppm", "dcn", "gdfam", "ddsm", "cfb", "boundary")
"""Parts that aligned corner pixels in every model of format 1, even in crisp, whose other parts align pixel centres."""


def of_format_1(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a model that was saved in format 1; what it lacks otherwise has its paper's value."""
    corners = [part for part in CORNER_PARTS if part in options.values()]
    return options | {"corner_parts": corners} if corners and name.startswith("crisp") else options


OPTIONAL = {"value_range": None, "temperature": 1.0}
"""Fields of `ModelInfo` that a saved model may lack, and their values if they are unset."""


@dataclass(frozen=True, config=CHECKS)
class ModelInfo(Settings):
    """Architecture, classes, training recipe and scores of a model.

    Args:
        name, num_classes, backbone, in_chans, options: arguments of `create_model`; options include defaults.
        class_names, palette: one name and one RGB colour (0 to 255) per class; empty for numbers and default colours.
        mean, std: statistics of the expected images, one value per channel, for images in 0 to 1.
        ignore_label: label of ignored pixels; no loss or metric counts them.
        recipe: settings of its training.
        value_range: values that become black and white in images of 16 bits per channel; "image" if they are measured
            in each image, also of 8 bits; None if there were none.
        metrics: scores.
        licences: ledger of the code, the weights and the data that it descends from; empty in models of before.
        temperature: number that divides logits before a softmax, so that probabilities are calibrated.

    Raises:
        CrispsegError: a field has the wrong type or length.
    """

    name: str
    num_classes: int
    backbone: str
    in_chans: int
    options: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    palette: tuple[Color, ...] = ()
    mean: tuple[Annotated[float, Field(ge=-1e3, le=1e3)], ...] = ()
    std: tuple[Annotated[float, Field(ge=1e-6, le=1e6)], ...] = ()
    ignore_label: int = IGNORE
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    value_range: tuple[float, float] | Literal["image"] | None = None
    licences: tuple[Licence, ...] = ()
    temperature: Annotated[float, Field(gt=0)] = 1.0

    def __post_init__(self) -> None:
        for key in ("mean", "std"):
            if len(getattr(self, key)) != self.in_chans:
                raise CrispsegError(f"{key} has {len(getattr(self, key))} numbers for {self.in_chans} channels")
        if self.class_names and len(self.class_names) != self.num_classes:
            counts = f"class_names has {len(self.class_names)} names for {self.num_classes} classes"
            raise CrispsegError(f"{counts}; give one per class, including background")
        self.label_set()

    @property
    def title(self) -> str:
        """Architecture and backbone, such as "crisp on resnet18"."""
        return f"{self.name} on {self.backbone}"

    def label_set(self) -> LabelSet:
        """Return class names and colours; unnamed classes are numbered."""
        if not self.class_names and not self.palette:
            return LabelSet.numbered(self.num_classes)
        return LabelSet(self.class_names, self.palette) if self.palette else LabelSet.colored(self.class_names)

    def to_json(self) -> str:
        """Return the text of `config.json`; it omits `OPTIONAL` fields that are unset, which earlier versions lack."""
        fields = {key: value for key, value in asdict(self).items() if key not in OPTIONAL or value != OPTIONAL[key]}
        return json.dumps({"format_version": FORMAT_VERSION, **fields}, indent=2) + "\n"

    @classmethod
    def parse(cls, text: str | bytes, path: str | Path) -> ModelInfo:
        """Read the text of a `config.json`; a damaged file or a later format raises a `CrispsegError` with the path."""
        try:
            config = json.loads(text)
            version = config.pop("format_version")
            is_newer = version > FORMAT_VERSION
            config["options"] = renamed(config.get("options", {}))
            if version == 1:
                config["options"] = of_format_1(config["name"], config["options"])
            if not is_newer:
                return TypeAdapter(cls).validate_json(json.dumps(config))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, CrispsegError) as error:
            reason = one_line(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise CrispsegError(f"{path} is not a saved crispseg model ({reason}); save the model again") from None
        raise CrispsegError(f"{path} has format version {version}, newer than {FORMAT_VERSION}; upgrade crispseg")
