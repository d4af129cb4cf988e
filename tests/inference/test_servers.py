"""Predictions as the servers of Cityscapes, ADE20K and PASCAL VOC and labelling tools take them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from commands import Capture, error_of, output_of
from dataset_trees import make_cityscapes, photos, picture
from PIL import Image
from training_runs import files

from crispseg import Segmenter, create_model
from crispseg.data.importing import import_annotations
from crispseg.inference.servers import SERVERS
from crispseg.io.images import read_mask
from crispseg.labels import voc_palette


def saved(folder: Path, classes: int, names: tuple[str, ...] = ()) -> Path:
    model = create_model("fpn", num_classes=classes, backbone="test_efficientnet", width=8)
    model.info = dataclasses.replace(model.info, class_names=names)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cityscapes", [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]),
        ("ade20k", list(range(1, 151))),
        ("voc", list(range(21))),
    ],
)
def test_values(name: str, expected: list[int], tmp_path: Path) -> None:
    server = SERVERS[name]
    labels = np.arange(len(expected), dtype=np.uint8)[None]
    path = server.save(tmp_path, Path("in/berlin_000000_000019_leftImg8bit.png"), labels)
    with Image.open(path) as written:
        assert np.array(written)[0].tolist() == expected
        assert written.mode == ("P" if name == "voc" else "L")
        if name == "voc":
            palette = np.array(written.getpalette("RGB")).reshape(-1, 3)[:255]
            assert palette.tolist() == [list(color) for color in voc_palette(255)]


def test_cityscapes(tmp_path: Path, capsys: Capture) -> None:
    data = make_cityscapes(tmp_path / "data")
    images = Path(data.root) / "leftImg8bit/test"
    picture(images / "bonn/bonn_000046_000019_leftImg8bit.png", 40, 64)
    model = saved(tmp_path / "model", 19, data.label_set().names)
    output_of(capsys, "predict", model, images, "--out", tmp_path / "out", "--format=cityscapes")
    assert files(tmp_path / "out") == {"berlin_000000_000019_labelIds.png", "bonn_000046_000019_labelIds.png"}
    # Read as a mask, the prediction is what the segmenter says.
    labels = Segmenter(model, "cpu")(images / "bonn/bonn_000046_000019_leftImg8bit.png").labels
    decode = data.dataset("val").lookup
    assert np.array_equal(decode(np.array(Image.open(tmp_path / "out/bonn_000046_000019_labelIds.png"))), labels)


def test_mistakes(tmp_path: Path, capsys: Capture) -> None:
    model, out = saved(tmp_path / "model", 21), tmp_path / "out"
    image, other = (picture(tmp_path / name, 40, 64) for name in ("in/photo.png", "more/photo.jpg"))
    for form, images, folder, phrase in (
        ("cityscapes", [image], out, "photo.png has no Cityscapes name"),
        ("ade20k", [image], out, "the model has 21 classes, but ade20k has 150"),
        ("palette", [image], image.parent, "would mix results with the images"),
        ("voc", [image, other], out, "would both write"),
    ):
        assert phrase in error_of(capsys, "predict", model, *images, "--out", folder, "--format", form)
    assert not out.exists() or not files(out)


@pytest.mark.parametrize("kind", ["coco", "labelme"])
def test_predictions_are_imported(kind: str, model: Path, tmp_path: Path, capsys: Capture) -> None:
    images, out = photos(tmp_path / "photos", "a.jpg", "sub/b.jpg"), tmp_path / "out"
    output_of(capsys, "predict", model, images, "--out", out)
    printed = output_of(capsys, "predict", model, images, "--out", out, "--format", kind, "--resume")
    assert f"annotations in {out / kind}" in printed and "2 of them earlier" in printed  # masks do not depend on it
    names = [f"class {index}" for index in range(3)]
    import_annotations([out / kind], tmp_path / "in", images=images, classes=names, background=None)
    for name in ("a", "sub/b"):
        mask = read_mask(tmp_path / f"in/masks/{name}.png")
        np.testing.assert_array_equal(mask, read_mask(out / f"{name}.png"))
        assert len(np.unique(mask)) > 1
    again = error_of(capsys, "predict", model, images, "--out", out, "--format", kind)
    assert f"{out / kind} is not empty" in again
