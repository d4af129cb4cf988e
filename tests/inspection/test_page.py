"""The page: what its numbers are worth, its size, and that it needs nothing from outside."""

import base64
import dataclasses
import io
import json
import re
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from crispseg.decoders import fuses
from crispseg.inspection.fields import flow_of, payload, sampled_points
from crispseg.inspection.page import inspection_page
from tests.inspection.models import SYSTEMS, inspected

KINDS = {"crisp": {"flow"}, "sfnet": {"flow"}, "ddsm_upernet": {"points"}, "unept": {"points"}}


def unpacked(value: dict[str, str], *shape: int) -> NDArray[Any]:
    array = np.frombuffer(zlib.decompress(base64.b64decode(value["data"])), value["type"])
    return array.reshape(*shape, -1) if shape else array


@pytest.mark.parametrize("name", SYSTEMS)
def test_page_is_whole_by_itself(name: str) -> None:
    html = inspection_page(inspected(name))
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", html)
    assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)\w+\.\w", re.sub(r"base64,[^\"]*", "", html))
    assert "default-src 'none'" in html
    assert re.findall(r"<script(?: type=\"([^\"]*)\")?", html) == ["application/json", ""]
    data = json.loads(re.search(r'<script type="application/json" id="inspection">(.*?)</script>', html)[1])  # type: ignore[index]
    assert {field["kind"] for field in data["fields"]} == KINDS.get(name, set())
    assert ("Boundary refinement" in html) == (name == "unept")
    assert ("Semantic flow" in html) == (name in ("crisp", "sfnet"))
    for title in ("prediction", "truth", "errors", "confidence"):
        assert f'data-layer="{title}"' in html


@pytest.mark.slow
@pytest.mark.parametrize("fuse", fuses.names())
def test_a_page_for_every_fuse(fuse: str) -> None:
    html = inspection_page(inspected("crisp", fuse=fuse))
    assert ("Semantic flow" in html) == (fuse in ("fam", "gdfam", "sharp_flow"))


def test_points_of_deformable_convolutions() -> None:
    inspection = inspected("sfnet", fuse="dcn")
    points = sampled_points(inspection)
    assert len(points) == 3
    dy, dx = inspection.tap("decoder.fuses.0", "offset")[[8, 9], 3, 5]  # of the kernel's middle point
    finest = next(entry for entry in points if entry.title == "F3 → F2")
    expected = [(5 + dx) * np.diff(finest.xs)[0], (3 + dy) * np.diff(finest.ys)[0]]
    np.testing.assert_allclose(finest.xy[3, 5, 0, 4], expected, rtol=1e-4)
    np.testing.assert_allclose(finest.weights.sum(-1), 1, rtol=1e-5)


def test_background_and_right_pixels_are_not_laid_over_the_image() -> None:
    inspection = inspected("fpn")
    info = dataclasses.replace(inspection.info, class_names=("background", *inspection.label_set.names[1:]))
    labels = inspection.labels.copy()
    labels[0, :2] = 0, 1
    truth = np.where(np.arange(96) < 5, labels, 3).astype(np.uint8)
    html = inspection_page(dataclasses.replace(inspection, info=info, labels=labels, truth=truth))
    for layer, seen in (("prediction", labels != 0), ("errors", labels != truth)):
        (source,) = re.findall(rf'style="--clear: rgb\([\d, ]+\)" data-layer="{layer}".*?base64,([^"]*)"', html)
        picture = Image.open(io.BytesIO(base64.b64decode(source))).convert("RGBA")
        assert np.array_equal(np.array(picture)[..., 3] == 255, seen)


def test_names_are_text() -> None:
    inspection = inspected("fpn")
    wicked = tuple(f"</script><img src=x onerror=alert({index})>" for index in range(12))
    info = dataclasses.replace(inspection.info, class_names=wicked)
    html = inspection_page(dataclasses.replace(inspection, info=info, name='<b>street</b>"'))
    assert "<img src=x" not in html and "<b>street</b>" not in html and "&lt;b&gt;street&lt;/b&gt;&#34;" in html
    assert html.count("</script>") == 2


def test_flow_survives_the_way_to_the_page() -> None:
    inspection = inspected("sfnet")
    for field, part in zip(payload(inspection)["fields"], inspection.of("fam"), strict=True):
        kept = unpacked(field["vectors"], *field["size"][::-1]) * field["step"]
        np.testing.assert_allclose(kept, flow_of(inspection, part).permute(1, 2, 0), atol=field["longest"] / 30000)


@pytest.mark.parametrize("name", ["ddsm_upernet", "unept"])
def test_points_survive_the_way_to_the_page(name: str) -> None:
    inspection = inspected(name)
    fields = [field for field in payload(inspection)["fields"] if field["kind"] == "points"]
    for field, points in zip(fields, sampled_points(inspection), strict=True):
        assert field["every"] == 1
        kept = unpacked(field["places"]).reshape(points.xy.shape) * field["step"]
        np.testing.assert_allclose(kept, points.xy, atol=0.05)
        weights = unpacked(field["weights"]).reshape(points.weights.shape) / 255 * field["top"]
        np.testing.assert_allclose(weights, points.weights, atol=field["top"] / 500)
        np.testing.assert_allclose(field["xs"], points.xs, atol=1e-3)


def test_probabilities_survive_the_way_to_the_page() -> None:
    """To less than the last digit that is shown, a tenth of a percent."""
    inspection = inspected("fpn")
    kept = payload(inspection)["kept"]
    ids, shares = (unpacked(kept[key]).reshape(64, 96, kept["count"]) for key in ("ids", "shares"))
    assert (ids[..., 0] == inspection.labels).all()
    known = np.take_along_axis(inspection.probabilities.transpose(1, 2, 0), ids.astype(int), 2)
    np.testing.assert_allclose(shares / 65535, known, atol=1e-5)
