"""Packages of BioImage.IO for ImageJ, ilastik, QuPath and other programs; https://bioimage.io describes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from huggingface_hub import ModelCard
from PIL import Image, ImageOps

from crispseg.export.certificate import reference, smooth_images
from crispseg.export.plan import OF_LOGITS, ExportPlan
from crispseg.io.arrays import Normalize
from crispseg.io.images import colorize
from crispseg.models.info import MIN_SIDE
from crispseg.models.saving import CARD_FILE, PICTURES

TEST_SIZE = (96, 128)  # height and width of the test image
COVER_SIZE = (1024, 512)  # width and height, in the ratio that BioImage.IO asks for
COVER, TEST_INPUT, TEST_OUTPUT = "cover.jpg", "test_input.npy", "test_output.npy"
FLOW = "Li et al.: Semantic Flow for Fast and Accurate Scene Parsing. ECCV 2020"
DDSM = "Shi et al.: Dynamic Dual Sampling Module for Fine-Grained Semantic Segmentation. ICIP 2021"
AGLN = "Li et al.: Attention Guided Global Enhancement and Local Refinement Network. IEEE TIP 2022"
UNEPT = "Zhu et al.: A Unified Efficient Pyramid Transformer for Semantic Segmentation. ICCVW 2021"
CITATIONS = {  # by the beginning of a model's name
    "crisp": {"text": FLOW, "doi": "10.48550/arXiv.2002.10120"},
    "sfnet": {"text": FLOW, "doi": "10.48550/arXiv.2002.10120"},
    "ddsm": {"text": DDSM, "doi": "10.48550/arXiv.2105.11657"},
    "agln": {"text": AGLN, "doi": "10.48550/arXiv.2204.04363"},
    "unept": {"text": UNEPT, "doi": "10.48550/arXiv.2107.14209"},
}
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

    info, file = plan.model.info, file_of(plan, CARD_FILE)
    card = ModelCard.load(file) if file else plan.model.new_card()
    (folder / CARD_FILE).write_text(card.text + VALIDATION, encoding="utf-8")
    write_tensors(plan, folder)
    licences = {name.lower(): name for name in get_args(LicenseId.root_model.model_fields["root"].annotation)}
    description = {
        "name": re.sub(r"[^\w+\-() ]", "-", info.title, flags=re.ASCII),
        "description": f"Segmentation into {', '.join(info.label_set().names)}"[:1024],
        "license": licences.get(str(card.data.get("license")).lower()),
        "cite": [paper for name, paper in CITATIONS.items() if info.name.startswith(name)],
        "tags": ["semantic-segmentation", "2d", "pytorch"],
        "documentation": {"source": folder / CARD_FILE},
        "covers": [{"source": folder / COVER}],
        "inputs": [input_tensor(plan, folder)],
        "outputs": [output_tensor(plan, folder)],
        "weights": weights,
    }
    save_bioimageio_package(ModelDescr(**description), output_path=path)


def file_of(plan: ExportPlan, *names: str) -> Path | None:
    """Return the first of the files that exists in the folder from which the model was loaded."""
    folder = plan.model.folder
    return next((folder / name for name in names if folder and (folder / name).is_file()), None)


def limits(plan: ExportPlan) -> tuple[float, float]:
    """Return the values that become black and white."""
    value_range = plan.model.info.value_range
    assert value_range != "image"
    return value_range or (0.0, 255.0)


def input_tensor(plan: ExportPlan, folder: Path) -> dict[str, Any]:
    """Describe the image, and its normalisation."""
    info, (low, high) = plan.model.info, limits(plan)
    names = [f"channel{number}" for number in range(info.in_chans)]
    sizes: list[Any] = [*plan.size] if plan.size else [{"min": MIN_SIDE, "step": 1}] * 2
    mean, std = low + (high - low) * np.array(info.mean), (high - low) * np.array(info.std)
    statistics = {"mean": mean.tolist(), "std": std.tolist(), "axis": "channel"}
    return {
        "id": "images",
        "axes": axes(names, sizes, plan),
        "data": {"type": "float32", "range": (low, high)},
        "preprocessing": [
            {"id": "clip", "kwargs": {"min": low, "max": high}},
            {"id": "fixed_zero_mean_unit_variance", "kwargs": statistics},
        ],
        "test_tensor": {"source": folder / TEST_INPUT},
    }


def output_tensor(plan: ExportPlan, folder: Path) -> dict[str, Any]:
    """Describe the probabilities."""
    names, tensor = plan.model.info.label_set().names, {"tensor_id": "images"}
    return {
        "id": "probabilities",
        "axes": axes(names, [{**tensor, "axis_id": "y"}, {**tensor, "axis_id": "x"}], plan),
        "data": {"type": "float32", "range": (0.0, 1.0)},
        "test_tensor": {"source": folder / TEST_OUTPUT},
    }


def axes(channels: Sequence[str], sizes: Sequence[Any], plan: ExportPlan) -> list[dict[str, Any]]:
    """Describe the axes of a tensor `(N, C, H, W)`."""
    spatial = [{"type": "space", "id": side, "size": size} for side, size in zip("yx", sizes, strict=True)]
    channel = {"type": "channel", "channel_names": [*channels]}
    return [{"type": "batch", "size": 1 if plan.size else None}, channel, *spatial]


def write_tensors(plan: ExportPlan, folder: Path) -> None:
    """Write a test image, its probabilities and a cover: the picture of the run, else the predicted classes."""
    info, (low, high) = plan.model.info, limits(plan)
    normalize = Normalize(info.mean, info.std, info.in_chans)
    images = normalize.reversed(smooth_images((1, *(plan.size or TEST_SIZE)), info.in_chans)).round().clamp(0, 255)
    with torch.inference_mode():
        probabilities = OF_LOGITS[plan.output](reference(plan.model)(normalize(images)), info.temperature)
    np.save(folder / TEST_INPUT, (low + images * ((high - low) / 255)).numpy())
    np.save(folder / TEST_OUTPUT, probabilities.numpy())
    picture = file_of(plan, *PICTURES)
    labels = colorize(probabilities[0].argmax(0).numpy(), info.label_set().palette)
    cover = Image.open(picture).convert("RGB") if picture else Image.fromarray(labels)
    ImageOps.pad(cover, COVER_SIZE, color="white").save(folder / COVER)
