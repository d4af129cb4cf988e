"""Images per second from photographs of 1024×2048 to PNG files of labels: `crispseg predict` and hand-written loops.

    python benchmarks/predict_speed.py --data DATA --work runs/photographs
    python benchmarks/predict_speed.py --data DATA --work runs/photographs --images 1000 --minutes 600

`DATA` contains `leaf` and `aerial`. Photographs are enlarged cuts of their images, as PNG or JPEG of quality 90.

Each way has a process with as many processors as threads. The ways take turns of a few photographs until all are done
or the minutes are over. `predict` has default settings, so it also writes overlays; to exclude its start, its time for
the first photograph of a turn is subtracted from that for all. The loops use OpenCV and NumPy around the network in
float32: that of the run, also at half the height and width, and smp's FPN with the same backbone and random weights.
Rows are added to predict_speed.csv:

- `per_second` is the median over the turns, and `over_loop` the median ratio to the loop in the same turn.
- Stages are percentages of the time, medians over the turns. For `predict`, `network` is the time of the network alone,
  with folded batch norms, on normalised images in memory; `labels` includes the preparation. `reading` and `writing`
  are processor time; with two threads, they overlap with the network.
- `same_labels` is the percentage of pixels with the labels of `predict` in fp32.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import segmentation_models_pytorch as smp
import torch
from compare import head
from latency import folded, normalized

from crispseg import Segmenter
from crispseg.inference.device import processor_name
from crispseg.inference.runtime import open_model
from crispseg.io.images import find_images, read_image, read_mask
from crispseg.models import ModelInfo, SegmentationModel
from crispseg.prediction import predict_files

CSV = Path(__file__).with_name("predict_speed.csv")
SIZE = (2048, 1024)  # width and height of a photograph
CUT = 512  # largest height of a cut
STAGES = ["reading", "preparation", "network", "labels", "writing"]
PREDICT: dict[str, dict[str, Any]] = {
    "predict": {"backend": "torch", "precision": "fp32"},
    "predict, bf16": {"backend": "torch", "precision": "bf16"},
    "predict, OpenVINO bf16": {"backend": "openvino", "precision": "bf16"},
}
LOOP, HALF, FPN = "loop", "loop, half size", "loop, smp's FPN"


def use_processors(count: int) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    torch.set_grad_enabled(False)


def take_turn(way: str, run: str, photographs: Sequence[Path], out: Path) -> dict[str, float]:
    """Return the seconds of a turn and of its stages."""
    shutil.rmtree(out, ignore_errors=True)
    return predict(way, run, photographs, out) if way in PREDICT else loop(way, run, photographs, out)


def predict(way: str, run: str, photographs: Sequence[Path], out: Path) -> dict[str, float]:
    """Predict as the command does; then time the labels of one photograph in memory, and the network alone."""
    call = functools.partial(predict_files, run, device="cpu", **PREDICT[way])
    _, of_one = timed(lambda: call(photographs[:1], out / "first"))
    predictions, of_all = timed(lambda: call(photographs, out))
    count, image, segmenter = len(photographs), read_image(photographs[0]), segmenter_of(way, run)
    network, info = network_of(way, run)
    batch = normalized(image, info)
    _, labels = timed(lambda: segmenter.labels(image))
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "predict, bf16"):
        _, alone = timed(lambda: network(batch))
    stages = predictions.seconds | {"network": alone * count, "labels": (labels - alone) * count}
    return {"seconds": (of_all - of_one) * count / (count - 1), **stages}


@functools.cache
def segmenter_of(way: str, run: str) -> Segmenter:
    return Segmenter(run, "cpu", **PREDICT[way])


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = call()
    return result, time.perf_counter() - began


@functools.cache
def network_of(way: str, run: str) -> tuple[Any, ModelInfo]:
    """Return the network of a way, folded if `predict` folds it, and the settings of its images."""
    model = open_model(run, **PREDICT.get(way, {}))
    if way == FPN:
        encoder, classes = f"tu-{model.info.backbone}", model.info.num_classes
        return smp.FPN(encoder, encoder_weights=None, classes=classes).eval(), model.info
    is_folded = way in PREDICT and isinstance(model, SegmentationModel)
    return folded(model) if is_folded else model.eval(), model.info


def loop(way: str, run: str, photographs: Sequence[Path], out: Path) -> dict[str, float]:
    """Segment photographs one after the other, as in the examples of smp."""
    network, info = network_of(way, run)
    out.mkdir(parents=True)
    stages = np.zeros(len(STAGES))
    for path in photographs:
        clock = [time.perf_counter()]
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        clock.append(time.perf_counter())
        if way == HALF:
            image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        batch = normalized(image, info)
        clock.append(time.perf_counter())
        logits = network(batch)
        clock.append(time.perf_counter())
        labels = logits.argmax(1)[0].to(torch.uint8).numpy()
        if way == HALF:
            labels = cv2.resize(labels, SIZE, interpolation=cv2.INTER_NEAREST)
        clock.append(time.perf_counter())
        cv2.imwrite(str(out / f"{path.stem}.png"), labels)
        clock.append(time.perf_counter())
        stages += np.diff(clock)
    return {"seconds": stages.sum(), **dict(zip(STAGES, stages, strict=True))}


def photograph(given: argparse.Namespace, number: int, suffix: str) -> Path:
    """Return the path of a photograph, which is written if it does not exist."""
    path: Path = given.work / suffix / f"{number:04}.{suffix}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(number)
        images = find_images(given.data / ("leaf", "aerial")[number % 2] / "images")
        image = read_image(images[random.integers(len(images))])
        largest = min(image.shape[0], image.shape[1] // 2, CUT)
        height = random.integers(largest // 2, largest + 1)
        top, left = random.integers(image.shape[0] - height + 1), random.integers(image.shape[1] - 2 * height + 1)
        cut = image[top : top + height, left : left + 2 * height, ::-1]
        enlarged = cv2.resize(cut, SIZE, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(path), enlarged, [cv2.IMWRITE_JPEG_QUALITY, 90] if suffix == "jpg" else [])
    return path


def measure(given: argparse.Namespace, suffix: str, threads: int) -> pd.DataFrame:
    """Measure all ways in turns; return a row for each way and turn."""
    rows: list[dict[str, Any]] = []
    fork, labels = multiprocessing.get_context("fork"), given.work / "labels"
    with ExitStack() as stack:
        pools = {
            way: stack.enter_context(ProcessPoolExecutor(1, fork, initializer=use_processors, initargs=(threads,)))
            for way in (*PREDICT, LOOP, HALF, FPN)
        }
        first_two = [photograph(given, number, suffix) for number in range(2)]
        for way, pool in pools.items():  # warm-up
            pool.submit(take_turn, way, given.run, first_two, labels / way).result()
        began = time.monotonic()
        for turn, first in enumerate(range(0, given.images - given.turn + 1, given.turn), 1):
            photographs = [photograph(given, number, suffix) for number in range(first, first + given.turn)]
            for way, pool in pools.items():
                times = pool.submit(take_turn, way, given.run, photographs, labels / way).result()
                same = 100 * np.mean([agreement(labels, way, path.stem) for path in photographs])
                rows.append({"way": way, "turn": turn, "images": len(photographs), "same_labels": same, **times})
            if (time.monotonic() - began) * (turn + 1) / turn > 60 * given.minutes:
                break
    return pd.DataFrame(rows)


def agreement(labels: Path, way: str, name: str) -> float:
    """Return the share of the pixels with the labels of `predict`."""
    expected, actual = (read_mask(labels / folder / f"{name}.png") for folder in ("predict", way))
    return float((expected == actual).mean())


def summary(turns: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each way."""
    turns["per_second"] = turns["images"] / turns["seconds"]
    of_loop = turns[turns["way"] == LOOP].set_index("turn")["per_second"]
    turns["over_loop"] = turns["per_second"] / turns["turn"].map(of_loop)
    turns[STAGES] = 100 * turns[STAGES].div(turns["seconds"], axis=0)
    ways = turns.groupby("way", sort=False)
    digits = {"per_second": 3, "over_loop": 2, "same_labels": 2, **dict.fromkeys(STAGES, 1)}
    table = ways[[*digits]].median().round(digits)
    table.insert(0, "images", ways["images"].sum())
    return table.reset_index()


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, required=True, help="folder of leaf and aerial")
    made.add_argument("--work", type=Path, required=True, help="folder of photographs and labels")
    made.add_argument("--run", default="aerial", help="trained model")
    made.add_argument("--formats", nargs="+", choices=("jpg", "png"), default=["jpg", "png"])
    made.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    made.add_argument("--images", type=int, default=1000)
    made.add_argument("--turn", type=int, default=5, help="photographs of a turn, at least 2")
    made.add_argument("--minutes", type=float, default=4, help="at most, for a format and number of threads")
    made.add_argument("--csv", type=Path, default=CSV)
    given = made.parse_args()
    cv2.setNumThreads(1)  # threads would not survive in the forked processes
    for suffix, threads in itertools.product(given.formats, given.threads):
        table = summary(measure(given, suffix, threads)).assign(run=given.run, format=suffix, threads=threads)
        print(table.to_markdown(index=False), flush=True)
        table = table.assign(processor=processor_name(torch.device("cpu")), torch=torch.__version__, commit=head())
        table.to_csv(given.csv, mode="a", header=not given.csv.exists(), index=False)


if __name__ == "__main__":
    main()
