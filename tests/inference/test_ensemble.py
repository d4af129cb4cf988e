"""Several models as one: the mean of their probabilities."""

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from crispseg import CrispsegError, create_model
from crispseg.inference import Segmenter
from crispseg.inference.ensemble import Ensemble
from crispseg.models import SegmentationModel


def tiny(seed: int, **options: Any) -> SegmentationModel:
    torch.manual_seed(seed)
    return create_model("fpn", num_classes=3, backbone="test_efficientnet", width=8, **options).eval()


@pytest.mark.parametrize("options", [{}, {"refine": "boundary"}])
@pytest.mark.parametrize("ways", [{}, {"tile": 128}, {"protocol": "unept-ms"}])
def test_probabilities_are_the_mean_of_the_members(options: dict[str, Any], ways: dict[str, Any]) -> None:
    members = [tiny(seed, **options) for seed in (0, 1)]
    ensemble = Ensemble(dict(zip("ab", members, strict=True))).eval()
    image = np.random.default_rng(0).integers(0, 256, (70, 150, 3), np.uint8)
    result = Segmenter(ensemble, **ways)(image)
    if not ways:
        mean = sum(Segmenter(member)(image).probabilities() for member in members) / 2
        np.testing.assert_allclose(result.probabilities(), mean, atol=1e-4)
        assert np.mean(result.labels == mean.argmax(0)) > 0.999
    again = pickle.loads(pickle.dumps(Segmenter(ensemble, **ways)))(image)
    assert np.mean(again.labels == result.labels) > 0.999


def test_members_have_the_same_classes() -> None:
    first, second = tiny(0), tiny(1)
    second.info = dataclasses.replace(second.info, class_names=("a", "b", "c"))
    with pytest.raises(CrispsegError, match="second and first"):
        Ensemble({"first": first, "second": second})
