"""Simulate labelling of images that `crispseg label next` or chance selects, ten at a time, from 10 to 50.

    python benchmarks/label_next.py --root DATA --weights WEIGHTS --work runs/next [--data nuclei leaf] [--seeds 0 1 2]
    python benchmarks/label_next.py

DATA contains the folders `nuclei` and `leaf` of `first_result.py`. Both selections start with the same 10 images. Their
trainings start from ImageNet weights and have the same seed and number of steps. They are scored on val after the last
step. An interrupted command can be repeated. Without `--root`, the rows are printed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from crispseg.data.sources import LISTS

ROWS = Path(__file__).with_name("label_next.csv")
COLUMNS = ["data", "seed", "choice", "labelled", "steps", "miou"]
COUNT, MOST, STEPS = 10, 50, 200


def splits(data: str, root: Path) -> dict[str, list[str]]:
    if data == "nuclei":
        return {split: (LISTS / f"nuclei_{split}.txt").read_text().split() for split in ("train", "val")}
    return {split: sorted(file.stem for file in (root / f"images/{split}").iterdir()) for split in ("train", "val")}


def linked(data: str, root: Path, folder: Path, names: dict[str, Iterable[str]]) -> None:
    """Write a folder of links to the named images and masks of each split."""
    for split, each in names.items():
        for kind in ("images", "instances" if data == "nuclei" else "masks"):
            (folder / kind / split).mkdir(parents=True)
            for name in each:
                (file,) = root.glob(f"{kind}/{name}.*" if data == "nuclei" else f"{kind}/{split}/{name}.*")
                (folder / kind / split / file.name).symlink_to(file.resolve())


def crispseg(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "crispseg", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def trained(data: str, folder: Path, seed: int, weights: str) -> float:
    """Train on a folder of links, and return mIoU after the last step."""
    masks = ["--data.instances", folder / "instances", "--data.classes", "background,nucleus,border"]
    masks = masks if data == "nuclei" else ["--data.masks", folder / "masks"]
    run = ["--data.images", folder / "images", *masks, "--out", folder / "run", "--model.pretrained", weights]
    crispseg("train", *run, "--iterations", STEPS, "--val_every", 10**6, "--seed", seed, "--workers", 0)
    return float(pd.read_csv(folder / "run/metrics.csv").miou.iloc[-1])


def simulate(data: str, seed: int, root: Path, work: Path, weights: str) -> None:
    names = splits(data, root)
    order = random.Random(seed).sample(names["train"], len(names["train"]))
    if not (pool := work / f"{data}-pool").exists():
        linked(data, root, pool, {"train": names["train"]})
    for choice in ("random", "next"):
        labelled = order[:COUNT]
        while True:
            count = len(labelled)
            folder = work / f"{data}-{seed}-{choice if count > COUNT else 'first'}-{count}"
            if not (folder / "miou.txt").is_file():
                shutil.rmtree(folder, ignore_errors=True)
                linked(data, root, folder, {"train": labelled, "val": names["val"]})
                (folder / "miou.txt").write_text(str(trained(data, folder, seed, weights)))
            row = [data, seed, choice, count, STEPS, float((folder / "miou.txt").read_text())]
            rows = [pd.read_csv(ROWS)] if ROWS.is_file() else []
            pd.concat([*rows, pd.DataFrame([row], columns=COLUMNS)]).drop_duplicates(COLUMNS[:5]).to_csv(
                ROWS, index=False
            )
            if count == MOST:
                break
            if choice == "random":
                labelled = order[: count + COUNT]
            else:
                out = folder / "next"
                shutil.rmtree(out, ignore_errors=True)
                crispseg("label", "next", folder / "run", pool / "images", "--out", out, "--count", COUNT)
                labelled = [*labelled, *(Path(line).stem for line in (out / "next.txt").read_text().split())]


def show() -> None:
    table = pd.read_csv(ROWS).pivot_table(index=["data", "seed", "choice"], columns="labelled", values="miou")
    print(table.round(1).to_markdown())


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--root", type=Path)
    made.add_argument("--weights")
    made.add_argument("--work", type=Path, default=Path("runs/next"))
    made.add_argument("--data", nargs="+", default=["nuclei", "leaf"])
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    given = made.parse_args()
    if given.root:
        for seed in given.seeds:
            for data in given.data:
                simulate(data, seed, given.root / data, given.work, given.weights)
    show()


if __name__ == "__main__":
    main()
