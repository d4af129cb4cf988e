"""Fuse parts that carry a coarse level to fine pixels, in `crisp`: their cost and scores.

    python benchmarks/compare.py train upsamplers --runs runs/camvid --data CAMVID --weights WEIGHTS
    python benchmarks/compare.py score upsamplers --runs runs/camvid
    python benchmarks/first_result.py run --root DATA --weights WEIGHTS --work runs/first --seeds 0 \
        --data nuclei aerial leaf camvid --methods 'crisp --model.fuse=add' 'crisp --model.fuse=carafe' …
    python benchmarks/upsamplers.py cost      # rows in upsamplers.csv; run it on an idle machine
    python benchmarks/upsamplers.py report    # table of the rows; `docs/figures.py table` also draws them
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from first_result import ROWS as FIRST_RESULT
from reporting import mean_and_interval, mean_and_sd, read_rows, write_rows
from tables import TABLES

from crispseg import create_model
from crispseg.benchmarking.cost import count_multiply_adds, take_turns
from crispseg.inference.device import processor_name

TABLE = TABLES["upsamplers"]
FUSES = [entry.label for entry in TABLE.entries.values()]
COSTS = Path(__file__).resolve().with_name("upsamplers.csv")
SIZE = (360, 480)
BATCH, CROP = 8, 192
DATA = ("nuclei", "aerial", "camvid", "leaf")


def measure(rounds: int) -> None:
    """Write multiply-adds and milliseconds of `crisp` with each part: one image in eval mode, one training step."""
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    image = torch.randn(1, 3, *SIZE).contiguous(memory_format=torch.channels_last)
    crops = torch.randn(BATCH, 3, CROP, CROP).contiguous(memory_format=torch.channels_last)
    built = partial(create_model, "crisp", num_classes=11)
    models = {fuse: built(fuse=fuse).to(memory_format=torch.channels_last) for fuse in FUSES}

    def infer(model: torch.nn.Module) -> None:
        with torch.inference_mode():
            model.eval()(image)

    def step(model: torch.nn.Module) -> None:
        model.train()(crops).square().mean().backward()

    stages = [{"image": partial(infer, model), "step": partial(step, model)} for model in models.values()]
    machine = {"processor": processor_name(cpu), "torch": torch.__version__, "rounds": str(rounds)}
    rows = []
    for (fuse, model), times in zip(models.items(), take_turns(stages, rounds, 1, cpu), strict=True):
        costs = {f"{stage}_ms": f"{latency.median:.1f}" for stage, latency in times.items()}
        rows.append({"fuse": fuse, "multiply_adds": str(count_multiply_adds(model, *SIZE)), **costs, **machine})
    write_rows(COSTS, rows)


def short_scores() -> pd.DataFrame:
    """Return mIoU and boundary F of each part on `short`, with a row for each seed."""
    rows = pd.DataFrame(read_rows(TABLE.scores), columns=["model", "seed", "miou", "boundary_f_3"])
    labels = {name: entry.label for name, entry in TABLE.entries.items()}
    scores = rows.replace({"model": labels}).set_index(["model", "seed"]).astype(float).sort_index()
    return scores.rename(columns={"miou": "mIoU", "boundary_f_3": "F"})


def five_minutes() -> pd.DataFrame:
    """Return mIoU / boundary F of each part on each data set, from the latest rows of first_result.csv."""
    columns = ["data", "minutes", "images", "method", "seed", "miou", "boundary_f_3"]
    rows = pd.DataFrame(read_rows(FIRST_RESULT), columns=columns)
    rows = rows[(rows["minutes"] == "5") & (rows["images"] == "all") & (rows["seed"] == "0")]
    rows["fuse"] = rows["method"].str.extract(r"^crisp --model\.fuse=(\w+)$", expand=False)
    last = rows.dropna(subset="fuse").groupby(["fuse", "data"]).last()
    cells = last["miou"].astype(float).map("{:.1f} / ".format) + last["boundary_f_3"].astype(float).map("{:.1f}".format)
    return cells.unstack().reindex(columns=list(DATA))


def table() -> str:
    """Return the table of cost, scores with standard deviations, and gains over `add` with intervals of 95 %."""
    scores, costs = short_scores(), costs_of_parts()
    table = pd.DataFrame(index=pd.Index(FUSES, name="part"))
    table["G multiply-adds"] = costs["multiply_adds"].astype(float).div(1e9).map("{:.2f}".format)
    table["ms, image"], table["ms, step"] = costs["image_ms"], costs["step_ms"]
    if len(scores):
        others = scores.drop("add")
        gains = others - scores.loc["add"].reindex(others.index.get_level_values("seed")).to_numpy()
        table = table.join(mean_and_sd(scores)).join(mean_and_interval(gains)[["mIoU", "F"]].add_suffix(" over add"))
    table = table.join(five_minutes()).dropna(axis=1, how="all").fillna("")
    return str(table.rename(index="`{}`".format).to_markdown(disable_numparse=True))


def costs_of_parts() -> pd.DataFrame:
    """Return the rows of `measure` by part."""
    columns = ["fuse", "multiply_adds", "image_ms", "step_ms"]
    return pd.DataFrame(read_rows(COSTS), columns=columns).set_index("fuse")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    stages.add_parser("cost").add_argument("--rounds", type=int, default=15)
    stages.add_parser("report")
    given = parser.parse_args(argv)
    if given.stage == "cost":
        measure(given.rounds)
    else:
        print(table())


if __name__ == "__main__":
    main()
