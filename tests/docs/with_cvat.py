"""`examples/cvat_function.py` in CVAT's auto-annotation, for tests/docs/test_examples.py."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock, patch

import numpy as np
from cvat_cli._internal.common import FunctionLoader
from cvat_sdk import masks
from cvat_sdk.api_client import ApiClient
from cvat_sdk.auto_annotation import annotate_task
from cvat_sdk.models import LabeledShapeRequest
from PIL import Image

from crispseg import Segmenter
from crispseg.data.annotations import draw_outlines

ROOT = Path(__file__).parents[2]
IMAGES = sorted((ROOT / "src/crispseg/data/free/nuclei/images").iterdir())[:2]
NUCLEUS = SimpleNamespace(name="nucleus", id=17, type="any", sublabels=[], attributes=[])  # label of a task


def pixels_of(shape: LabeledShapeRequest, height: int, width: int) -> np.ndarray:
    """The pixels `(H, W)` of a shape that a server would receive."""
    received = LabeledShapeRequest(**json.loads(json.dumps(ApiClient.sanitize_for_serialization(shape))))
    assert (received.label_id, received.source) == (NUCLEUS.id, "auto")
    if received.type.value == "mask":
        return masks.decode_mask(received.points, image_width=width, image_height=height)
    flat = np.zeros(height * width, bool)
    for start, end in draw_outlines("polygon", [received.points], height, width):
        flat[start:end] = True
    return flat.reshape(width, height).T


for options in ({}, {"conv_mask_to_poly": True}, {"conf_threshold": 0.9}):
    media = [SimpleNamespace(load_image=partial(Image.open, path)) for path in IMAGES]
    samples = [SimpleNamespace(frame_name="", frame_index=index, media=media[index]) for index in range(len(IMAGES))]
    client, function = MagicMock(), FunctionLoader(None, ROOT / "examples/cvat_function.py", {"model": "nuclei"}).load()
    dataset = SimpleNamespace(labels=[NUCLEUS], samples=samples)
    with patch("cvat_sdk.auto_annotation.driver.TaskDataset", return_value=dataset):
        annotate_task(client, 1, function, allow_unmatched_labels=True, **options)
    request = client.tasks.api.partial_update_annotations.call_args.kwargs["patched_labeled_data_request"]
    kind = "polygon" if "conv_mask_to_poly" in options else "mask"
    for index, path in enumerate(IMAGES):
        result = Segmenter("nuclei")(path)
        expected = (result.labels == 1) & (result.confidence() >= 255 * options.get("conf_threshold", 0))
        shapes = [shape for shape in request.shapes if shape.frame == index and shape.type.value == kind]
        np.testing.assert_array_equal(sum(pixels_of(shape, *expected.shape).astype(int) for shape in shapes), expected)
    print(options, len(request.shapes), "shapes")
