"""How fast data are fed to training and checked, on the CPU.

    python benchmarks/data_speed.py --root CAMVID

- Images a second that the training loader gives from its workers, augmented as by the recipe camvid.yaml, over an epoch
  after one that does not count, with nothing else to do.
- Seconds that `crispseg doctor` takes for all pairs, in its threads, the second of two times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from processes import machine, positive, run
from rich.console import Console

from crispseg.data import Augment, CamVid, train_transform
from crispseg.data.loading import train_loader
from crispseg.doctor import diagnose, subject_of

RECIPE = Path(__file__).resolve().parent / "camvid.yaml"
HALF = (0.5, 0.5, 0.5)  # mean and std of the recipe's backbone


def images_per_second(data: CamVid, workers: int) -> float:
    """Images a second in the second epoch, from the first batch asked for to the last one given."""
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    augment = Augment(
        crop=tuple(recipe["augment"]["crop"]), scale=tuple(recipe["augment"]["scale"]), turn=False, photometric=False
    )
    transform = train_transform(augment, HALF, HALF)
    loader = train_loader(data.dataset("train"), transform, recipe["batch_size"], workers, seed=0)
    rate = 0.0
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        start = time.perf_counter()
        images = sum(len(batch[0]) for batch in loader)
        rate = images / (time.perf_counter() - start)
    return rate


def doctor_seconds(data: CamVid) -> tuple[int, float]:
    """How many pairs, and the seconds of the second time."""
    seconds, pairs = 0.0, 0
    for _ in range(2):
        start = time.perf_counter()
        pairs = len(diagnose(subject_of(data)).facts)
        seconds = time.perf_counter() - start
    return pairs, seconds


def report(given: argparse.Namespace) -> None:
    """Measure and print."""
    data, console = CamVid(given.root), Console(soft_wrap=True, highlight=False)
    console.print(machine())
    rate = images_per_second(data, given.workers)
    console.print(f"training loader, {given.workers} workers: {rate:.0f} images a second")
    pairs, seconds = doctor_seconds(data)
    console.print(f"doctor: {pairs} pairs in {seconds:.1f} s")


def main(argv: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--root", type=Path, required=True, help="folder of CamVid at 480×360")
    made.add_argument("--workers", type=positive, default=2, help="processes of the loader")
    run(made, argv, report)


if __name__ == "__main__":
    main()
