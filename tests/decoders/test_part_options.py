"""Options of a part go wherever the part goes, and are saved with the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from crispseg import create_model, from_pretrained
from crispseg.models import DDSM, FlowAlignment, SegmentationModel
from crispseg.models.registry import model_options

TINY: dict[str, Any] = {"num_classes": 3, "backbone": "test_efficientnet", "width": 16}


def options_of(model: SegmentationModel) -> dict[str, Any]:
    return model.info.options


@pytest.mark.parametrize("name", ["fpn", "upernet", "sfnet", "deeplabv3plus"])
def test_options_reach_the_part(name: str) -> None:
    model = create_model(name, **TINY, fuse="ddsm", fuse_options={"pixels": 9, "affinity": "spatial", "reduced": 4})
    parts = [module for module in model.modules() if isinstance(module, DDSM)]
    assert parts and all(part.channel is None and part.spatial.affinity.sampler.points == 9 for part in parts)  # type: ignore[union-attr]
    expected = {"pixels": 9, "channels": 9, "affinity": "spatial", "reduced": 4, "pooled": 8, "downsampled": 16}
    assert options_of(model)["fuse_options"] == expected


def test_a_system_has_the_options_of_its_own_part() -> None:
    """Given beside the others or in `fuse_options`, they mean the same, and are saved beside the others."""
    flat, nested = (
        create_model("sfnet", **TINY, **given) for given in ({"flow_kernel": 5}, {"fuse_options": {"flow_kernel": 5}})
    )
    assert options_of(flat) == options_of(nested) and "fuse_options" not in options_of(flat)
    assert all(
        module.predict_flow.kernel_size == (5, 5) for module in nested.modules() if isinstance(module, FlowAlignment)
    )
    assert {"pixels", "channels", "affinity", "reduced"} <= model_options("ddsm_upernet").keys()


def test_context_and_merge_parts_have_options_too(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "context": "aspp",
        "context_options": {"rates": [2, 3]},
        "merge": "aligned",
        "merge_options": {"flow_kernel": 1},
    }
    model: Any = create_model("upernet", **TINY, **given)
    assert [branch[0].dilation for branch in model.decoder.context.branches] == [(1, 1), (2, 2), (3, 3)]
    assert all(fam.predict_flow.kernel_size == (1, 1) for fam in model.decoder.merge.fams)
    model.save_pretrained(tmp_path)
    loaded = from_pretrained(tmp_path)
    assert loaded.info.options == json.loads(json.dumps(model.info.options))
    images = torch.randn(1, 3, 40, 33)
    assert torch.equal(loaded(images), model.eval()(images))
