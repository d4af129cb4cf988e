"""`examples/serve/`: the server without PyTorch, in a process of this environment and as its image installs it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import INFO, exported
from PIL import Image

from crispseg import Segmenter

from .test_python_page import ROOT, blocks

pytest.importorskip("onnxruntime")
pytest.importorskip("fastapi")
pytest.importorskip("httpx")


def photos(folder: Path) -> list[Path]:
    """Pictures of several sizes, modes and formats."""
    folder.mkdir()
    random, paths = np.random.default_rng(0), []
    for index, size in enumerate(((40, 64), (64, 40), (40, 64), (20, 70), (90, 33), (40, 64))):
        noise = Image.fromarray(random.integers(0, 256, (-(-size[0] // 8), -(-size[1] // 8), 3), np.uint8))
        noise = noise.resize(size[::-1], Image.Resampling.NEAREST)
        noise = noise.convert(("RGB", "RGB", "RGBA", "L", "P", "RGB")[index])
        path = folder / f"{index}.{'jpg' if index in (1, 5) else 'png'}"
        turned = Image.Exif()
        turned[0x0112] = 6 if index == 1 else 1
        noise.save(path, **({"exif": turned} if index == 1 else {}))
        paths.append(path)
    paths.append(folder / "6.png")
    Image.fromarray(np.kron(random.integers(50, 4000, (5, 8)), np.ones((8, 8))).astype(np.uint16)).save(paths[-1])
    return paths


FILES: dict[str, dict[str, Any]] = {
    "labels": {"output": "labels"},
    "logits_own_range": {"output": "logits", "value_range": "image"},
    "labels_own_range": {"output": "labels", "value_range": "image"},
    "labels_range": {"output": "labels", "value_range": (100.0, 3000.0)},
    "pixels": {"output": "labels", "input": "uint8"},
    "pixels_range": {"output": "logits", "input": "uint8", "value_range": (100.0, 3000.0)},
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What a process without PyTorch says of each file; its folder has the photos, the files and the responses."""
    root = tmp_path_factory.mktemp("served")
    photos(root / "photos")
    models = []
    for name, options in FILES.items():
        info = replace(INFO, value_range=options.get("value_range"))
        others = {key: value for key, value in options.items() if key != "value_range"}
        models.append(exported(root / f"{name}.onnx", info, **others))
    command = [sys.executable, Path(__file__).parent / "with_server.py", root / "photos", root, *models]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = dict(zip(FILES, map(json.loads, done.stdout.splitlines()[-len(FILES) :]), strict=True))
    return {name: {**outcomes, "root": root} for name, outcomes in results.items()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* has 16-bit values")
@pytest.mark.parametrize("name", FILES)
def test_a_process_without_torch_serves(name: str, served: dict[str, dict[str, Any]]) -> None:
    outcomes, root = served[name], served[name]["root"]
    segmenter, paths = Segmenter(root / f"{name}.onnx"), [*(root / "photos").iterdir()]
    for path in paths:
        with Image.open(root / name / f"{path.stem}.png") as response:
            expected = segmenter(path)
            assert np.array_equal(np.array(response), expected.labels), path
            colors = np.array(expected.label_set.palette, np.uint8)[expected.labels]
            assert np.array_equal(np.array(response.convert("RGB")), colors)
    assert outcomes["health"] == {"status": "ok", "classes": list(INFO.label_set().names), "requests": 0}
    assert sum(outcomes["batches"]) == len(paths) and max(outcomes["batches"]) > 1
    for case, status, phrase in (
        ("too many bytes", 413, "at most 40,000 bytes"),
        ("bytes in parts", 413, "at most 40,000 bytes"),
        ("too many pixels", 413, "11,000 pixels; send at most 10,000"),
        ("no image", 415, "cannot be read"),
        ("empty", 415, "cannot be read"),
        ("16 bits", 415, "16-bit colours"),
        ("CMYK", 415, "mode CMYK"),
        ("full", 503, "4 requests are in progress; try again"),
    ):
        assert outcomes[case][0] == status and phrase in outcomes[case][1], (case, outcomes[case])
    assert outcomes["then"] == 4 * [200]
    assert (outcomes["defect"], outcomes["after it"], outcomes["left"]) == (500, 200, 0)


@pytest.mark.filterwarnings("ignore:.* has 16-bit values")
@pytest.mark.parametrize("value_range", [None, "image", (100.0, 3000.0)])
def test_the_program_of_the_page_predicts(value_range: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    segmenter = Segmenter(exported(tmp_path / "mine.onnx", replace(INFO, value_range=value_range)))
    (program,) = [code for code in blocks("docs/export.md") if "eight_bits" in code]
    for path in photos(tmp_path / "photos"):
        if min(segmenter(path).labels.shape) >= 32:  # the file's smallest side
            names: dict[str, Any] = {}
            exec(program.replace("photo.jpg", f"photos/{path.name}"), names)
            assert np.array_equal(names["labels"], segmenter(path).labels), path


def test_the_program_of_pixels_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = exported(tmp_path / "mine.onnx", output="labels", input="uint8")
    segmenter = Segmenter(exported(tmp_path / "logits.onnx"))
    (program,) = [code for code in blocks("docs/export.md") if 'run(["labels"]' in code]
    *eight_bits, _ = photos(tmp_path / "photos")
    for path in [*eight_bits, *rarer_modes(tmp_path / "photos")]:
        if min(segmenter(path).labels.shape) >= 32:  # the file's smallest side
            names: dict[str, Any] = {}
            exec(program.replace("photo.jpg", f"photos/{path.name}"), names)
            assert np.array_equal(names["labels"], segmenter(path).labels), path
            assert np.array_equal(names["labels"], Segmenter(file)(path).labels), path


def rarer_modes(folder: Path) -> Iterator[Path]:
    """Yield pictures of modes that `photos` lacks."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    alpha = Image.linear_gradient("L").resize(noise.size)
    palette = noise.quantize(16)
    palette.info["transparency"] = 3
    pictures = {"grey.jpg": noise.convert("L"), "bits.png": noise.convert("1"), "key.png": palette}
    pictures["grey_alpha.png"] = Image.merge("LA", (noise.convert("L"), alpha))
    for name, picture in pictures.items():
        picture.save(folder / name)
        yield folder / name


def test_the_javascript_program_predicts(tmp_path: Path) -> None:
    node, modules = shutil.which("node"), os.environ.get("CRISPSEG_NODE_MODULES")
    if not (node and modules):
        pytest.skip("node is missing, or CRISPSEG_NODE_MODULES names no node_modules with onnxruntime-web")
    exported(tmp_path / "mine.onnx", output="labels", input="uint8")
    (tmp_path / "node_modules").symlink_to(modules)
    (program,) = re.findall(r"^```js\n(.+?)^```$", (ROOT / "docs/export.md").read_text(encoding="utf-8"), re.M | re.S)
    call = 'import fs from "fs"; const data = new Uint8ClampedArray(fs.readFileSync("rgba"));'
    call += 'fs.writeFileSync("labels", await labelsOf({ data, width: 57, height: 33 }));'
    (tmp_path / "page.mjs").write_text(program + call, encoding="utf-8")
    rgba = np.random.default_rng(0).integers(0, 256, (33, 57, 4), np.uint8)
    (tmp_path / "rgba").write_bytes(rgba.tobytes())
    done = subprocess.run([node, "page.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    labels = np.fromfile(tmp_path / "labels", np.uint8).reshape(33, 57)
    assert np.array_equal(labels, Segmenter(tmp_path / "mine.onnx")(rgba[..., :3]).labels)
