"""Weights of backbones, from files or published by timm."""

from __future__ import annotations

import json
import pickletools
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from huggingface_hub import file_exists, hf_hub_download, try_to_load_from_cache
from safetensors import safe_open
from safetensors.torch import save
from timm.models import adapt_input_conv, get_pretrained_cfg, load_state_dict
from torch import Tensor, nn

from crispseg.config.settings import shortened
from crispseg.errors import CrispsegError, one_line
from crispseg.licences import NOT_STATED, UNKNOWN, Licence

# SFNet's official code saves its mIoU, an np.float64, next to the weights. NumPy 2 renamed the module of scalars.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_FLOAT: list[Any] = [
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(np.dtype, type(np.dtype(np.float64))),
]

HUB_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
)  # names of timm's weight files on the hub, in timm's search order
MAX_HEADER = 8_000_000  # bytes that describe the tensors of a weight file or checkpoint; a network takes about 0.5 MB
CHECKSUMS = "crc32"  # metadata key of a .safetensors file for the `checksum` of each tensor by name, as JSON


def bundled_weights(name: str) -> Path | None:
    """Return the file of ImageNet weights of a backbone's features if it is part of the package."""
    file = Path(__file__).with_name(f"{name.removesuffix('.in1k')}.safetensors")
    return file if file.is_file() else None


def load_weights(body: nn.Module, weights: dict[str, Tensor], name: str, source: str | Path) -> None:
    """Load a whole classification network's weights into its pruned feature part; they must cover all of `body`.

    Keys are the published ones; the first convolution is adapted if images are not RGB. Errors contain the backbone's
    name and the source of the weights.
    """
    own = body.state_dict()
    fitting = {key: adapted(weights[key], own[key].shape) for key in own if key in weights}
    shapes = {key: value.shape for key, value in fitting.items()}
    wrong = [key for key in own if shapes.get(key) != own[key].shape and not key.endswith("num_batches_tracked")]
    if wrong:
        fault = f"{len(wrong)} of {len(own)} tensors are missing or of another shape, first {', '.join(wrong[:3])}"
        raise CrispsegError(f"{source} does not match backbone '{name}': {fault}; give the weights of '{name}' itself")
    body.load_state_dict(fitting, strict=False)


def adapted(weight: Tensor, shape: torch.Size) -> Tensor:
    """Return a weight, or that of a first convolution for RGB images for the number of channels in `shape`."""
    return adapt_input_conv(shape[1], weight) if weight.ndim == 4 and weight.shape[1] == 3 else weight


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read tensors from a `.safetensors` file or, with restricted unpickling, from a PyTorch file.

    timm unwraps a dict under `state_dict` or `model`, and removes prefixes such as `module.`. The file may also contain
    numbers, text and plain containers of these.

    Raises:
        CrispsegError: the file is missing or damaged, or contains other objects; a tensor does not match its checksum.
    """
    path = Path(path)
    if not path.is_file():
        raise CrispsegError(f"weight file {path} does not exist; give the path of a .safetensors or .pth file")
    try:
        checksums = checked_header(path)
        with torch.serialization.safe_globals(_NUMPY_FLOAT):
            weights = load_state_dict(str(path), use_ema=False, weights_only=True)
        actual = {key: checksum(key, weights[key]) for key in checksums and weights}
        if changed := dict(checksums.items() ^ actual.items()):
            raise ValueError(f"{min(changed)} does not match its checksum")
    except Exception as error:  # PyTorch's readers raise almost any error for damaged files
        reason = f"is damaged, or not a plain state dict ({one_line(error):.200})"
        raise CrispsegError(f"weight file {path} {reason}; restore the file, or save it again") from None
    if not all(isinstance(value, Tensor) for value in weights.values()):
        raise CrispsegError(f"weight file {path} contains no state dict; save the network's state_dict()")
    if empty := [key for key, value in weights.items() if not has_values(value)]:
        raise CrispsegError(f"weight file {path} lacks values of {empty[0]}; save contiguous tensors on the CPU")
    return weights


def has_values(tensor: Tensor) -> bool:
    """Return whether a tensor's values are all in memory: strides of 0 repeat values, and may stand for any number."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def checked_header(path: Path) -> dict[str, int]:
    """Check the description of a file's tensors; return their checksums if `write_state_dict` wrote it, else none."""
    if path.suffix == ".safetensors":
        with path.open("rb") as header:
            check_header(int.from_bytes(header.read(8), "little"))
        with safe_open(path, "pt") as file:
            return dict(json.loads((file.metadata() or {}).get(CHECKSUMS, "{}")))
    if zipfile.is_zipfile(path):  # the current format of PyTorch
        check_archive(path)
        return {}
    with path.open("rb") as file:
        for _ in range(4):  # three pickles about PyTorch, then that of the tensors
            for _, _, position in pickletools.genops(file):
                check_header(position or 0)
    return {}


def check_header(size: int) -> None:
    """Raise a ValueError if too many bytes describe the tensors of a file, whose number may fill the memory."""
    if size > MAX_HEADER:
        raise ValueError(f"more than {MAX_HEADER:,} bytes describe its tensors")


def check_archive(path: Path) -> None:
    """Compare the checksums of all records in a PyTorch file; PyTorch itself does not check them.

    Raises:
        ValueError: the records are larger than the file, or describe too many tensors.
        zipfile.BadZipFile: a record is damaged or marked as a folder; PyTorch would leave its tensor uninitialised.
    """
    with zipfile.ZipFile(path) as archive:
        if sum(record.file_size for record in archive.infolist()) > path.stat().st_size:
            raise ValueError("its records are compressed or overlap; PyTorch writes neither")
        for record in archive.infolist():
            check_header(record.file_size if record.filename.endswith(".pkl") else 0)
        # MS-DOS's attribute of a folder
        folders = [record.filename for record in archive.infolist() if record.external_attr & 0x10]
        for damaged in filter(None, [archive.testzip(), *folders]):
            raise zipfile.BadZipFile(f"{damaged} has changed since it was written")


def write_state_dict(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a `.safetensors` file of contiguous tensors, with a checksum of each."""
    checksums = {key: checksum(key, value) for key, value in tensors.items()}
    path.write_bytes(save(tensors, {"format": "pt", CHECKSUMS: json.dumps(checksums)}))


def checksum(name: str, values: Tensor) -> int:
    """Return the CRC-32 of a tensor's name, type, shape and bytes."""
    head = zlib.crc32(f"{name} {values.dtype} {tuple(values.shape)}".encode())
    return zlib.crc32(values.detach().cpu().reshape(-1).view(torch.uint8).numpy().data, head)


def weights_source(name: str, pretrained: bool | str | Path) -> str:
    """Describe where a backbone's weights come from."""
    sources: dict[Any, str] = {True: f"the published weights of {name}", False: "random weights; see model.pretrained"}
    return sources.get(pretrained, f"the weights in {pretrained}")


def weights_licence(name: str, pretrained: bool | str | Path) -> Licence:
    """Return the licence of a backbone's published weights, or of a file of weights; see `Backbone`."""
    if not isinstance(pretrained, bool):
        return Licence.of_file(name, NOT_STATED, Path(pretrained))
    config: Any = get_pretrained_cfg(name)
    if config is None:  # ShuffleNet of torchvision, which states no licence of weights
        return Licence("weights", name, UNKNOWN, "https://pytorch.org/vision")
    licence = config.license or UNKNOWN
    if not config.hf_hub_id:
        return Licence("weights", name, licence, config.url)
    file = bundled_weights(name) or Path(hub_file(config))
    return Licence.of_file(name, licence, file, f"https://huggingface.co/{config.hf_hub_id}")


def build_published(name: str, published: bool, **options: Any) -> Any:
    """Build timm's network; `published` loads its weights from the cache of the Hugging Face hub or from the hub."""
    if not published:
        return timm.create_model(name, **options)
    try:
        config: Any = get_pretrained_cfg(name)
        if config.hf_hub_id:
            options["pretrained_cfg_overlay"] = {"file": hub_file(config), "custom_load": config.custom_load == "hf"}
        return timm.create_model(name, pretrained=True, **options)
    except TypeError:  # the network lacks an option
        raise
    except Exception as error:  # timm, the hub's client and the network raise many types of errors
        failure = f"cannot download the weights of backbone '{name}' ({shortened(one_line(error))})"
        remedy = "without internet, give model.pretrained the path of a weight file, or false for random weights"
        raise CrispsegError(f"{failure}; {remedy}") from error


def hub_file(config: Any) -> str:
    """Return timm's weight file of a network from the hub's cache or by download; errors are those of the hub's client.

    It contacts the server first, because a download would try for a minute before it reports a missing connection.
    """
    repo, _, named = config.hf_hub_id.partition("@")
    files, revision = ([config.hf_hub_filename] if config.hf_hub_filename else HUB_FILES), named or None
    for file in files:
        if isinstance(cached := try_to_load_from_cache(repo, file, revision=revision), str):
            return cached
    file = next((file for file in files if file_exists(repo, file, revision=revision)), files[0])
    return hf_hub_download(repo, file, revision=revision)
