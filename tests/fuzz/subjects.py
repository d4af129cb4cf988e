"""Sound files, the commands that read them, and hostile values of all settings."""

import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import timm
import torch
from contract.test_official import official
from exports import exported
from PIL import Image
from separate_processes import free_port
from training_runs import varied

from crispseg.backbones import write_state_dict
from crispseg.cli.command import commands
from crispseg.cli.main import main
from crispseg.config.settings import Field, fields_of
from crispseg.training.settings import known_fields
from fuzz.hostile import put_other
from fuzz.readers import SIZE, encoded, readers
from fuzz.text_readers import YOLO_DATA, YOLO_LABELS, text_readers

TINY = "--preset=paper --model=sfnet --model.backbone=test_efficientnet --model.pretrained=false --model.width=8"
TINY += " --augment.crop=32 --augment.repeat=1 --batch_size=2 --workers=0 --loggers=[] --precision=fp32 --device=cpu"
TRAIN = f"train data {TINY} --out=out --iterations=1"
RESUME = "train --resume=half --epochs=2"
SCORES = "--workers=0 --bootstrap=2 --json=out.json"
PREDICT, BY_RUN = "predict a.onnx FILE --out=out", "predict varied images/rgb.png --out=out"
LABELS, TABLE, MASKS = "out/**/*.png", "out.json", "out/*/*.png"
LIST = "images/rgb.png\nimages/deep.png\nimages/rgba.png\n"
TRAINED, RESUMED = "out/model/model.safetensors", "half/model/model.safetensors"


class Subject(NamedTuple):
    """A command, in which FILE is the damaged file; the files to compare, and those to damage, one at a time."""

    argv: str
    written: str
    files: str


SUBJECTS = {
    "PNG": Subject(PREDICT, LABELS, "images/*.png"),
    "JPEG": Subject(PREDICT, LABELS, "images/*.jpg"),
    "WebP": Subject(PREDICT, LABELS, "images/*.webp"),
    "TIFF": Subject(PREDICT, LABELS, "images/*.tif"),
    "BMP, GIF and PNM": Subject(PREDICT, LABELS, "images/*.[bgp][migp][pfm]"),
    "JPEG 2000, AVIF and TGA": Subject(PREDICT, LABELS, "images/*.[jat][pvg][2ia]*"),
    "list of images": Subject("predict a.onnx FILE --out=out", LABELS, "list.txt"),
    "video": Subject("predict run FILE --out=out.mp4 --frame_masks", "clip_masks/*", "clip.mp4"),
    "images in a folder": Subject("doctor data --json=out.json", TABLE, "data/images/*"),
    "masks": Subject(f"evaluate run data {SCORES}", TABLE, "data/masks/[45].png"),
    "masks as TIFF": Subject("doctor tiffs --json=out.json", TABLE, "tiffs/masks/*"),
    "classes.txt": Subject(f"evaluate run data {SCORES}", TABLE, "data/classes.txt"),
    "split lists": Subject(f"evaluate run data --split=val {SCORES}", TABLE, "data/[tv]*.txt"),
    "excluded names": Subject(f"evaluate run data --data.exclude=FILE {SCORES}", TABLE, "exclude.txt"),
    "palette as JSON": Subject("doctor colors --palette=FILE --json=out.json", TABLE, "palette.json"),
    "palette as text": Subject("doctor colors --palette=FILE --json=out.json", TABLE, "palette.txt"),
    "COCO": Subject("data import COCO --out=out", MASKS, "COCO/coco.json"),
    "labelme": Subject("data import labelme --out=out", MASKS, "labelme/labelme.json"),
    "Label Studio": Subject("data import tasks --out=out", MASKS, "tasks/tasks.json"),
    "CVAT": Subject("data import CVAT --out=out", MASKS, "CVAT/annotations.xml"),
    "QuPath": Subject("data import GeoJSON --out=out", MASKS, "GeoJSON/a.geojson"),
    "YOLO": Subject("data import yolo --out=out", MASKS, "yolo/labels/a.txt"),
    "data.yaml": Subject("data import yolo --out=out", MASKS, "yolo/data.yaml"),
    "settings": Subject("train FILE --out=out --iterations=1", TRAINED, "train.yaml"),
    "config.yaml": Subject(f"evaluate run {SCORES}", TABLE, "run/config.yaml"),
    "resumed config.yaml": Subject(RESUME, RESUMED, "half/config.yaml"),
    "metrics.csv": Subject(RESUME, RESUMED, "half/metrics.csv"),
    "checkpoint": Subject(RESUME, RESUMED, "half/checkpoints/last.ckpt"),
    "config.json": Subject(BY_RUN, LABELS, "varied/config.json"),
    "model.safetensors": Subject(BY_RUN, LABELS, "varied/model.safetensors"),
    "weights": Subject(f"{TRAIN} --model.pretrained=FILE", TRAINED, "w.safetensors"),
    "weights as a pickle": Subject(f"{TRAIN} --model.pretrained=FILE", TRAINED, "w.pth"),
    "ONNX": Subject("predict FILE images/rgb.png --out=out", LABELS, "a.onnx"),
    "OpenVINO": Subject("predict FILE images/rgb.png --out=out", LABELS, "b.xml"),
    "weights of OpenVINO": Subject("predict b.xml images/rgb.png --out=out", LABELS, "b.bin"),
}
"""Commands that read files, by the kind of the file."""

COMMANDS = {
    "train": TRAIN,
    "distill": f"distill run data --unlabelled=tiffs/images {TINY} --out=out --iterations=1",
    "quickstart": "quickstart data --print_config",
    "evaluate": f"evaluate run {SCORES}",
    "compare": f"compare run run {SCORES}",
    "ablate": f"ablate run {SCORES}",
    "predict": "predict run images/rgb.png --out=out",
    "label next": "label next run images/rgb.png --out=out",
    "label errors": "label errors run --out=out",
    "inspect": "inspect run images/rgb.png --out=out.html",
    "export": "export run --out=out.onnx --calibrate=data --calibration_images=1",
    "doctor": "doctor data --json=out.json",
    "data import": "data import COCO --out=out",
    "benchmark": "benchmark run --size=[32,32] --json=out.json",
    "demo": f"demo run --port={free_port()}",
    "recipes": "recipes sfnet 1b.ppm",
    "convert": "convert ../official.pth --out=out",
    "list": "list",
    "data list": "data list",
}
"""Commands whose settings get hostile values."""

ANNOTATIONS = {"COCO": "COCO", "labelme": "labelme", "Label Studio": "tasks", "CVAT": "CVAT", "GeoJSON": "GeoJSON"}
ODD = {f"odd/{kind}": kind for kind in ("pipe", "loop", "empty", "folder", "binary")}
TEXTS: dict[str, tuple[str, ...]] = {
    "number": (*["0", "-1", "1", "0.5", "1e-300", "1e308", "-1e308", "nan", "inf", "2147483648"], 21 * "9"),
    "type": ("", " ", "text", "[]", "{}", "null", "true", "[1,2]", "{a: 1}", "-", "*", "é", "\1", 5000 * "9", "[a,a]"),
    "nest": ("[[1]]", "[[[1]]]", "{a: {a: 1}}", 5000 * "[", "&a [*a]", "[{}]", "[[]]", "[null]", "[nan]", "{a: [1]}"),
    "path": (*ODD, "none", "odd/empty/x", "/dev/zero", "/dev/null", "~", 300 * "a"),
}
"""Values of settings by kind."""


def keys_of(name: str) -> dict[str, Field]:
    """All keys of a command."""
    training = known_fields("sfnet", "folder") if name in ("train", "distill", "quickstart") else {}
    keys = {**commands[name].known_keys(), **training, **fields_of(commands[name])}
    if name == "quickstart":
        del keys["print_config"]  # without it, the command trains for minutes
    return keys


def words_of(name: str) -> tuple[str, ...]:
    return commands[name].words


def with_setting(name: str, key: str, text: str) -> list[str]:
    """The arguments of a command with another value of a setting, or of an argument without a flag."""
    argv, words = COMMANDS[name].split(), words_of(name)
    if key not in words:
        return [*argv, f"--{key}={text}"]
    place = len(name.split()) + words.index(key)
    return [*argv[:place], text, *argv[place + 1 :]]


def make_sound(place: Path) -> None:
    """Write all sound files; the working folder is `place`."""
    (place / "made").mkdir()
    sound = {name: reader.seeds for name, reader in (readers(place / "made") | text_readers()).items()}
    shutil.rmtree(place / "made")
    random = np.random.default_rng(0)
    values, ids = random.integers(0, 256, (6, *SIZE, 3), np.uint8), random.integers(0, 3, (6, *SIZE), np.uint8)
    colors = random.integers(0, 256, (3, 3), np.uint8)
    named = dict(zip(("sky", "road", "car"), colors.tolist(), strict=True))
    files = {f"images/{name}": content for name, content in sound["images"].items()}
    files |= {f"images/rgb.{suffix}": encoded(Image.fromarray(values[0]), suffix) for suffix in ("jp2", "avif", "tga")}
    for folder, masks, suffix in (("data", ids, "png"), ("tiffs", ids, "tif"), ("colors", colors[ids], "png")):
        for index in range(6):
            files[f"{folder}/images/{index}.{suffix}"] = encoded(Image.fromarray(values[index]), suffix)
            files[f"{folder}/masks/{index}.{suffix}"] = encoded(Image.fromarray(masks[index]), suffix)
    for kind, folder in ANNOTATIONS.items():
        files |= {f"{folder}/{name}": content for name, content in sound[kind].items()}
        files[f"{folder}/a.png"] = files["images/rgb.png"]
    files |= {
        "yolo/data.yaml": YOLO_DATA,
        "yolo/labels/a.txt": YOLO_LABELS,
        "yolo/images/a.png": files["images/rgb.png"],
    }
    texts = {"data/classes.txt": "sky\nroad\ncar\n", "data/train.txt": "0\n1\n2\n3\n", "data/val.txt": "4\n5\n"}
    texts |= {"exclude.txt": "4\n0.png\nimages/1.png\n", "list.txt": LIST, "palette.json": json.dumps(named)}
    texts["palette.txt"] = "".join(f"{red} {green} {blue} {name}\n" for name, (red, green, blue) in named.items())
    for name, content in (files | {name: text.encode() for name, text in texts.items()}).items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    (place / "odd").mkdir()
    for name, kind in ODD.items():
        put_other(kind, place / name)
    write_models(place, values)


def write_models(place: Path, values: np.ndarray) -> None:
    """A run, one to resume, settings, weights, exported files and a video."""
    for out, length in (("run", "--iterations=1"), ("half", "--epochs=1")):
        assert main([*TRAIN.split()[:-2], length, f"--out={out}"]) == 0
    with redirect_stdout(io.StringIO()) as printed:
        assert main([*TRAIN.split(), "--print_config"]) == 0
    (place / "train.yaml").write_text(printed.getvalue())
    varied("sfnet", 3, width=8).save_pretrained(place / "varied")
    weights = timm.create_model("test_efficientnet").state_dict()
    write_state_dict(weights, place / "w.safetensors")
    torch.save(weights, place / "w.pth")
    torch.save(official("sfnet_df1")[1], place.parent / "official.pth")
    exported(place / "a.onnx")
    exported(place / "b.xml")
    with av.open(place / "clip.mp4", "w") as video:
        stream = video.add_stream("mpeg4", 10, width=SIZE[1], height=SIZE[0], pix_fmt="yuv420p")
        for frame in values:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        video.mux(stream.encode())
