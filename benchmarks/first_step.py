"""CPU seconds until the first step of a training: python benchmarks/first_step.py [IMAGES] [--package PATH/src].

It draws pairs of 512×512 PNG, and starts two trainings of one step in processes of their own. The first has an empty
cache of facts; the second finds the facts of all files there. With --package, another version of crispseg is measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

TRAINING = """
import resource, sys
import lightning as L
import crispseg

class Stop(L.Callback):
    def on_train_batch_start(self, *_):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        print("seconds", usage.ru_utime + usage.ru_stime, flush=True)

model = {"name": "fpn", "backbone": "test_efficientnet", "pretrained": False, "width": 8}
crispseg.train(sys.argv[1], out=sys.argv[2], model=model, iterations=1, workers=0, loggers=[],
               augment={"crop": 32, "repeat": 1}, batch_size=2, accelerator="cpu", callbacks=[Stop()])
"""


def draw(folder: Path, count: int) -> None:
    """Write images of smooth noise, and masks of four classes."""
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index in range(count):
        smooth = cv2.resize(random.integers(0, 256, (16, 16, 3), np.uint8), (512, 512), interpolation=cv2.INTER_CUBIC)
        noise = random.integers(-6, 7, (512, 512, 3))
        mask = cv2.resize(random.random((8, 8), np.float32), (512, 512)) * 4
        cv2.imwrite(str(folder / f"images/{index:05}.png"), np.clip(smooth + noise, 0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / f"masks/{index:05}.png"), mask.astype(np.uint8))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int, nargs="?", default=2000)
    parser.add_argument("--package", default=str(Path(__file__).parents[1] / "src"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        draw(Path(temporary, "data"), given.images)
        environment = os.environ | {"PYTHONPATH": given.package, "CRISPSEG_CACHE": f"{temporary}/cache"}
        for start in ("first", "second"):
            command = [sys.executable, "-c", TRAINING, f"{temporary}/data", f"{temporary}/{start}"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            (line,) = (line for line in done.stdout.splitlines() if line.startswith("seconds"))
            print(f"{start} start of {given.images} pairs: {float(line.split()[1]):.1f} CPU seconds")
