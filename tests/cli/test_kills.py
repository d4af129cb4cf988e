"""Commands that are killed at random times, and commands that write to one folder at the same time.

The environment variable CRISPSEG_KILLS is the number of kills of each command; 20 are a hundred kills in all.
"""

import csv
import fcntl
import json
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from commands import Capture, error_of
from contract.test_official import official
from drawn import draw
from PIL import Image
from safetensors.torch import load_file
from separate_processes import PROCESSES, command
from training_runs import FLAGS, of_many_opinions

from crispseg.io.files import LITTER, LOCK
from crispseg.io.images import write_image

KILLS = int(os.environ.get("CRISPSEG_KILLS", "1"))
NAMES = ("convert", "export", "import", "predict", "train")


def of_checkpoint(path: Path) -> Any:
    content = torch.load(path, weights_only=True)
    return content["global_step"], {name: tensor.tolist() for name, tensor in content["state_dict"].items()}


def of_table(path: Path) -> Any:
    with path.open(newline="", encoding="utf-8") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


READERS: dict[str, Callable[[Path], Any]] = {
    ".ckpt": of_checkpoint,
    ".csv": of_table,
    ".html": lambda path: re.sub(r"[\d.]+ min|time: [^<]*", "", path.read_text()),
    ".json": lambda path: json.dumps(json.loads(path.read_text())),
    ".onnx": lambda path: onnx.load(path).SerializeToString(deterministic=True),
    ".png": lambda path: np.asarray(Image.open(path)).tobytes(),
    ".safetensors": lambda path: {name: tensor.tolist() for name, tensor in load_file(path).items()},
}


def contents(root: Path) -> dict[str, Any]:
    """What the files of a folder hold, but for temporary ones; half of a file raises an error."""
    read = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and LITTER not in name and path.name != LOCK:
            content = READERS.get(path.suffix, Path.read_text)(path)
            read[name] = content.replace(str(root), "ROOT") if isinstance(content, str) else content
    return read


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs of the commands."""
    root = tmp_path_factory.mktemp("kills")
    for index in range(24):
        write_image(root / f"images/{index}.png", draw(index, 200, 300)[0])
        shape = {"label": "road", "points": [[1, 1], [60, 1 + index], [9, 50]], "shape_type": "polygon"}
        (root / f"images/{index}.json").write_text(json.dumps({"imagePath": f"{index}.png", "shapes": [shape]}))
    of_many_opinions(4).save_pretrained(root / "model")
    torch.save(official("sfnet_df1")[1], root / "official.pth")
    run(["--version"])  # the server of processes has imported what they need
    return root


def arguments(name: str, inputs: Path, root: Path) -> list[str]:
    """Arguments of a command that writes below a folder; a training that has begun is resumed."""
    out = root / ("out.onnx" if name == "export" else "out")
    if name == "train" and (out / "config.yaml").is_file():
        return ["train", "--resume", str(out)]
    words = {
        "convert": ["convert", inputs / "official.pth"],
        "export": ["export", inputs / "model", "--size=[64,64]"],
        "import": ["data", "import", inputs / "images"],
        "predict": ["predict", inputs / "model", inputs / "images"],
        "train": ["train", *FLAGS, "--epochs=4", "--checkpoint_every=1"],
    }
    return [*map(str, words[name]), "--out", str(out)]


def started(argv: list[str]) -> Any:
    process = PROCESSES.Process(target=command, args=(argv,))
    process.start()
    return process


def run(argv: list[str], seconds: float | None = None) -> Any:
    """Run a command, kill it after some seconds, and return its exit status."""
    process = started(argv)
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode


@cache
def undisturbed(name: str, inputs: Path) -> tuple[dict[str, Any], float]:
    """The result of a command, and its seconds."""
    root, start = Path(tempfile.mkdtemp(dir=inputs)), time.monotonic()
    assert run(arguments(name, inputs, root)) == 0
    return contents(root), time.monotonic() - start


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(KILLS))
@pytest.mark.parametrize("name", NAMES)
def test_a_killed_command_begins_again_or_goes_on(name: str, seed: int, inputs: Path, tmp_path: Path) -> None:
    expected, seconds = undisturbed(name, inputs)
    random, status = Random(f"{name} {seed}"), 0
    while status == 0:  # again if it has ended before
        seconds, root = random.uniform(0, seconds), Path(tempfile.mkdtemp(dir=tmp_path))
        status = run(arguments(name, inputs, root), seconds)
    left = contents(root)
    print(f"{name} {seed}: exit status {status} after {seconds:.2f} s, {len(left)} files of {len(expected)}")
    again = run(arguments(name, inputs, root))
    assert again == 0 or left == expected  # what is complete may be refused
    assert not [path for path in root.rglob("*") if LITTER in path.name or path.name == LOCK]
    files = contents(root)
    assert files.keys() == expected.keys()
    assert not [name for name in expected if files[name] != expected[name]]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_one_of_two_processes_writes(name: str, inputs: Path, tmp_path: Path, capsys: Capture) -> None:
    argv = arguments(name, inputs, tmp_path)
    process = started(argv)
    while not any(map(is_locked, tmp_path.rglob(LOCK))):
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        assert f"{argv[-1]} is in use by another process" in error_of(capsys, *argv)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    process.join()
    assert process.exitcode == 0
    assert contents(tmp_path) == undisturbed(name, inputs)[0]


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
