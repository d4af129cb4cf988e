"""Saving of models to folders and to the hub, and lookup of saved models."""

from __future__ import annotations

import re
import warnings
from itertools import product
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from torch import Tensor, nn

from crispseg.backbones import write_state_dict
from crispseg.config.settings import shortened
from crispseg.errors import CrispsegError, CrispsegWarning, did_you_mean, one_line
from crispseg.io.files import atomic_path, digest, user_path, writable_folder
from crispseg.models.info import ModelInfo
from crispseg.models.novelty import Novelty
from crispseg.models.registry import models

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
PICTURES = ("../val.png", "failures.png")  # of a run and of a bundled model, from the folder of the model
NOVELTY_KEYS = [f"novelty.{name}" for name in Novelty._fields]
TRAINING_ONLY = "auxiliary_heads."
MODEL = "model"  # folder of the saved model in that of a run
SHIPPED = Path(__file__).parents[1] / "shipped"
"""Folder of the bundled models; each subfolder has the name of its model."""
FOLDS = "folds.json"  # file of the scores of finished folds, in the folder that contains all folds
RUNS = "runs"  # usual folder of runs; a path in it is never a hub id
BARS_A_USE = re.compile(r"non-?commercial|\bnc\b|agpl", re.IGNORECASE)
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

MODEL_CARD = """---
{{ card_data }}
---

# {{ title }}

A semantic-segmentation model saved by crispseg.

```python
import crispseg

result = crispseg.Segmenter("{{ source | default("PATH_OR_HUB_ID") }}")("image.jpg")
result.save("out")
```

{{ details }}
"""


class Saving(
    PyTorchModelHubMixin, library_name="crispseg", pipeline_tag="image-segmentation", model_card_template=MODEL_CARD
):
    """Base class with `save_pretrained` and the `push_to_hub` of the hub's mixin.

    A saved model consists of `config.json` (its description), `model.safetensors` and a model card.
    """

    info: ModelInfo
    novelty: Novelty | None
    folder: Path | None = None
    """Folder from which the model was loaded."""

    def new_card(self, **values: Any) -> ModelCard:
        """Return a model card of classes and scores; further values go to its template."""
        own = {"title": self.info.title, "details": _details(self.info)}
        return self.generate_model_card(**own | values)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        dtype: torch.dtype | None = None,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
        config: Any = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write the model's folder; each file of an earlier save stays whole until it is replaced.

        Args:
            save_directory: folder of the model.
            dtype: type of the floating-point numbers in the file, such as `torch.float16` for half the size; by
                default unchanged. Loading always gives float32.
            push_to_hub: also upload the model.
            repo_id: id on the hub; the default is the folder's name.
            model_card_kwargs: further values for the model card.
            config: part of the mixin's protocol; the configuration is `self.info`.
            **push_to_hub_kwargs: arguments of `huggingface_hub.ModelHubMixin.push_to_hub`.

        Raises:
            CrispsegError: the folder is not writable, or its `config.json` is not crispseg's; a weight is too large for
                `dtype`; an upload has a `dtype`.
        """
        assert isinstance(self, nn.Module)
        if push_to_hub and dtype is not None:
            raise CrispsegError("push_to_hub cannot convert weights; leave dtype out, or upload the saved folder")
        folder = writable_folder(save_directory)
        if (folder / CONFIG_FILE).exists() and b'"format_version"' not in (folder / CONFIG_FILE).read_bytes():
            raise CrispsegError(f"{folder / CONFIG_FILE} is not of a crispseg model; choose another folder")
        state = _state(self, dtype) | dict(zip(NOVELTY_KEYS, self.novelty or (), strict=False))
        if barring := [str(entry) for entry in self.info.licences if BARS_A_USE.search(entry.licence)]:
            warnings.warn(CrispsegWarning(f"check licences that may bar a use: {', '.join(barring)}"), stacklevel=2)
        card = self.new_card(**(model_card_kwargs or {}))
        with (
            atomic_path(folder / CONFIG_FILE) as config_path,  # in place last, so a folder with this file is complete
            atomic_path(folder / CARD_FILE) as card_path,
            atomic_path(folder / WEIGHTS_FILE) as weights_path,
        ):
            write_state_dict(state, weights_path)
            config_path.write_text(self.info.to_json(), encoding="utf-8")
            card_path.write_text(str(card), encoding="utf-8")
        if push_to_hub:
            return str(self.push_to_hub(repo_id or folder.name, **push_to_hub_kwargs))
        return None


def _state(model: nn.Module, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the weights to save, in another type if one is given."""
    state = {key: v.contiguous() for key, v in model.state_dict().items() if not key.startswith(TRAINING_ONLY)}
    if dtype is None:
        return state
    converted = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    if not dtype.is_floating_point or any(value.isinf().any() for value in converted.values()):
        raise CrispsegError(f"the weights cannot be saved as {dtype}; use torch.bfloat16, or leave dtype out")
    return converted


def _details(info: ModelInfo) -> str:
    """Return the lines of a model card about classes, scores and licences."""
    names = ", ".join(f"`{name}`" for name in info.label_set().names)
    scores = [f"- `{key}`: {value}" for key, value in info.metrics.items() if isinstance(value, int | float)]
    return "\n".join([f"- classes: {names}", *scores, *(f"- licence of {entry}" for entry in info.licences)])


def shipped_models() -> list[str]:
    """Return the names of the bundled models."""
    return sorted(config.parent.name for config in SHIPPED.glob(f"*/{CONFIG_FILE}"))


def shipped_folder(source: str | Path) -> Path | None:
    """Return the folder of the bundled model that `source` names; None if it names something else.

    A bare name means the bundled model, unless a folder of this name in the working directory contains a saved model or
    a run. A name with a separator, such as `./nuclei`, or a `Path` means a folder.
    """
    if isinstance(source, Path) or source not in shipped_models():
        return None
    for place in (Path(source), Path(source) / MODEL):
        if (place / CONFIG_FILE).is_file() and (place / WEIGHTS_FILE).is_file():
            return None
    return SHIPPED / source


def absolute_source(source: str | PathLike[str]) -> str | PathLike[str]:
    """Return an existing path as absolute, so that it can be opened from another folder; other sources are names."""
    path = user_path(source)
    return path.absolute() if path.exists() and shipped_folder(fspath(source)) is None else source


def read_info(source: str | Path, **hub: Any) -> ModelInfo:
    """Read a saved model's description without building it; arguments and errors are those of `from_pretrained`."""
    path = located(source, CONFIG_FILE, hub)
    return ModelInfo.parse(path.read_bytes(), path)


def fingerprint(source: str | Path) -> str:
    """Return a hash of a saved model's files, or of all folds, as 16 digits; errors are those of `from_pretrained`."""
    return digest(*saved_files(source, CONFIG_FILE, WEIGHTS_FILE))[:16]


def saved_files(source: str | Path, *names: str) -> list[Path]:
    """Return files of a saved model, or of all folds; errors are those of `from_pretrained`."""
    places: list[str | Path] = [*folds_of(source)] or [source]
    return [located(place, name, {}) for place, name in product(places, names)]


def folds_of(source: str | Path) -> list[Path]:
    """Return the folders of the folds of a cross-validation, or an empty list for any other source."""
    folder = user_path(source)
    if not (folder / FOLDS).is_file():
        return []
    if folds := sorted(folder.glob("fold_*")):
        return folds
    raise CrispsegError(f"{folder} has no fold_1 and others; restore them, or give the folder of a run")


def located(source: str | Path, name: str, hub: dict[str, Any]) -> Path:
    """Return a file of a saved model from its folder, a run's `model` folder, the bundled models or the hub."""
    if inside := shipped_folder(source):
        return inside / name
    folder = user_path(source)
    folder = folder / MODEL if (folder / MODEL).is_dir() else folder
    if (folder / name).is_file():
        return folder / name
    if folder.is_dir():
        raise CrispsegError(f"{folder} has no {name}; give a finished run or the folder of a saved model")
    if not HUB_ID.fullmatch(str(source)) or folder.parent.is_dir() or folder.parts[0] == RUNS:
        is_network = " but the name of an untrained network" if source in models.names() else ""
        remedy = "give a finished run, a saved model's folder, a hub id or a bundled model"
        meant = did_you_mean(str(source).lower(), shipped_models())
        raise CrispsegError(f"{source} is not a model folder{is_network}; {remedy}{meant}")
    try:
        return Path(hf_hub_download(repo_id=str(source), filename=name, **hub))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise CrispsegError(
            f"'{source}' is neither a folder nor an available hub model ({shortened(one_line(error))}); check it"
        ) from error
