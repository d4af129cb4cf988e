"""The papers' figures: which ones a model gives, what is in them, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crispseg.imaging import read_image
from crispseg.inspection import agln, ddsm, inspect_image, sfnet, unept
from crispseg.inspection.common import distinct_names
from crispseg.inspection.figures import figures, save_figures
from crispseg.inspection.maps import HEAT, heat_map, pca_maps, principal, scaled
from tests.inspection.models import lively, scene

FIGURES = {
    "sfnet": [f"sfnet_figure_{number}" for number in (2, 4, 5, 6, 7, 8)],
    "ddsm_upernet": ["ddsm_figure_1", "ddsm_figure_4"],
    "agln": [f"agln_figure_{number}" for number in (1, 3, 5, 6)],
    "unept": ["unept_figure_1", "unept_figure_3", "unept_figure_4", "unept_sampling"],
    "fpn": [],
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_each_system(name: str, tmp_path: Path) -> None:
    image, truth = scene()
    ours, theirs = inspect_image(lively(name), image, truth), inspect_image(lively("fpn"), image, truth)
    paths = save_figures(tmp_path, ours, theirs)
    assert [path.name for path in paths] == [f"image_{figure}.png" for figure in FIGURES[name]]
    for path in paths:
        picture = read_image(path)
        assert picture.ndim == 3 and picture.std() > 10


def test_a_second_model_has_columns_of_its_own() -> None:
    image, truth = scene()
    ours, theirs = inspect_image(lively("agln"), image, truth), inspect_image(lively("fpn"), image, truth)
    for figure in (agln.figure_1, agln.figure_3, agln.figure_6, ddsm.figure_1, sfnet.figure_6, unept.figure_3):
        assert figure(ours, theirs).shape[1] > figure(ours).shape[1]
    dcn = inspect_image(lively("fpn", fuse="dcn"), image, truth)
    flowing = inspect_image(lively("sfnet"), image, truth)
    assert sfnet.figure_4(flowing, dcn).shape[1] > sfnet.figure_4(flowing).shape[1]
    assert np.array_equal(figures(flowing, dcn)["sfnet_figure_4"], sfnet.figure_4(flowing, dcn))
    assert np.array_equal(figures(flowing, theirs)["sfnet_figure_4"], sfnet.figure_4(flowing))


def test_models_of_one_name_are_told_apart() -> None:
    image = scene()[0]
    ours, plain = inspect_image(lively("sfnet"), image), inspect_image(lively("sfnet", fuse="add"), image)
    names = {
        "fpn": inspect_image(lively("fpn"), image),
        "sfnet, fuse add": plain,
        "sfnet, the other": inspect_image(lively("sfnet"), image),
    }
    for name, theirs in names.items():
        found = distinct_names(ours, theirs)
        assert found == [name, "sfnet, fuse fam" if theirs is plain else "sfnet"]
    elsewhere = dataclasses.replace(ours, info=dataclasses.replace(ours.info, backbone="resnet18"))
    assert distinct_names(ours, elsewhere) == ["sfnet, resnet18", f"sfnet, {ours.info.backbone}"]
    assert distinct_names(ours, None) == ["sfnet"]


def test_speed_and_accuracy() -> None:
    rows = [("fast", 120.0, 70.0), ("slow", 20.0, 78.0)]
    one, both = sfnet.figure_1(rows[:1]), sfnet.figure_1(rows)
    blue = [(np.abs(each.astype(int) - (30, 100, 255)).sum(-1) < 9) for each in (one, both)]
    assert blue[1].sum() > 1.5 * blue[0].sum() > 0
    columns, lines = (np.nonzero(blue[1].any(axis))[0] for axis in (0, 1))
    left, right = blue[1][:, : columns.mean().astype(int)], blue[1][:, columns.mean().astype(int) :]
    assert np.nonzero(left)[0].mean() < lines.mean() < np.nonzero(right)[0].mean()  # the slow one is higher


def test_features_are_means_over_channels_from_blue_to_red() -> None:
    found = inspect_image(lively("fpn"), scene()[0])
    values = torch.zeros(3, 2, 2)
    values[:, 0, 0], values[:, 1, 1] = torch.tensor([-1.0, -2, -3]), torch.tensor([4.0, 0, 5])
    drawn = heat_map(values, found)
    assert drawn.shape == (64, 96, 3)
    low, high = scaled(np.array([[0.0, 1.0]]), colors=HEAT)[0]
    np.testing.assert_array_equal(drawn[0, 0], low)
    np.testing.assert_array_equal(drawn[-1, -1], high)


def test_principal_components_colour_alike_what_is_alike() -> None:
    found = inspect_image(lively("fpn"), scene()[0])
    values = torch.zeros(6, 8, 12)
    values[:, :, :4], values[:, :, 4:8] = torch.randn(6, 1, 1), torch.randn(6, 1, 1)
    (drawn,) = (picture.astype(int) for picture in pca_maps([values], found))
    assert np.ptp(drawn[:, :20], axis=(0, 1)).max() <= 2
    assert abs(drawn[0, 0] - drawn[0, 48]).max() > 60
    mean, axes = principal(values.flatten(1))
    assert mean.shape == (6,) and axes.shape == (3, 6)
    torch.testing.assert_close(axes[:2] @ axes[:2].T, torch.eye(2), atol=1e-4, rtol=0)


def test_principal_components_of_several_maps_compare() -> None:
    found = inspect_image(lively("fpn"), scene()[0])
    one, other = torch.randn(6, 8, 12), 5 * torch.randn(6, 8, 12)  # one's colours alone would be as strong as other's
    other[:, :, :6] = one[:, :, :6]
    first, second = pca_maps([one, other], found)
    np.testing.assert_array_equal(first[:, :40], second[:, :40])
    assert first[:, 60:].std() < second[:, 60:].std() / 2


@pytest.mark.parametrize(
    ("figure", "phrase"),
    [
        (sfnet.figure_2, "flow alignment module"),
        (sfnet.figure_5, "flow alignment module"),
        (ddsm.figure_4, "DDSM with both affinities"),
        (agln.figure_3, "semantic distribution module"),
        (agln.figure_5, "semantic distribution module"),
        (unept.figure_4, "boundary refinement"),
        (unept.sampling_figure, "cross-attention"),
        (unept.figure_1, "has no truth"),
        (agln.figure_1, "has no truth"),
    ],
)
def test_figures_of_what_is_not_there(figure: Any, phrase: str, refuses: Any) -> None:
    found = inspect_image(lively("fpn"), scene()[0])
    with refuses(phrase):
        figure(found)


def test_models_beside_each_other_see_the_same(refuses: Any) -> None:
    image, truth = scene()
    ours = inspect_image(lively("fpn"), image, truth)
    with refuses("different images"):
        agln.figure_1(ours, inspect_image(lively("fpn"), image[:, ::-1].copy(), truth))
