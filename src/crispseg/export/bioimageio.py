"""Packages of BioImage.IO for ImageJ, ilastik, QuPath and other programs; https://bioimage.io describes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from huggingface_hub import ModelCard
from PIL import Image, ImageOps

from crispseg.export.certificate import reference, smooth_images
from crispseg.export.plan import ExportPlan
from crispseg.io.arrays import Normalize
from crispseg.models.info import MIN_SIDE
from crispseg.models.saving import CARD_FILE, PICTURES

TEST_SIZE = (96, 128)  # height and width of the test image
TEST_INPUT, TEST_OUTPUT = "test_input.npy", "test_output.npy"
COVER, COVER_SIZE = "cover.jpg", (1024, 512)  # width and height, in the ratio that BioImage.IO asks for
CITATIONS = (  # beginnings of the names of models, their paper, and its number at arXiv
    (("crisp", "sfnet"), "Li et al.: Semantic Flow for Fast and Accurate Scene Parsing", "2002.10120"),
    ("ddsm", "Shi et al.: Dynamic Dual Sampling Module for Fine-Grained Semantic Segmentation", "2105.11657"),
    ("agln", "Li et al.: Attention Guided Global Enhancement and Local Refinement Network", "2204.04363"),
    ("unept", "Zhu et al.: A Unified Efficient Pyramid Transformer for Semantic Segmentation", "2107.14209"),
)
VALIDATION = """
## Validation

Segment images that were not used in training, and compare the class of the largest probability with their masks.
`crispseg evaluate` prints IoU, boundary and object scores.
"""


def write_package(plan: ExportPlan, weights: Mapping[str, Mapping[str, Any]], folder: Path, path: Path) -> None:
    """Write a package of description 0.5 as a ZIP file.

    Args:
        plan: choices of the export.
        weights: BioImage.IO's description of each file of weights, by the name of its format.
        folder: folder of these files; a test image, its probabilities, a cover and the model card are added.
        path: path of the package.
    """
    from bioimageio.spec import save_bioimageio_package
    from bioimageio.spec.generic.v0_3 import LicenseId
    from bioimageio.spec.model.v0_5 import ModelDescr

    info, home = plan.model.info, plan.model.folder or folder
    has_card = (home / CARD_FILE).exists()
    card = ModelCard.load(home / CARD_FILE) if has_card else plan.model.new_card()
    (folder / CARD_FILE).write_text(card.text + VALIDATION, encoding="utf-8")
    pictures = [home / name for name in PICTURES if (home / name).exists()][:1]
    for picture in pictures:
        ImageOps.pad(Image.open(picture).convert("RGB"), COVER_SIZE, color="white").save(folder / COVER)
    licences = {name.lower(): name for name in get_args(LicenseId.root_model.model_fields["root"].annotation)}
    papers = [(text, number) for names, text, number in CITATIONS if info.name.startswith(names)]
    image, probabilities = tensors(plan, folder)
    description = {
        "name": re.sub(r"[^\w+\-() ]", "-", info.title, flags=re.ASCII),
        "description": f"Segmentation into {', '.join(info.label_set().names)}"[:1024],
        "license": licences.get(str(card.data.get("license")).lower()),
        "cite": [{"text": text, "doi": f"10.48550/arXiv.{number}"} for text, number in papers],
        "tags": ["semantic-segmentation", "2d", "pytorch"],
        "documentation": {"source": folder / CARD_FILE},
        "covers": [{"source": folder / COVER} for _ in pictures],
        "inputs": [image],
        "outputs": [probabilities],
        "weights": weights,
    }
    save_bioimageio_package(ModelDescr(**description), output_path=path)


def tensors(plan: ExportPlan, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write a test image and its probabilities; return BioImage.IO's descriptions of the input and the output."""
    info = plan.model.info
    assert info.value_range != "image"
    low, high = info.value_range or (0.0, 255.0)  # the values that become black and white
    normalize, gain = Normalize(info.mean, info.std, info.in_chans), (high - low) / 255
    pixels = normalize.reversed(smooth_images((1, *(plan.size or TEST_SIZE)), info.in_chans)).round().clamp(0, 255)
    with torch.inference_mode():
        logits = reference(plan.model)(normalize(pixels))
    np.save(folder / TEST_INPUT, (low + gain * pixels).numpy())
    np.save(folder / TEST_OUTPUT, (logits / info.temperature).softmax(1).numpy())
    mean, std = (low + gain * normalize.mean).flatten().tolist(), (gain * normalize.std).flatten().tolist()
    height, width = plan.size or [{"min": MIN_SIDE, "step": 1}] * 2
    batch = {"type": "batch", "size": 1 if plan.size else None}
    image = {
        "id": "images",
        "axes": [
            batch,
            {"type": "channel", "channel_names": [f"channel{number}" for number in range(info.in_chans)]},
            {"type": "space", "id": "y", "size": height},
            {"type": "space", "id": "x", "size": width},
        ],
        "data": {"type": "float32", "range": (low, high)},
        "preprocessing": [
            {"id": "clip", "kwargs": {"min": low, "max": high}},
            {"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": mean, "std": std, "axis": "channel"}},
        ],
        "test_tensor": {"source": folder / TEST_INPUT},
    }
    probabilities = {
        "id": "probabilities",
        "axes": [
            batch,
            {"type": "channel", "channel_names": [*info.label_set().names]},
            {"type": "space", "id": "y", "size": {"tensor_id": "images", "axis_id": "y"}},
            {"type": "space", "id": "x", "size": {"tensor_id": "images", "axis_id": "x"}},
        ],
        "data": {"type": "float32", "range": (0.0, 1.0)},
        "test_tensor": {"source": folder / TEST_OUTPUT},
    }
    return image, probabilities
