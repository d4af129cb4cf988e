import numpy as np
import pytest
from matplotlib import rc_context, rcParams

from crispseg import CrispsegError
from crispseg.labels import LabelSet
from crispseg.visualization.pictures import error_legend, error_map, for_display, numbered, overlay, panels

PALETTE = ((200, 0, 0), (0, 100, 0))
CLASSES = LabelSet(("sky", "road"), PALETTE)


def plain(height: int, width: int, level: int = 60) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_overlay_blends_and_spares_ignored_pixels() -> None:
    image, labels = plain(1, 3, 100), np.array([[0, 1, 255]], np.uint8)
    assert overlay(image, labels, CLASSES).tolist() == [[[150, 50, 50], [50, 100, 50], [100, 100, 100]]]
    assert np.array_equal(overlay(image, labels, CLASSES, 0), image)
    assert overlay(image, labels, CLASSES, 1).tolist() == [[[200, 0, 0], [0, 100, 0], [100, 100, 100]]]
    assert np.array_equal(image, plain(1, 3, 100))


def test_outlines_leave_the_inside_of_areas_free() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 1
    classes = LabelSet(("background", "leaf"), ((0, 0, 0), (0, 200, 0)))
    expected = np.full((20, 20, 3), 90, np.uint8)
    expected[5:15, 5:15] = 0, 200, 0
    expected[7:13, 7:13] = 90
    assert np.array_equal(overlay(np.full((20, 20, 3), 90, np.uint8), labels, classes, outlines=True), expected)


def test_objects_have_outlines_and_their_numbers() -> None:
    ids = np.zeros((40, 80), np.int32)
    ids[5:35, 5:35], ids[5:35, 45:75] = 1, 12
    left, right = np.split(numbered(plain(40, 80, 200), ids), 2, axis=1)
    inside = np.s_[8:32, 8:32]
    assert (left[5, 6:34] == left[5, 6]).all() and (left[5, 6] != right[5, 6]).any()
    written = [(half[inside] != 200).any(2).sum() for half in (left, right)]
    assert 20 < written[0] < written[1] < 250  # the digits
    assert (left[:5] == 200).all()
    assert numbered(plain(40, 80), ids, 20).shape == (10, 20, 3)


def test_only_dark_images_are_stretched_for_display() -> None:
    ramp = np.tile(np.arange(101, dtype=np.uint8)[None, :, None], (9, 1, 3))
    assert np.array_equal(for_display(ramp * 2), ramp * 2)
    shown = for_display(ramp)
    assert (shown.min(), shown.max()) == (0, 255) and (np.diff(shown.astype(int), axis=1) >= 0).all()


@pytest.mark.parametrize("opacity", [-0.1, 1.5, float("nan")])
def test_overlay_refuses_other_opacities(opacity: float) -> None:
    with pytest.raises(CrispsegError, match="opacity is"):
        overlay(plain(1, 1), np.zeros((1, 1), np.uint8), CLASSES, opacity)


@pytest.mark.parametrize("level", [0, 250])
def test_the_background_stays_as_it_is_on_dark_and_on_light_images(level: int) -> None:
    """Also that of a model whose background is black, as VOC's is."""
    labels = np.array([[0, 1]], np.uint8)
    seen = overlay(plain(1, 2, level), labels, LabelSet(("Background", "nucleus"), ((0, 0, 0), (200, 100, 0))))
    assert seen.tolist() == [[[level] * 3, [(level + 200) // 2, (level + 100) // 2, level // 2]]]


def test_errors_have_one_colour_for_each_kind() -> None:
    labels, truth = np.array([[0, 1, 0, 1, 2]], np.uint8), np.array([[0, 0, 1, 255, 1]], np.uint8)
    image = plain(1, 5, 200)
    for names, kinds in (
        (("background", "a", "b"), {"false alarm": 1, "missed": 2, "ignored": 3, "wrong class": 4}),
        (("sky", "a", "b"), {"wrong class": [1, 2, 4], "ignored": 3}),
    ):
        classes = LabelSet.colored(names)
        expected = np.full((1, 5, 3), 100)  # correct pixels are those of the image, half as bright
        errors = error_map(image, labels, truth, classes)
        legend = error_legend(errors)
        assert legend.keys() == kinds.keys()
        for kind, places in kinds.items():
            expected[0, places] = legend[kind]
        assert np.array_equal(errors, expected)
        assert error_legend(errors[:, :1]) == {}  # a correct pixel


@pytest.mark.parametrize("names", [(), ("sky", "a $ and $\\foo$"), tuple(map(str, range(40)))])
def test_panels_hold_every_image_and_the_legend_every_colour(names: tuple[str, ...]) -> None:
    palette = tuple((10 + index, 100, 77) for index in range(len(names)))
    levels = [[10, 20], [30, 40]]
    rows = [[plain(90, 120, level) for level in row] for row in levels]
    figure = panels(rows, ["a", "b"], LabelSet(names, palette).legend if names else ())
    for level in (level for row in levels for level in row):
        seen = (figure == level).all(-1)
        assert seen.sum() > 200 * 150 and seen.sum(1).max() / seen.sum(0).max() == pytest.approx(120 / 90, rel=0.1)
    assert all((figure == color).all(-1).sum() > 50 for color in palette)
    assert (figure[[0, -1]] == 255).all()
    with rc_context({"savefig.dpi": 300, "savefig.bbox": "tight", "font.size": 16}):  # a user's settings
        again = panels(rows, ["a", "b"], LabelSet(names, palette).legend if names else ())
        assert np.array_equal(again, figure) and rcParams["savefig.dpi"] == 300
