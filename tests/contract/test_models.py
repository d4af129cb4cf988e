"""State and logits of every model, of saved folders of the first format, and of the bundled models."""

import hashlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import crispseg
from contract.formula import SIZES, assert_close, frozen, image, picture, samples, saved, shapes_of

TINY = "test_efficientnet"
SMALL: dict[str, Any] = {"backbone": TINY, "width": 16}
UNEPT: dict[str, Any] = {"name": "unept", "backbone": TINY, "width": 32}
BUILT: dict[str, dict[str, Any]] = {
    **{
        name: {"name": name, **SMALL}
        for name in (
            *("fpn", "fcn", "upernet", "deeplabv3plus", "sfnet", "sfnet_lite", "ddsm_upernet", "ddsm_deeplabv3plus"),
            *("agln", "agln_lite", "crisp_s", "crisp", "crisp_l"),
        )
    },
    "unept": {**UNEPT, "refine": None},
    "fpn refined": {"name": "fpn", **SMALL, "refine": "boundary"},
    "fpn resnet18_deep, 4 channels": {"name": "fpn", "backbone": "resnet18_deep", "width": 16, "in_chans": 4},
    "fpn df1": {"name": "fpn", "backbone": "df1", "width": 16},
    "fpn stdc1": {"name": "fpn", "backbone": "stdc1", "width": 16},
    "fpn shufflenetv2_x1_0": {"name": "fpn", "backbone": "shufflenetv2_x1_0", "width": 16},
    "fpn dcn aspp": {"name": "fpn", **SMALL, "fuse": "dcn", "context": "aspp"},
    "upernet cfb": {"name": "upernet", **SMALL, "fuse": "cfb", "fuse_options": {"descriptors": 8}},
    "deeplabv3plus 8": {"name": "deeplabv3plus", **SMALL, "output_stride": 8, "context": "denseaspp"},
    "sfnet ddsm": {"name": "sfnet", **SMALL, "fuse": "ddsm", "fuse_options": {"pixels": 9}},
    "sfnet aligned": {"name": "sfnet", **SMALL, "merge": "aligned", "fuse_levels": [4, 5], "flow_kernel": 1},
    "sfnet correlation": {"name": "sfnet", **SMALL, "flow_net": "correlation", "flow_upsampling": "nearest"},
    "sfnet deconvolution": {"name": "sfnet", **SMALL, "flow_upsampling": "deconvolution", "context": "nonlocal"},
    "sfnet aspp": {"name": "sfnet", **SMALL, "context": "aspp", "context_options": {"rates": [1, 2, 3]}},
    "sfnet released_dilation": {"name": "sfnet", "backbone": "resnet18_deep", "width": 16, "released_dilation": True},
    "sfnet_lite crisscross": {"name": "sfnet_lite", **SMALL, "context": "crisscross"},
    "ddsm_upernet 9": {"name": "ddsm_upernet", **SMALL, "pixels": 9, "channels": 1, "reduced": 16},
    "agln plain": {"name": "agln", **SMALL, "connection": "straight", "descriptors": 8, "residual": False},
    "agln average": {"name": "agln", **SMALL, "pooling": "average", "refinement": "spatial"},
    "crisp conv": {"name": "crisp", **SMALL, "context": "conv", "merge": "concat"},
    "crisp refined": {"name": "crisp", **SMALL, "refine": "boundary", "refine_path": "straight", "refine_steps": 3},
    "unept naive": {**UNEPT, "queries": "naive", "levels": 1, "refine": None},
    "unept refined": {**UNEPT, "points": 4, "refine": "boundary"},
    "unept full": {**UNEPT, "self_attention": "full", "encodings": "features", "refine": None},
}
"""Keyword arguments of `create_model` beside `num_classes`."""
HEAVY = {
    *("unept full", "unept naive", "unept refined", "sfnet released_dilation", "sfnet correlation", "sfnet ddsm"),
    *("fpn resnet18_deep, 4 channels", "fpn df1", "fpn stdc1", "fpn shufflenetv2_x1_0", "deeplabv3plus 8"),
    *("agln plain", "crisp conv", "crisp_l"),
}
"""Cases that are left out of the quick tests, which take one of each kind."""

FOLDERS = ("sfnet", "crisp", "unept")
BUNDLED = ("nuclei", "aerial", "leaf")


def build(case: str) -> crispseg.SegmentationModel:
    """One of `BUILT`, with five classes; AGLN's `block` was called `residual`."""
    options = dict(BUILT[case])
    name = options.pop("name")
    if "residual" in options and "block" in inspect.signature(crispseg.models.agln).parameters:
        options["block"] = "residual" if options.pop("residual") else "paper"
    return crispseg.create_model(name, num_classes=5, design="paper", **options)


def parts(model: crispseg.SegmentationModel, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Logits; and of a refined model what they are made of, since directions that are nearly tied may change."""
    outputs = model.outputs(images)
    yield "logits", outputs.logits
    if outputs.unrefined is not None and outputs.boundary is not None and outputs.direction is not None:
        yield from (("unrefined", outputs.unrefined), ("boundary", outputs.boundary), ("direction", outputs.direction))


def logits(model: crispseg.SegmentationModel, case: str) -> dict[str, NDArray[np.float32]]:
    """Sampled outputs at both sizes."""
    with torch.no_grad():
        return {
            f"{case}/{size[0]}x{size[1]}/{part}": samples(values)
            for size in SIZES
            for part, values in parts(model, image(size, model.info.in_chans))
        }


def seen(folder: str | Path) -> dict[str, NDArray[np.float32]]:
    """Sampled probabilities of a saved model."""
    segmenter = crispseg.Segmenter(folder, "cpu")
    return {
        f"{Path(folder).name}/{size[0]}x{size[1]}": samples(segmenter(picture(size)).probabilities()) for size in SIZES
    }


def weight_file(name: str) -> Path:
    """The weights of a bundled model, wherever in the package they are."""
    return next(Path(crispseg.__file__).parent.rglob(f"{name}/model.safetensors"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def packed(shapes: dict[str, list[int]]) -> str:
    """Keys and shapes as one text."""
    return " ".join(f"{key}:{'x'.join(map(str, shape))}" for key, shape in sorted(shapes.items()))


def unpacked(text: str) -> dict[str, list[int]]:
    pairs = (entry.rsplit(":", 1) for entry in text.split(" "))
    return {key: [int(side) for side in shape.split("x") if side] for key, shape in pairs}


def described(case: str) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """The `config.json` of a saved model, and the keys and shapes of its weights."""
    cases = frozen("models.json")
    _, own, backbone = cases[case]
    return cases[case][0], unpacked(f"{own} {cases[backbone]}")


CASES = [pytest.param(case, marks=[pytest.mark.slow] * (case in HEAVY)) for case in BUILT]


@pytest.mark.parametrize("case", CASES)
def test_state_and_logits_of_a_saved_folder(case: str, tmp_path: Path) -> None:
    config, shapes = described(case)
    assert shapes_of(build(case)) == shapes
    model = crispseg.from_pretrained(saved(tmp_path / "model", config, shapes))
    expected = frozen("logits.npz")
    for key, values in logits(model, case).items():
        assert_close(values, expected[key], 0.97 if "refine" in case and key.endswith("logits") else 1)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_was_saved(name: str) -> None:
    folder = Path(__file__).parent / "frozen" / name
    expected = frozen("saved.npz")
    for key, values in {**logits(crispseg.from_pretrained(folder), name), **seen(folder)}.items():
        assert_close(values, expected[key], 0.97 if name == "unept" else 1)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_model(name: str) -> None:
    expected = frozen("bundled.npz")
    if sha256(weight_file(name)) != str(expected[f"{name} sha256"]):
        pytest.skip(f"{name} has other weights")
    for key, values in {**logits(crispseg.from_pretrained(name), name), **seen(name)}.items():
        assert_close(values, expected[key])
