"""The frame in which every model stands."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import Tensor, nn

from crispseg.backbones import Backbone, read_state_dict
from crispseg.data.base import IGNORE, LabelSet
from crispseg.decoders import TopDown
from crispseg.errors import CrispsegError
from crispseg.files import writable_folder
from crispseg.nn import conv_bn_relu, resize

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
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


class Outputs(NamedTuple):
    """All a model can say about a batch of images, at their size; `None` is what it does not have."""

    logits: Tensor
    """Final `(N, num_classes, H, W)`."""
    unrefined: Tensor | None = None
    """Logits before refinement."""
    auxiliary: tuple[Tensor, ...] | None = None
    """Logits of the decoder's levels for deep supervision, finest first; only with `auxiliary=True`."""
    boundary: Tensor | None = None
    direction: Tensor | None = None


@dataclass(frozen=True)
class ModelInfo:
    """What a saved model carries beside its weights."""

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

    def label_set(self) -> LabelSet:
        """Class names and colours; numbered ones where none were given."""
        return LabelSet(self.class_names, self.palette) if self.class_names else LabelSet.numbered(self.num_classes)


class SegmentationModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="crispseg",
    pipeline_tag="image-segmentation",
    model_card_template=MODEL_CARD,
):
    """image → backbone → decoder → classifier → logits.

    Build one with `crispseg.create_model`. A model is a plain module: it neither normalises images nor knows a loss.

    Args:
        backbone: gives the features.
        decoder: turns them into one map to classify.
        num_classes: number of logits.
        auxiliary: adds heads on the decoder's levels for deep supervision in training.
    """

    info: ModelInfo
    """Set by `create_model`; replace it (`dataclasses.replace`) to add class names, palette, recipe or metrics."""

    def __init__(self, backbone: Backbone, decoder: TopDown, num_classes: int, *, auxiliary: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.classifier = nn.Conv2d(decoder.out_channels, num_classes, 1)
        self.auxiliary_heads = (
            nn.ModuleList(_auxiliary_head(width, num_classes) for width in decoder.auxiliary_channels)
            if auxiliary
            else None
        )

    def coarse_logits(self, images: Tensor) -> Tensor:
        """Logits at the decoder's stride, `(N, num_classes, ⌈H / 4⌉, ⌈W / 4⌉)`: 16 times smaller than `forward`'s."""
        logits: Tensor = self.classifier(self.decoder(self.backbone(_checked(images))).feature)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """`(N, in_chans, H, W)` normalised images, H, W ≥ 32 → logits `(N, num_classes, H, W)`.

        Raises:
            CrispsegError: smaller images; in training, a single value per channel in a batch norm of the backbone.
        """
        return resize(self.coarse_logits(images), images.shape[-2:], align_corners=True)

    def outputs(self, images: Tensor) -> Outputs:
        """All outputs at the images' size; see `Outputs`."""
        size = images.shape[-2:]
        decoded = self.decoder(self.backbone(_checked(images)))
        auxiliary = None
        if self.auxiliary_heads is not None:
            auxiliary = tuple(
                resize(head(level), size, align_corners=True)
                for head, level in zip(self.auxiliary_heads, decoded.levels, strict=True)
            )
        return Outputs(resize(self.classifier(decoded.feature), size, align_corners=True), auxiliary=auxiliary)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by speed of learning: `backbone` and `decoder` (all the rest)."""
        inside = {id(parameter) for parameter in self.backbone.parameters()}
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return {
            "backbone": [parameter for parameter in trainable if id(parameter) in inside],
            "decoder": [parameter for parameter in trainable if id(parameter) not in inside],
        }

    # Saving and loading ------------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> str | None:
        """Write `config.json`, `model.safetensors` and a model card; an earlier save stays whole until replaced.

        Keyword arguments are those of `huggingface_hub.ModelHubMixin.save_pretrained`, `push_to_hub` among them.
        """
        folder = writable_folder(save_directory)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            kwargs.setdefault("repo_id", folder.name)
            kwargs["model_card_kwargs"] = self._card() | (kwargs.get("model_card_kwargs") or {})
            result: str | None = super().save_pretrained(temporary, **kwargs)
            # Weights first: a config without weights, or with older ones, must never be seen.
            for name in (WEIGHTS_FILE, CONFIG_FILE, "README.md"):
                (Path(temporary) / name).replace(folder / name)
        return result

    def _save_pretrained(self, save_directory: Path) -> None:
        state = {k: v.contiguous() for k, v in self.state_dict().items() if not k.startswith(TRAINING_ONLY)}
        save_file(state, save_directory / WEIGHTS_FILE, metadata={"format": "pt"})
        config = {"format_version": FORMAT_VERSION, **asdict(self.info)}
        (save_directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def _card(self) -> dict[str, str]:
        info = self.info
        lines = [f"- classes: {', '.join(info.label_set().names)}"]
        lines += [f"- {key}: {value}" for key, value in info.metrics.items() if isinstance(value, int | float)]
        return {"title": f"{info.name} on {info.backbone}", "details": "\n".join(lines)}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> SegmentationModel:
        """Load a saved model, in eval mode; see `crispseg.from_pretrained`."""
        source = str(pretrained_model_name_or_path)
        if not Path(source).is_dir() and not HUB_ID.fullmatch(source):
            raise CrispsegError(f"{source} does not exist; give a finished run, a saved model's folder or a hub id")
        if (Path(source) / "model").is_dir():
            source = str(Path(source) / "model")
        try:
            model: SegmentationModel = super().from_pretrained(source, **kwargs)
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CrispsegError(f"'{source}' is neither a folder nor a model that the hub gives ({reason})") from error
        return model

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **_: Any,
    ) -> SegmentationModel:
        hub = {
            "revision": revision,
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
            "token": token,
        }
        config_path = _locate(model_id, CONFIG_FILE, hub)
        info = read_info(config_path)
        weights_path = _locate(model_id, WEIGHTS_FILE, hub)
        from crispseg.models import create_model  # here, because it needs this class

        model = create_model(
            info.name, num_classes=info.num_classes, backbone=info.backbone, in_chans=info.in_chans, **info.options
        )
        model.info = info
        weights = read_state_dict(weights_path)
        own = model.state_dict()
        wrong = sorted(key for key in own.keys() | weights.keys() if _shape(own, key) != _shape(weights, key))
        if wrong:
            raise CrispsegError(
                f"{weights_path} does not fit its {CONFIG_FILE}: {len(wrong)} tensors differ, "
                f"first {', '.join(wrong[:3])}; the folder mixes two models, save the model again"
            )
        model.load_state_dict(weights)
        return model.eval()


def read_info(path: str | Path) -> ModelInfo:
    """Read a saved model's `config.json`.

    Raises:
        CrispsegError: it is damaged, or of a later format.
    """
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
        version = config.pop("format_version")
        if version > FORMAT_VERSION:
            raise CrispsegError(
                f"{path} has format version {version}, this crispseg reads up to {FORMAT_VERSION}; upgrade it"
            )
        config["class_names"] = tuple(config["class_names"])
        config["palette"] = tuple(tuple(colour) for colour in config["palette"])
        config["mean"], config["std"] = tuple(config["mean"]), tuple(config["std"])
        return ModelInfo(**config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CrispsegError(
            f"{path} is no saved crispseg model ({type(error).__name__}: {error}); save the model again"
        ) from None


def _locate(model_id: str, name: str, hub: dict[str, Any]) -> Path:
    if Path(model_id).is_dir():
        path = Path(model_id) / name
        if not path.is_file():
            raise CrispsegError(
                f"{model_id} holds no {name}; give the folder that save_pretrained wrote, or a finished run"
            )
        return path
    try:
        return Path(hf_hub_download(repo_id=model_id, filename=name, **hub))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CrispsegError(
            f"'{model_id}' is neither a folder nor a model on the hub that can be reached ({reason})"
        ) from None


def _shape(tensors: dict[str, Tensor], key: str) -> tuple[int, ...] | None:
    return tuple(tensors[key].shape) if key in tensors else None


def _checked(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    if height < 32 or width < 32:
        raise CrispsegError(f"images of {height}×{width} pixels are too small; both sides must be at least 32")
    return images


def _auxiliary_head(width: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(*conv_bn_relu(width, width, 3), nn.Dropout2d(0.1), nn.Conv2d(width, num_classes, 1))
