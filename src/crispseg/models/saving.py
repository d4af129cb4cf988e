"""Saving models to folders and to the hub, and finding saved ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import nn

from crispseg.errors import CrispsegError
from crispseg.files import atomic_path, writable_folder
from crispseg.models.info import ModelInfo

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
TRAINING_ONLY = "auxiliary_heads."
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

MODEL_CARD = """---
{{ card_data }}
---

# {{ title }}

A semantic-segmentation model saved by [crispseg](https://pypi.org/project/crispseg).

```python
import crispseg

result = crispseg.Segmenter("PATH_OR_HUB_ID")("image.jpg")
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
        push_to_hub: bool = False,
        repo_id: str | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
        config: Any = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write the model's folder; each file of an earlier save stays whole until it is replaced.

        Args:
            save_directory: the folder.
            push_to_hub: also upload it.
            repo_id: on the hub, by default the folder's name.
            model_card_kwargs: further values for the model card.
            config: part of the mixin's protocol; the configuration is `self.info`.
            **push_to_hub_kwargs: of `huggingface_hub.ModelHubMixin.push_to_hub`.

        Raises:
            CrispsegError: the folder cannot be written.
        """
        assert isinstance(self, nn.Module)
        folder = writable_folder(save_directory)
        state = {k: v.contiguous() for k, v in self.state_dict().items() if not k.startswith(TRAINING_ONLY)}
        card = self.generate_model_card(**{**self._card(), **(model_card_kwargs or {})})
        with (
            atomic_path(folder / CARD_FILE) as card_path,
            atomic_path(folder / CONFIG_FILE) as config_path,
            atomic_path(folder / WEIGHTS_FILE) as weights_path,  # left, and so put in place, first
        ):
            save_file(state, weights_path, metadata={"format": "pt"})
            config_path.write_text(self.info.to_json(), encoding="utf-8")
            card_path.write_text(str(card), encoding="utf-8")
        if push_to_hub:
            return str(self.push_to_hub(repo_id or folder.name, **push_to_hub_kwargs))
        return None

    def _card(self) -> dict[str, str]:
        info = self.info
        lines = [f"- classes: {', '.join(info.label_set().names)}"]
        lines += [f"- {key}: {value}" for key, value in info.metrics.items() if isinstance(value, int | float)]
        return {"title": f"{info.name} on {info.backbone}", "details": "\n".join(lines)}


def read_info(source: str | Path, **hub: Any) -> ModelInfo:
    """What a saved model says about itself, without building it; arguments and errors as `from_pretrained`'s."""
    return ModelInfo.read(located(str(source), CONFIG_FILE, hub))


def located(source: str, name: str, hub: dict[str, Any]) -> Path:
    """A file of a saved model: in its folder, in a run's `model` folder, or from the hub."""
    folder = Path(source)
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
        raise CrispsegError(
            f"{source or 'an empty path'} does not exist; give a finished run, a saved model's folder or a hub id"
        )
    try:
        return Path(hf_hub_download(repo_id=source, filename=name, **hub))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CrispsegError(
            f"'{source}' is neither a folder nor a model that the hub gives ({reason}); check the path"
        ) from error
