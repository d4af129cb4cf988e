"""Saving models to folders and to the hub, and finding saved ones."""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor, nn

from crispseg.backbones import write_state_dict
from crispseg.errors import CrispsegError, CrispsegWarning
from crispseg.io.files import atomic_path, writable_folder
from crispseg.models.info import ModelInfo

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
TRAINING_ONLY = "auxiliary_heads."
SHIPPED = Path(__file__).parents[1] / "shipped"
"""The bundled models, each in a folder of its name."""
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

MODEL_CARD = """---
{{ card_data }}
---

# {{ title }}

A semantic-segmentation model saved by [crispseg](https://pypi.org/project/crispseg).

```python
import crispseg

result = crispseg.Segmenter("{{ source | default("PATH_OR_HUB_ID") }}")("image.jpg")
result.save("out")
```

{{ details }}
"""


class Saving(
    PyTorchModelHubMixin,
    library_name="crispseg",
    pipeline_tag="image-segmentation",
    model_card_template=MODEL_CARD,
):
    """`save_pretrained` and, from the hub's mixin, `push_to_hub`.

    A saved model is `config.json`, which says how to build it, `model.safetensors` and a model card.
    """

    if TYPE_CHECKING:
        info: ModelInfo

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
            save_directory: the folder.
            dtype: of the floating-point numbers in the file, such as `torch.float16`, which takes half the room; by
                default as they are. Loading gives float32 whatever it is.
            push_to_hub: also upload it.
            repo_id: on the hub, by default the folder's name.
            model_card_kwargs: further values for the model card.
            config: part of the mixin's protocol; the configuration is `self.info`.
            **push_to_hub_kwargs: of `huggingface_hub.ModelHubMixin.push_to_hub`.

        Raises:
            CrispsegError: the folder cannot be written; a weight is too large for `dtype`; an upload in another type.
        """
        assert isinstance(self, nn.Module)
        if push_to_hub and dtype is not None:
            raise CrispsegError("push_to_hub uploads weights as they are; leave dtype out, or upload the saved folder")
        folder = writable_folder(save_directory)
        state = {k: v.contiguous() for k, v in self.state_dict().items() if not k.startswith(TRAINING_ONLY)}
        if dtype is not None:
            state = {key: _converted(key, value, dtype) for key, value in state.items()}
        info = self.info
        lines = [f"- classes: {', '.join(map(_as_code, info.label_set().names))}"]
        lines += [
            f"- {_as_code(key)}: {value}" for key, value in info.metrics.items() if isinstance(value, int | float)
        ]
        own = {"title": f"{info.name} on {info.backbone}", "details": "\n".join(lines)}
        card = self.generate_model_card(**own | (model_card_kwargs or {}))
        with (
            atomic_path(folder / CARD_FILE) as card_path,
            atomic_path(folder / CONFIG_FILE) as config_path,
            atomic_path(folder / WEIGHTS_FILE) as weights_path,  # left, and so put in place, first
        ):
            write_state_dict(state, weights_path)
            config_path.write_text(info.to_json(), encoding="utf-8")
            card_path.write_text(str(card), encoding="utf-8")
        if push_to_hub:
            return str(self.push_to_hub(repo_id or folder.name, **push_to_hub_kwargs))
        return None


def _as_code(text: str) -> str:
    """A name as code in Markdown, where it can be neither a link nor HTML."""
    text = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def _converted(key: str, values: Tensor, dtype: torch.dtype) -> Tensor:
    """Floating-point values in another type; counters stay as they are."""
    if not values.is_floating_point():
        return values
    converted = values.to(dtype)
    if not dtype.is_floating_point or (converted.isinf() & values.isfinite()).any():
        raise CrispsegError(f"the model's {key} cannot be saved as {dtype}; take torch.bfloat16, or leave dtype out")
    return converted


def shipped_models() -> list[str]:
    """Return the names of the bundled models."""
    return sorted(config.parent.name for config in SHIPPED.glob(f"*/{CONFIG_FILE}"))


def shipped_folder(source: str | Path) -> Path | None:
    """The folder of the model inside crispseg that `source` means; None where it means something else.

    A bare name means that model unless a folder here has the same name and holds a saved model, or is a run with one.
    With a separator, as `./nuclei`, or as a `Path`, a name means a folder.
    """
    if isinstance(source, Path) or source not in shipped_models():
        return None
    places = Path(source), Path(source) / "model"
    taken = any(all((place / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE)) for place in places)
    return None if taken else SHIPPED / source


def read_info(source: str | Path, **hub: Any) -> ModelInfo:
    """Read the description of a saved model without building it; arguments and errors as `from_pretrained`'s."""
    return ModelInfo.read(located(source, CONFIG_FILE, hub))


def fingerprint(source: str | Path) -> str:
    """16 hexadecimal digits that follow from the files of a saved model; errors as `from_pretrained`'s."""
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        digest.update(located(source, name, {}).read_bytes())
    return digest.hexdigest()[:16]


def located(source: str | Path, name: str, hub: dict[str, Any]) -> Path:
    """A file of a saved model: in its folder, in a run's `model` folder, inside crispseg, or from the hub."""
    inside, folder = shipped_folder(source), Path(source)
    if isinstance(source, str) and source in shipped_models() and folder.is_dir():
        taken = (
            f"the bundled model, as the folder {source} holds no saved model; ./{source} is the folder"
            if inside
            else f"the saved model in the folder {source}; rename that for the bundled model"
        )
        warnings.warn(f"'{source}' is {taken}", CrispsegWarning, stacklevel=1)
    if inside:
        return inside / name
    source = str(source)
    if source and folder.is_dir():
        folder = folder / "model" if (folder / "model").is_dir() else folder
        if not (folder / name).is_file():
            raise CrispsegError(f"{folder} holds no {name}; give a finished run or the folder of a saved model")
        return folder / name
    if folder.is_file():
        run = folder.parent.parent  # of a checkpoint
        what = f"the run itself, {run}" if (run / "model").is_dir() else "the folder of a finished run or saved model"
        raise CrispsegError(f"{source} is a file; give {what}")
    if not HUB_ID.fullmatch(source) or folder.parent.is_dir():
        names = ", ".join(shipped_models())
        raise CrispsegError(
            f"{source or 'an empty path'} does not exist; give a finished run, a saved model's folder or a hub id"
            + (f", or a name: {names}" if names else "")
        )
    try:
        return Path(hf_hub_download(repo_id=source, filename=name, **hub))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CrispsegError(
            f"'{source}' is neither a folder nor a model that the hub gives ({reason}); check the path"
        ) from error
