"""The papers' figures: which ones a model gives, what is in them, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crispseg.inspection import inspect_image
from crispseg.inspection.figures import FIGURES, figure, figures, names_of, save_figures, speed_figure
from crispseg.inspection.maps import HEAT, mean_map, pca_maps, principal, scaled
from crispseg.io.images import read_image
from tests.inspection.models import inspected, lively, scene

OF_SYSTEMS = {
    "sfnet": [f"sfnet_figure_{number}" for number in (2, 4, 5, 6, 7, 8)],
    "ddsm_upernet": ["ddsm_figure_1", "ddsm_figure_4"],
    "agln": [f"agln_figure_{number}" for number in (1, 3, 5, 6)],
    "unept": ["unept_figure_1", "unept_figure_3", "unept_figure_4", "unept_sampling"],
    "fpn": [],
}


@pytest.mark.parametrize("name", OF_SYSTEMS)
def test_figures_of_each_system(name: str, tmp_path: Path) -> None:
    paths = save_figures(tmp_path, inspected(name), inspected("fpn"))
    assert [path.name for path in paths] == [f"image_{each}.png" for each in OF_SYSTEMS[name]]
    for path in paths:
        picture = read_image(path)
        assert picture.ndim == 3 and picture.std() > 10


def test_a_second_model_has_columns_and_a_second_image_rows_of_its_own() -> None:
    ours, flowing, theirs = inspected("agln"), inspected("sfnet"), inspected("fpn")
    for name in (
        "agln_figure_1",
        "agln_figure_3",
        "agln_figure_6",
        "ddsm_figure_1",
        "sfnet_figure_6",
        "unept_figure_3",
    ):
        assert figure(name, ours, beside=theirs).shape[1] > figure(name, ours).shape[1]
    alone = figure("sfnet_figure_4", flowing)
    assert figure("sfnet_figure_4", flowing, beside=inspected("fpn", fuse="dcn")).shape[1] > alone.shape[1]
    assert np.array_equal(figures(flowing, theirs)["sfnet_figure_4"], alone)
    assert figure("sfnet_figure_5", flowing, flowing).shape[0] > figure("sfnet_figure_5", flowing).shape[0]


def test_options_choose_the_pixel_and_the_channels() -> None:
    ours = inspected("ddsm_upernet")
    middle = figure("ddsm_figure_4", ours)
    assert np.array_equal(figure("ddsm_figure_4", ours, x=47.5, y=31.5), middle)
    assert not np.array_equal(figure("ddsm_figure_4", ours, x=10, y=5), middle)
    assert figure("agln_figure_5", inspected("agln"), channels=[1, 3]).shape[1] < 600


def test_models_of_one_name_are_told_apart() -> None:
    ours, plain = inspected("sfnet"), inspected("sfnet", fuse="add")
    assert names_of(ours, inspected("fpn")) == ["sfnet", "fpn"]
    assert names_of(ours, plain) == ["sfnet, fuse fam", "sfnet, fuse add"]
    assert names_of(ours, ours) == ["sfnet", "sfnet, the other"]
    elsewhere = dataclasses.replace(ours, info=dataclasses.replace(ours.info, backbone="resnet18"))
    assert names_of(ours, elsewhere)[1] == "sfnet, backbone resnet18"


def test_speed_and_accuracy() -> None:
    both = speed_figure([("fast", 120.0, 70.0), ("slow", 20.0, 78.0)])
    blue = np.abs(both.astype(int) - (30, 100, 255)).sum(-1) < 9
    columns = np.nonzero(blue.any(0))[0]
    left, right = blue[:, : columns.mean().astype(int)], blue[:, columns.mean().astype(int) :]
    assert np.nonzero(left)[0].mean() < np.nonzero(right)[0].mean()  # the slow one is higher


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


def test_principal_components_are_those_of_the_singular_value_decomposition() -> None:
    values = torch.randn(6, 50)
    mean, axes = principal(values)
    torch.testing.assert_close(mean, values.mean(1))
    expected = torch.linalg.svd((values - mean[:, None]).T, full_matrices=False)[2][:3]
    torch.testing.assert_close(axes.abs(), expected.abs(), atol=1e-4, rtol=0)
    assert (axes.gather(1, axes.abs().argmax(1, keepdim=True)) > 0).all()
    assert not principal(torch.randn(2, 9))[1][2].any()


def test_principal_components_of_several_maps_compare() -> None:
    one, other = torch.randn(6, 8, 12), 5 * torch.randn(6, 8, 12)  # one's colours alone would be as strong as other's
    other[:, :, :6] = one[:, :, :6]
    first, second = pca_maps([one, other], inspected("fpn"))
    np.testing.assert_array_equal(first[:, :40], second[:, :40])
    assert first[:, 60:].std() < second[:, 60:].std() / 2


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        *((name, made.part) for name, made in FIGURES.items() if made.part),
        ("unept_figure_1", "has no truth"),
        ("agln_figure_1", "has no truth"),
        ("sfnet_figure_3", "did you mean 'sfnet_figure_"),
    ],
)
def test_figures_of_what_is_not_there(name: str, phrase: str, refuses: Any) -> None:
    with refuses(phrase):
        figure(name, dataclasses.replace(inspected("fpn"), truth=None))


def test_channels_that_are_not_there(refuses: Any) -> None:
    with refuses("no channel 99", "0 to 7"):
        figure("agln_figure_5", inspected("agln"), channels=[99])


def test_models_beside_each_other_see_the_same(refuses: Any) -> None:
    ours, (image, truth) = inspected("fpn"), scene()
    with refuses("different images"):
        figure("agln_figure_1", ours, beside=inspect_image(lively("fpn"), image[:, ::-1].copy(), truth))
    other = dataclasses.replace(ours.info, class_names=tuple(f"other {index}" for index in range(12)))
    with refuses("different classes"):
        figure("agln_figure_1", ours, beside=dataclasses.replace(ours, info=other))
