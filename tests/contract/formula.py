"""Weights and images by formula, so that no weights have to be kept; and what was measured, read and compared."""

import contextlib
import io
import json
import math
import sys
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from crispseg.cli.main import main

HERE = Path(__file__).parent
FROZEN = HERE / "frozen"
BOOK = np.float32((np.arange(16) - 7.5) / 4.61)
SIZES = ((37, 51), (65, 96))
SAMPLES = 200
RENAMED: dict[str, str] = {
    "model.enlarge": "model.inference_scale",
    "model.centred": "model.align_corners",
    "model.residual": "model.block",
    "accelerator": "device",
    "bf16": "precision",
}
"""Keys of the command line and options of models (`model.NAME`) that have another name now."""
NEGATED = {"model.centred"}
"""Those whose new name says the opposite."""


def name_now(key: str, known: Collection[str]) -> str:
    """The name that a key has in a version that knows these."""
    return key if key in known else RENAMED.get(key, key)


def pick(key: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """Sixteen values about 0, drawn by the key."""
    return np.asarray(BOOK[np.random.RandomState(zlib.crc32(key.encode())).randint(0, 16, tuple(shape))])


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """A state dict of these keys and shapes."""
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
            continue
        value = pick(key, shape)
        if len(shape) > 1:
            value = value * np.float32(np.sqrt(2 / max(np.prod(shape[1:]), 1)))
        elif key.endswith("running_var"):
            value = 1 + abs(value) / 4
        elif key.endswith(("running_mean", "bias")):
            value = value / 10
        else:
            value = 1 + value / 10
        state[key] = torch.from_numpy(np.asarray(value, np.float32))
    return state


def image(size: Sequence[int], channels: int = 3) -> Tensor:
    """A normalised image, `(1, C, H, W)`."""
    return torch.from_numpy(pick("image", (1, channels, *size)))


def picture(size: Sequence[int], seed: int = 0) -> NDArray[np.uint8]:
    """A smooth image, `(H, W, 3)`."""
    y, x = np.mgrid[: size[0], : size[1]]
    random = np.random.RandomState(seed)
    waves = [sum(np.sin((a * x + b * y) / 9 + c) for a, b, c in random.uniform(-2, 2, (4, 3))) for _ in range(3)]
    return np.uint8(np.clip(np.stack(waves, -1) * 40 + 128, 0, 255))


def samples(values: Any) -> NDArray[np.float32]:
    """Values of a tensor at places that follow from its size."""
    flat = np.asarray(values, np.float32).ravel()
    return flat[np.random.RandomState(flat.size % 2**31).randint(0, flat.size, SAMPLES)]


def assert_close(values: NDArray[Any], frozen: NDArray[Any], share: float = 1.0) -> None:
    """At least this share of the values is equal to 1e-4 of their spread."""
    assert values.shape == frozen.shape
    near = abs(values - frozen) <= 1e-4 * max(float(frozen.std()), 1e-3)
    assert near.mean() >= share, f"{(~near).sum()} of {near.size} differ, most {abs(values - frozen).max()}"


def assert_same(tree: Any, expected: Any, tolerance: float, place: str = "") -> None:
    """Two trees of JSON are equal, numbers relative to this tolerance; mappings may hold more than is expected."""
    if isinstance(expected, dict):
        assert expected.keys() <= tree.keys(), f"{place}: {expected.keys() - tree.keys()} missing"
        for key, value in expected.items():
            assert_same(tree[key], value, tolerance, f"{place}/{key}")
    elif isinstance(expected, list):
        assert len(tree) == len(expected), place
        for index, value in enumerate(expected):
            assert_same(tree[index], value, tolerance, f"{place}/{index}")
    elif isinstance(expected, int | float) and not isinstance(expected, bool) and isinstance(tree, int | float):
        assert math.isclose(tree, expected, rel_tol=tolerance, abs_tol=tolerance), f"{place}: {tree}, not {expected}"
    else:
        assert tree == expected, place


def shapes_of(module: nn.Module) -> dict[str, list[int]]:
    """Keys and shapes of a module's state."""
    return {key: list(value.shape) for key, value in module.state_dict().items()}


def saved(folder: Path, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> Path:
    """A folder as `save_pretrained` writes it, with weights by formula."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights(shapes), folder / "model.safetensors", {"format": "pt"})
    return folder


def run(*words: object) -> tuple[int, str]:
    """Exit status and standard output of a command."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        status = main([str(word) for word in words])
    print("$", *words, errors.getvalue(), file=sys.stderr)  # which is shown where a test fails
    return status, out.getvalue()


def write_png(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def frozen(name: str) -> Any:
    """What was measured: a dict of a JSON file, or the arrays of an npz file."""
    path = FROZEN / name
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    with np.load(path) as arrays:
        return dict(arrays)


def freeze(name: str, values: Mapping[str, Any]) -> None:
    """Write what was measured."""
    path = FROZEN / name
    if path.suffix == ".json":
        lines = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    else:
        np.savez_compressed(path, **values)
