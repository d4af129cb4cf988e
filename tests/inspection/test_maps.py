"""Features as colours: means over channels, and principal components."""

from __future__ import annotations

import numpy as np
import torch

from crispseg.inspection.maps import HEAT, mean_map, pca_maps, scaled
from tests.inspection.models import inspected


def test_features_are_means_over_channels_from_blue_to_red() -> None:
    values = torch.zeros(3, 2, 2)
    values[:, 0, 0], values[:, 1, 1] = torch.tensor([-1.0, -2, -3]), torch.tensor([4.0, 0, 5])
    mean = mean_map(values, inspected("fpn"))
    assert mean.shape == (64, 96) and (mean[0, 0], mean[-1, -1]) == (-2, 3)
    drawn = scaled(mean, colors=HEAT)
    np.testing.assert_array_equal([drawn[0, 0], drawn[-1, -1]], scaled(np.array([[0.0, 1.0]]), colors=HEAT)[0])


def test_principal_components_colour_alike_what_is_alike() -> None:
    values = torch.zeros(6, 8, 12)
    values[:, :, :4], values[:, :, 4:8] = torch.randn(6, 1, 1), torch.randn(6, 1, 1)
    (drawn,) = (picture.astype(int) for picture in pca_maps([values], inspected("fpn")))
    assert np.ptp(drawn[:, :20], axis=(0, 1)).max() <= 2
    assert abs(drawn[0, 0] - drawn[0, 48]).max() > 60
