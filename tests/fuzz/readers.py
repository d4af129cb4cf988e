"""Sound files of each kind, and how crispseg reads them."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from exports import exported
from PIL import Image

from crispseg import create_model, from_pretrained
from crispseg.backbones.weights import read_state_dict, write_state_dict
from crispseg.data.importing import import_annotations
from crispseg.inference.runtime import open_model
from crispseg.io.images import read_image, read_mask
from crispseg.training.checkpoints import AtomicCheckpointIO, read_checkpoint

SIZE = (24, 32)


@dataclass(frozen=True)
class Reader:
    """How a kind of files is read.

    Attributes:
        seeds: sound files, by name.
        read: reads a file; raises `CrispsegError` for one that is refused.
        checked: endings of files that hold checksums, so that damage is refused.
        text: whether damage is to text.
    """

    seeds: dict[str, bytes]
    read: Callable[[Path], Any]
    checked: tuple[str, ...] = ()
    text: bool = False


def readers(place: Path) -> dict[str, Reader]:
    """All kinds; `place` keeps what several inputs share."""
    random = np.random.default_rng(0)
    values, ids = random.integers(0, 256, (*SIZE, 4), np.uint8), random.integers(0, 3, SIZE, np.uint8)
    rgb, palette = Image.fromarray(values[..., :3]), Image.fromarray(ids)
    palette.putpalette(random.integers(0, 256, 768, np.uint8).tobytes())
    deep = Image.fromarray(values[..., 0].astype(np.uint16) * 200)
    images = {f"rgb.{suffix}": encoded(rgb, suffix) for suffix in ("png", "jpg", "webp", "tif", "bmp", "gif", "ppm")}
    images |= {"deep.png": encoded(deep, "png"), "deep.tif": encoded(deep, "tif", compression="tiff_adobe_deflate")}
    images |= {"rgba.png": encoded(Image.fromarray(values), "png")}
    planes = io.BytesIO()
    tifffile.imwrite(
        planes, values.transpose(2, 0, 1).astype(np.uint16), photometric="rgb", planarconfig="separate", tile=(16, 16)
    )
    images |= {
        "planes.tif": planes.getvalue(),
        "white.pgm": b"P5 32 24 65535\n" + (values[..., 0] * np.array(16, ">u2")).astype(">u2").tobytes(),
    }
    masks = {"ids.png": encoded(Image.fromarray(ids), "png"), "palette.png": encoded(palette, "png")}
    masks |= {"palette_2.png": encoded(palette, "png", bits=2), "bits.png": encoded(Image.fromarray(ids > 0), "png")}
    masks |= {"rgb.png": images["rgb.png"], "ids.tif": encoded(Image.fromarray(ids), "tif")}
    masks["ids.gif"] = encoded(palette, "gif")

    torch.manual_seed(0)
    model = create_model("fpn", num_classes=3, backbone="test_efficientnet", width=8)
    model.save_pretrained(place / "model")
    state = {f"model.{key}": value for key, value in model.state_dict().items() if value.numel() < 500}
    checkpoint = {"state_dict": state, "global_step": 7, "callbacks": {}}
    AtomicCheckpointIO().save_checkpoint(checkpoint, place / "last.ckpt")
    write_state_dict({key: value.contiguous() for key, value in state.items()}, place / "small.safetensors")
    rgb.save(place / "a.png")

    def described(path: Path) -> None:
        shutil.copy(place / "model/model.safetensors", path.with_name("model.safetensors"))
        from_pretrained(path.parent)

    files = [exported(place / name) for name in ("a.onnx", "b.xml")] + [place / "b.bin"]

    def opened(path: Path) -> Any:
        for file in files[1:] if path.stem == "b" else ():
            if file.name != path.name:
                shutil.copy(file, path.with_name(file.name))
        return open_model(path.with_suffix(".xml") if path.suffix == ".bin" else path)(torch.ones(1, 3, 40, 50))

    def imported(path: Path) -> None:
        shutil.copy(place / "a.png", path.with_name("a.png"))
        import_annotations([path], path.parent / "out")

    size = {"height": SIZE[0], "width": SIZE[1]}
    coco = {
        "images": [{"id": 10, "file_name": "a.png", **size}],
        "annotations": [
            {"id": 1, "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]], "category_id": 3, "image_id": 10},
            {"id": 2, "segmentation": {"size": SIZE, "counts": [100, 50, 618]}, "category_id": 3, "image_id": 10},
        ],
        "categories": [{"id": 3, "name": "dog"}],
    }
    shapes = [{"label": "tree", "points": [[1, 1], [9, 2], [5, 9]], "shape_type": "polygon"}]
    shapes.append({"label": "pole", "points": [[9, 9], [12, 12]], "shape_type": "circle"})
    labelme = {"imagePath": "a.png", "imageHeight": SIZE[0], "imageWidth": SIZE[1], "shapes": shapes}
    points = [[10, 10], [90, 10], [50, 90]]
    region = {"type": "polygonlabels", "value": {"points": points, "polygonlabels": ["dog"]}, "original_width": SIZE[1]}
    tasks = [{"data": {"image": "a.png"}, "annotations": [{"result": [region | {"original_height": SIZE[0]}]}]}]
    cvat = f'<annotations><image name="a.png" height="{SIZE[0]}" width="{SIZE[1]}">'
    cvat += '<polygon label="dog" points="1,1;9,1;9,9" z_order="0"/>'
    cvat += '<mask label="cat" rle="1,4,1" left="1" top="2" width="3" height="2"/></image></annotations>'
    return {
        "images": Reader(images, read_image, (".png",)),
        "masks": Reader(masks, read_mask, (".png",)),
        "config.json": Reader({"config.json": (place / "model/config.json").read_bytes()}, described, text=True),
        "safetensors": Reader(
            {"a.safetensors": (place / "small.safetensors").read_bytes()}, read_state_dict, (".safetensors",)
        ),
        "checkpoints": Reader({"last.ckpt": (place / "last.ckpt").read_bytes()}, read_checkpoint, (".ckpt",)),
        "exports": Reader({file.name: file.read_bytes() for file in files}, opened, (".onnx", ".xml", ".bin")),
        "COCO": Reader({"coco.json": json.dumps(coco).encode()}, imported, text=True),
        "Label Studio": Reader({"tasks.json": json.dumps(tasks).encode()}, imported, text=True),
        "CVAT": Reader({"annotations.xml": cvat.encode()}, imported, text=True),
        "labelme": Reader({"labelme.json": json.dumps(labelme).encode()}, imported, text=True),
    }


def encoded(picture: Image.Image, suffix: str, **options: Any) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, Image.registered_extensions()[f".{suffix}"], **options)
    return buffer.getvalue()
