"""Features as colours: means over channels."""

from __future__ import annotations

import numpy as np
import torch

from crispseg.inspection.maps import HEAT, mean_map, scaled
from tests.inspection.models import inspected


def test_features_are_means_over_channels_from_blue_to_red() -> None:
    values = torch.zeros(3, 2, 2)
    values[:, 0, 0], values[:, 1, 1] = torch.tensor([-1.0, -2, -3]), torch.tensor([4.0, 0, 5])
    mean = mean_map(values, inspected("fpn"))
    assert mean.shape == (64, 96) and (mean[0, 0], mean[-1, -1]) == (-2, 3)
    drawn = scaled(mean, colors=HEAT)
    np.testing.assert_array_equal([drawn[0, 0], drawn[-1, -1]], scaled(np.array([[0.0, 1.0]]), colors=HEAT)[0])
