"""Commands that are killed at random times, and commands that write to one folder at the same time.

The environment variable CRISPSEG_KILLS is the number of kills of each command; 20 are a hundred kills in all.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
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
from drawn import as_flags, draw, drawn
from PIL import Image
from safetensors.torch import load_file
from separate_processes import PROCESSES, killed
from torch import Tensor
from training_runs import FLAGS, of_many_opinions

from crispseg.cli.main import main
from crispseg.io.files import LITTER, LOCK
from crispseg.io.images import write_image

KILLS = int(os.environ.get("CRISPSEG_KILLS", "1"))
ITERATIONS = [flag for flag in FLAGS if not flag.startswith(("--epochs", "--data"))]
NAMES = ("convert", "export", "import", "predict", "train")


def values(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def of_checkpoint(path: Path) -> Any:
    content = torch.load(path, weights_only=True)
    return content["global_step"], values(content["state_dict"])


def of_table(path: Path) -> Any:
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


READERS: dict[str, Callable[[Path], Any]] = {
    ".ckpt": of_checkpoint,
    ".csv": of_table,
    ".json": lambda path: json.dumps(json.loads(path.read_text())),
    ".onnx": lambda path: onnx.load(path).SerializeToString(deterministic=True),
    ".png": lambda path: np.asarray(Image.open(path)).tobytes(),
    ".safetensors": lambda path: values(load_file(path)),
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


@dataclass
class Commands:
    """Arguments of each command, and its undisturbed result and duration."""

    root: Path
    words: dict[str, list[str]]
    whole: Callable[[str], tuple[dict[str, Any], float]] = field(init=False)

    def __post_init__(self) -> None:
        self.whole = cache(self.undisturbed)

    def arguments(self, name: str, root: Path) -> list[str]:
        """Arguments of a command that writes below a folder; a training that has begun is resumed."""
        out = root / ("out.onnx" if name == "export" else "out")
        if name == "train" and (out / "config.yaml").is_file():
            return ["train", "--resume", str(out)]
        return [*self.words[name], "--out", str(out)]

    def undisturbed(self, name: str) -> tuple[dict[str, Any], float]:
        root = self.root / f"whole {name}"
        root.mkdir()
        start = time.monotonic()
        process = started(self.arguments(name, root))
        process.join()
        assert process.exitcode == 0
        return contents(root), time.monotonic() - start


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    root = tmp_path_factory.mktemp("kills")
    for index in range(24):
        write_image(root / f"images/{index}.png", draw(index, 200, 300)[0])
        shape = {"label": "road", "points": [[1, 1], [60, 1 + index], [9, 50]], "shape_type": "polygon"}
        (root / f"images/{index}.json").write_text(json.dumps({"imagePath": f"{index}.png", "shapes": [shape]}))
    of_many_opinions(4).save_pretrained(root / "model")
    torch.save(official("sfnet_df1")[1], root / "official.pth")
    data = as_flags(drawn(train=8, val=4, height=64, width=96))
    model, images, checkpoint = (str(root / name) for name in ("model", "images", "official.pth"))
    words = {
        "convert": ["convert", checkpoint],
        "export": ["export", model, "--size=[64,64]"],
        "import": ["data", "import", images],
        "predict": ["predict", model, images],
        "train": ["train", *ITERATIONS, *data, "--iterations=4", "--val_every=1", "--checkpoint_every=1"],
    }
    started(["--version"]).join()  # the server of processes has imported what they need
    return Commands(root, words)


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def started(argv: list[str]) -> Any:
    process = PROCESSES.Process(target=killed, args=(argv, 0))
    process.start()
    return process


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(KILLS))
@pytest.mark.parametrize("name", NAMES)
def test_a_killed_command_begins_again_or_goes_on(name: str, seed: int, commands: Commands, tmp_path: Path) -> None:
    expected, seconds = commands.whole(name)
    process = started(commands.arguments(name, tmp_path))
    process.join(Random(f"{name} {seed}").uniform(0, seconds))
    process.kill()
    process.join()
    left = contents(tmp_path)
    print(f"{name} {seed}: exit status {process.exitcode}, {len(left)} files of {len(expected)}")
    if left != expected:
        again = started(commands.arguments(name, tmp_path))
        again.join()
        assert again.exitcode == 0
    elif process.exitcode:  # complete, but killed before its last steps
        main(commands.arguments(name, tmp_path))
    assert not [path for path in tmp_path.rglob("*") if LITTER in path.name or path.name == LOCK]
    found = contents(tmp_path)
    assert found.keys() == expected.keys()
    assert not [name for name in expected if found[name] != expected[name]]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_one_of_two_processes_writes(name: str, commands: Commands, tmp_path: Path, capsys: Capture) -> None:
    arguments = commands.arguments(name, tmp_path)
    process = started(arguments)
    while not any(map(is_locked, tmp_path.rglob(LOCK))):
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        assert f"{arguments[-1]} is in use by another process" in error_of(capsys, *arguments)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    process.join()
    assert process.exitcode == 0
    assert contents(tmp_path) == commands.whole(name)[0]
