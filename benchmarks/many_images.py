"""Prediction of very many images: by processes that are killed, how many a second, and what a million would cost.

python benchmarks/many_images.py --images 100000 --kills 20 --price 0.10

Makes images of 64×64 pixels and predicts them with one process, with two, and with three of which one after the other
is killed by SIGKILL at random moments and started again. Every file must then be equal, byte by byte, to that of the
one process. Then Ray does the same on this machine. The model has random weights unless
--run names one. Needs '.[ray]'; without Ray, --ray false.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import processes
import torch

from crispseg import create_model
from crispseg.io.images import write_image

MILLION = 10**6
PER_FOLDER = 1000


class Measured(NamedTuple):
    """What it took."""

    way: str
    seconds: float
    start: float
    """Seconds of them before and after all images: libraries, model, list of images. 0 where it is not told apart."""


def main() -> None:
    """Measure, compare and print."""
    made = processes.parser(__doc__)
    made.add_argument("--images", type=processes.positive, default=300)
    made.add_argument("--kills", type=int, default=3)
    made.add_argument("--run", default=None, help="a trained model in place of a tiny one")
    made.add_argument("--price", type=float, default=0.10, help="of the machine, for an hour, in any currency")
    made.add_argument("--ray", default="true", choices=["true", "false"])
    made.add_argument("--seed", type=int, default=0, help="of the moments")
    processes.run(made, None, report)


def report(given: argparse.Namespace) -> None:
    """Everything, in a temporary folder."""
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_images(folder / "in", given.images)
        run = given.run or make_model(folder / "model")
        measured = []
        for count in (1, 2):
            seconds = undisturbed(run, folder, count)
            measured.append(Measured(f"{count} × crispseg predict", seconds, seconds - writing(folder / f"out{count}")))
        assert contents(folder / "out1") == contents(folder / "out2")
        began = time.perf_counter()
        kills = killed(run, folder, given.kills, measured[1].seconds * 2 / 3, random.Random(given.seed))
        measured.append(Measured(f"3 × crispseg predict, {kills} kills", time.perf_counter() - began, 0))
        assert contents(folder / "out1") == contents(folder / "killed"), "files differ"
        print(f"{given.images} images, {kills} kills of 3 processes: all files equal")
        if given.ray == "true":
            measured += [by_ray(run, folder, count) for count in (1, 2)]
    print(f"{processes.machine()}, {os.cpu_count()} cores, {given.threads} threads a process")
    print(f"cost of a million = {given.price:g} an hour / 3600 · (start + 1,000,000 / images a second)")
    print("| way | seconds | of which start | images a second | a million: hours | cost |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for way, seconds, start in measured:
        rate = given.images / (seconds - start)
        hours = (start + MILLION / rate) / 3600
        print(f"| {way} | {seconds:.1f} | {start:.1f} | {rate:.1f} | {hours:.1f} | {given.price * hours:.2f} |")


def make_images(folder: Path, count: int) -> None:
    """Noise in blocks of 4 pixels."""
    noise = np.random.default_rng(0)
    for number in range(count):
        pixels = noise.integers(0, 256, (16, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
        write_image(folder / f"{number // PER_FOLDER:04}/{number:07}.png", pixels)


def make_model(folder: Path) -> str:
    torch.manual_seed(0)
    create_model("fpn", num_classes=3, backbone="test_efficientnet", width=8).save_pretrained(folder)
    return str(folder)


def start(run: str, folder: Path, out: str, share: str) -> subprocess.Popen[bytes]:
    argv = ["predict", run, str(folder / "in"), "--out", str(folder / out), "--shard", share, "--device", "cpu"]
    return subprocess.Popen([sys.executable, "-m", "crispseg", *argv], stdout=subprocess.DEVNULL)


def undisturbed(run: str, folder: Path, count: int) -> float:
    """Seconds of so many processes, to the end of the last."""
    began = time.perf_counter()
    running = [start(run, folder, f"out{count}", f"{number}/{count}") for number in range(1, count + 1)]
    assert [each.wait() for each in running] == [0] * count
    return time.perf_counter() - began


def killed(run: str, folder: Path, kills: int, seconds: float, moments: random.Random) -> int:
    """Three processes to their end, and kills of them on the way; how many there were.

    Args:
        run: the model.
        folder: with the images.
        kills: at most; fewer if all processes have ended before.
        seconds: that three processes take at least, over which the kills are spread.
        moments: draws them, and who is killed.
    """
    shares = ("1/3", "2/3", "3/3")
    running = {share: start(run, folder, "killed", share) for share in shares}
    so_far = 0
    while so_far < kills:
        time.sleep(moments.uniform(0, 2 * seconds / (kills + 1)))
        alive = [share for share in shares if running[share].poll() is None]
        if not alive:
            break
        share = moments.choice(alive)
        running[share].kill()
        if running[share].wait() == -signal.SIGKILL:
            so_far += 1
            running[share] = start(run, folder, "killed", share)
    assert [running[share].wait() for share in shares] == [0, 0, 0]
    return so_far


def contents(folder: Path) -> dict[str, bytes]:
    """The checksum of each result; hidden files are what killed processes leave."""
    files = folder.rglob("[0-9]*.png")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest() for path in files}


def writing(folder: Path) -> float:
    """Seconds from the first image that was written to the last."""
    times = [path.stat().st_mtime for path in folder.rglob("*_overlay.png")]
    return max(times) - min(times)


def by_ray(run: str, folder: Path, workers: int) -> Measured:
    """Ray on this machine, which is started and ended."""
    import ray

    from crispseg.inference.ray_data import predict

    began = time.perf_counter()
    ray.init("local", num_cpus=workers + 1, include_dashboard=False, log_to_driver=False)
    out = folder / f"ray{workers}"
    found = predict(folder / "in", run, out=out, workers=workers).take_all()
    ray.shutdown()
    seconds = time.perf_counter() - began
    expected = {name: data for name, data in contents(folder / "out1").items() if not name.endswith("_overlay.png")}
    assert contents(out) == expected
    return Measured(
        f"Ray, workers={workers}, without overlays", seconds, seconds - sum(row["seconds"] for row in found) / workers
    )


if __name__ == "__main__":
    main()
