"""Weights that timm publishes: from the hub's cache, or downloaded, or said at once to be out of reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from timm.models import get_pretrained_cfg

from crispseg.errors import CrispsegError

FILES = ("model.safetensors", "pytorch_model.bin")
"""Names under which timm stores weights on the hub, in the order in which it looks for them."""
REMEDY = "give model.pretrained the path of a weight file, or false for random weights"


def weights_source(name: str, pretrained: bool | str | Path) -> str:
    """Describe the source of a backbone's weights; fetch those of timm.

    Raises:
        CrispsegError: there is no such file; timm's weights can neither be found nor downloaded.
    """
    if pretrained is False:
        return "random weights; see model.pretrained"
    if not isinstance(pretrained, bool):
        if not Path(pretrained).is_file():
            raise CrispsegError(f"weight file {pretrained} does not exist; give a .safetensors or .pth file, or true")
        return f"the weights in {pretrained}"
    hub_id = hub_id_of(name)
    if hub_id:
        hub_file(name)
        return f"the published weights {hub_id} of the Hugging Face hub"
    return f"the published weights of {'timm' if timm.is_model(name) else 'torchvision'}"


def build_published(name: str, timm_name: str, published: bool, **options: Any) -> Any:
    """timm's network, with its published weights if asked; `name` is for errors.

    Raises:
        CrispsegError: the weights can neither be found nor downloaded.
    """
    if not published:
        return timm.create_model(timm_name, **options)
    if hub_id_of(timm_name):
        foreign = get_pretrained_cfg(timm_name).custom_load == "hf"
        options["pretrained_cfg_overlay"] = {"file": str(hub_file(timm_name)), "custom_load": foreign}
    try:
        return timm.create_model(timm_name, pretrained=True, **options)
    except TypeError:  # an option that the network does not know
        raise
    except Exception as error:  # timm and the network raise many types here
        raise _unreachable(name, "timm", error) from error


def hub_id_of(name: str) -> str | None:
    """Return the hub id of timm's weights of a network, such as timm/resnet18.a1_in1k."""
    config = get_pretrained_cfg(name) if timm.is_model(name) else None
    return config.hf_hub_id or None if config else None


def hub_file(name: str) -> Path:
    """timm's weight file of a network, from the hub's cache without asking the network; else downloaded.

    The server is asked once: a download by itself would try for a minute before it says that there is no connection.

    Raises:
        CrispsegError: the hub cannot be reached, or does not have it.
    """
    repo, _, named = str(hub_id_of(name)).partition("@")
    revision = named or None
    own = get_pretrained_cfg(name).hf_hub_filename
    files = (own,) if own else FILES
    for file in files:
        cached = try_to_load_from_cache(repo, file, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    for file in files:
        try:
            get_hf_file_metadata(hf_hub_url(repo, file, revision=revision))
            return Path(hf_hub_download(repo, file, revision=revision))
        except EntryNotFoundError as error:
            missing = error
        except Exception as error:  # the hub's client and the network raise many types here
            raise _unreachable(name, repo, error) from error
    raise _unreachable(name, repo, missing) from missing


def _unreachable(name: str, where: str, error: Exception) -> CrispsegError:
    """The last line of any of these errors says what failed."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return CrispsegError(f"cannot get the weights of backbone '{name}' from {where} ({reason}); {REMEDY}")
