"""File names that are not UTF-8, and terminals that cannot show what is printed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import save

SMALL = [
    "--model=fpn",
    "--model.backbone=test_efficientnet",
    "--model.pretrained=false",
    "--workers=0",
    "--iterations=1",
]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_terminals_and_backends(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        image = rng.integers(0, 256, (64, 64, 3), np.uint8)
        save(tmp_path / f"data/images/{number}.png", image)
        save(tmp_path / f"data/masks/{number}.png", (image.mean(-1) > 128).astype(np.uint8))
    for kind in ("images", "masks"):
        (tmp_path / f"data/{kind}/3.png").rename(tmp_path / f"data/{kind}" / os.fsdecode(b"stra\xdfe \xe2\x98\x83.png"))
    cache = str(tmp_path / "cache")
    environment = {**os.environ, "CRISPSEG_CACHE": cache, "MPLBACKEND": "none"}
    commands = {
        "ascii": [
            "doctor data",
            "train data --out run " + " ".join(SMALL),
            "predict run data/images --out out --shares",
        ],
        "cp1252": ["evaluate run --split val", "train --resume run"],
    }
    for encoding, words in commands.items():
        environment["PYTHONIOENCODING"] = encoding
        program = f"from crispseg.cli.main import main; print([main(line.split()) for line in {words}])"
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True)
        assert done.stdout.endswith(f"{[0] * len(words)}\n".encode()), done.stderr.decode(errors="replace")
    assert os.fsencode(os.fsdecode(b"stra\xdfe")) in (tmp_path / "out/shares.csv").read_bytes()
