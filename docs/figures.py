"""Make the pictures of README.md and the site, and the tables of README.md and docs/results.md.

    python docs/figures.py all --data DATA --weights WEIGHTS     # about an hour on two processor cores
    python docs/figures.py table                                 # the tables, of the rows in benchmarks/

`scenes` trains two networks on the bundled images; `tutorial` runs the commands of docs/tutorial.md and photographs its
pages in Chromium; `papers` trains four networks on the data sets aerial and nuclei below DATA. WEIGHTS is a file of the
backbone's ImageNet weights; without it they are downloaded. Runs stay in runs/figures, and are not made again.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from selenium import webdriver

import crispseg
from crispseg.data import Aerial, Nuclei
from crispseg.io.files import atomic_path
from crispseg.io.images import colorize, write_image
from crispseg.labels import voc_palette
from crispseg.visualization.pictures import overlay, panels

ROOT = Path(__file__).resolve().parents[1]
ASSETS, RUNS = ROOT / "docs/assets", ROOT / "runs/figures"
BACKBONE = "tf_efficientnet_lite0"
WIDTH, PORT = 1280, 7871

SCENES = {"0121d6759c5a": (46, 150), "13f2bec0a24c": (110, 100), "b3b1626f8ad1": (115, 55)}
"""Bundled test images, and the upper left corner of the part that is enlarged."""

RESULTS = {
    "crisp": ("crisp", "[**`crisp`**](models.md#crisp), the default"),
    "crisp_s": ("crisp", "`crisp_s`, input not upscaled"),
    "crisp_l": ("crisp", "`crisp_l`, input upscaled 1.5×"),
    "smp_segformer": ("crisp", "smp `Segformer`"),
    "smp_segformer_larger": ("crisp", "smp `Segformer`, input upscaled 1.33× as by `crisp`"),
    "smp_upernet": ("crisp", "smp `UPerNet`"),
    "smp_fpn": ("crisp", "smp `FPN`"),
    "smp_deeplabv3plus": ("crisp", "smp `DeepLabV3Plus`"),
}
"""Networks of the frame and of other libraries: the CSV file that has each, and its label."""

FIVE_MINUTES = {
    "crispseg": "[`crisp`](docs/models.md#crisp), the default",
    "sfnet": "[`sfnet`](docs/papers/sfnet.md)",
    "sfnet_lite": "[`sfnet_lite`](docs/papers/sfnet.md)",
    "ddsm_upernet": "[`ddsm_upernet`](docs/papers/ddsm.md)",
    "ddsm_deeplabv3plus": "[`ddsm_deeplabv3plus`](docs/papers/ddsm.md)",
    "agln": "[`agln`](docs/papers/agln.md)",
    "agln_lite": "[`agln_lite`](docs/papers/agln.md)",
    "unept": "[`unept`](docs/papers/unept.md)",
    "loop_fpn": "plain loop, smp `FPN`",
    "loop_unet": "plain loop, smp `Unet`",
}
"""Rows of the README's table: the method in benchmarks/first_result.csv, and its label."""
DOMAINS = {"nuclei": "nuclei", "aerial": "aerial", "camvid": "streets (CamVid)", "leaf": "leaves"}

BENCHMARK = {
    **RESULTS,
    "sfnet": ("sfnet", "[SFNet](papers/sfnet.md)"),
    "ddsm_upernet": ("ddsm", "[UPerNet with DDSM](papers/ddsm.md)"),
    "unept_refined": ("unept", "[UN-EPT](papers/unept.md)"),
    "agln_residual": ("agln", "[AGLN](papers/agln.md)"),
    "wide": ("crisp", "`crisp` of 256 channels"),
    "sfnet_lite": ("crisp", "SFNet-Lite"),
    "upernet": ("ddsm", "UPerNet"),
    "deeplabv3plus": ("ddsm", "DeepLabV3+"),
    "ddsm_deeplabv3plus": ("ddsm", "DeepLabV3+ with DDSM"),
    "fpn": ("agln", "FPN"),
    "agln_lite_residual": ("agln", "AGLN-Lite"),
    "smp_unet": ("crisp", "smp `Unet`"),
    "smp_deeplabv3": ("crisp", "smp `DeepLabV3`"),
    "smp_pspnet": ("crisp", "smp `PSPNet`"),
    "lraspp": ("crisp", "torchvision LR-ASPP"),
}
"""Rows of the second table of docs/results.md, by boundary F."""

PAPERS = {
    "sfnet": ("aerial", "sfnet"),
    "ddsm": ("aerial", "ddsm_upernet --model.pixels 9 --model.fuse_levels [3,4]"),
    "agln": ("nuclei", "agln"),
    "unept": ("nuclei", "unept --model.points 4 --model.output_stride 16 --model.refine boundary"),
}
"""Networks of the papers' figures: the data they are trained on for three minutes, and their flags."""


def run(command: str, cwd: Path = ROOT) -> None:
    print(command, flush=True)
    subprocess.run([sys.executable, "-m", *shlex.split(command)], cwd=cwd, check=True)


def trained(name: str, flags: str, weights: str) -> Path:
    """The run of that name; it is trained if it is not there."""
    folder = RUNS / name
    if not (folder / "model").is_dir():
        pretrained = f"--model.backbone {BACKBONE} --model.pretrained {shlex.quote(weights)}"
        run(f"crispseg train {flags} {pretrained} --out {folder}")
    return folder


def scenes(weights: str) -> None:
    """Whole bundled test images, their ground truth, FPN and crisp after the same training, and an enlarged part."""
    networks = [
        crispseg.Segmenter(trained(f"scenes_{name}", f"--data nuclei --model {name} --iterations 600", weights))
        for name in ("fpn", "crisp")
    ]
    test = Nuclei().dataset("test")
    rows = []
    for name, (top, left) in SCENES.items():
        image, truth, _ = next(test[index] for index in range(len(test)) if test.name_of(index) == name)
        found = [
            colorize(labels, test.labels.palette) for labels in (truth, *(each(image).labels for each in networks))
        ]
        height, width = (side // 4 for side in truth.shape)
        part = np.s_[top : top + height, left : left + width]
        zoomed = [cv2.resize(each[part], image.shape[1::-1], interpolation=cv2.INTER_NEAREST) for each in found]
        framed = image.copy()
        cv2.rectangle(framed, (left, top), (left + width, top + height), (255, 220, 0), 2)
        rows.append([framed, *found, *zoomed])
    titles = ["image", "ground truth", "FPN", "crisp", "enlarged: ground truth", "FPN", "crisp"]
    save("scenes", panels(rows, titles, test.labels.legend))


def papers(data: Path, weights: str) -> None:
    """Figures in the manner of the papers, by examples/paper_figures.py."""
    shown = (Aerial(data / "aerial"), "tile2_008"), (Nuclei(data / "nuclei"), "337b6eed0726")
    for source, name in shown:
        dataset = source.dataset("val")
        image = next(dataset[index][0] for index in range(len(dataset)) if dataset.name_of(index) == name)
        write_image(RUNS / f"{source.name}.png", image[340:532, 240:496] if source.name == "aerial" else image)
    for name, (source_name, flags) in PAPERS.items():
        flags = f"--data {source_name} --data.root {data / source_name} --minutes 3 --model {flags}"
        folder = trained(name, flags, weights)
        script = [sys.executable, "examples/paper_figures.py", folder, RUNS / f"{source_name}.png", ASSETS / "figures"]
        subprocess.run(script, cwd=ROOT, check=True)
    for path in (ASSETS / "figures").glob("*_*.png"):
        save(path.stem, np.asarray(Image.open(path).convert("RGB")))


def tutorial() -> None:
    """Run the tutorial in an empty folder, and keep a picture of each step."""
    folder = RUNS / "tutorial"
    folder.mkdir(parents=True, exist_ok=True)
    text = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^crispseg (?!demo)(.*)$", text, re.MULTILINE)
    for command in commands:
        done = folder / ".done" / f"{commands.index(command)}"
        if not done.exists():
            run(f"crispseg {command}", folder)
            done.parent.mkdir(exist_ok=True)
            done.touch()
    images = sorted((folder / "data/images/test").glob("*.png"))[:4]
    colours = voc_palette(255)
    numbered = [
        colorize(np.asarray(Image.open(folder / "data/instances/test" / each.name)) % 255, colours) for each in images
    ]
    rows = [[np.asarray(Image.open(each).convert("RGB")) for each in images], numbered]
    save("tutorial_data", panels([[fit(each) for each in row] for row in rows], [each.stem for each in images]))
    save("tutorial_val", np.asarray(Image.open(folder / "runs/cells/val.png").convert("RGB")))
    test = Nuclei().dataset("test")
    shown = []
    for path in images:
        labels = np.asarray(Image.open(folder / "predictions" / path.name))
        shown.append(fit(overlay(np.asarray(Image.open(path).convert("RGB")), labels, test.labels)))
    save("tutorial_predictions", panels([shown], [each.stem for each in images]))
    with browser() as page:
        for name, file, height in (("evaluation", "scores.html", 1480), ("inspection", "page.html", 1200)):
            page.get((folder / file).as_uri())
            time.sleep(2)
            shoot(page, name, height)
        url = f"http://127.0.0.1:{PORT}"
        with demo(folder / "cells.onnx", url):
            page.get(url)
            time.sleep(10)
            upload = page.find_element("css selector", "input[type=file]")
            upload.send_keys(str(folder / "photos/test/751f421d3229.png"))
            time.sleep(30)
            shoot(page, "demo", 1200)


def fit(image: NDArray[np.uint8], size: int = 256) -> NDArray[np.uint8]:
    """The image in a square, on white."""
    scale = size / max(image.shape[:2])
    small = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    square = np.full((size, size, 3), 255, np.uint8)
    square[: small.shape[0], : small.shape[1]] = small
    return square


def save(name: str, image: NDArray[np.uint8], folder: str = "figures") -> None:
    """In 192 colours: a quarter of the bytes."""
    (ASSETS / folder).mkdir(parents=True, exist_ok=True)
    colors = Image.fromarray(image).quantize(192, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
    colors.save(ASSETS / folder / f"{name}.png", optimize=True)


@contextmanager
def browser(width: int = WIDTH) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))))
    for flag in ("--headless", "--no-sandbox", "--disable-gpu"):
        options.add_argument(flag)
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        running.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield running
    finally:
        running.quit()


def shoot(page: Any, name: str, height: int, width: int = WIDTH) -> None:
    """The upper part of what the browser shows."""
    page.set_window_size(width, height)
    time.sleep(2)  # frames are drawn again
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    save(name, np.asarray(Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")), "pages")


@contextmanager
def demo(model: Path, url: str) -> Iterator[None]:
    """`crispseg demo`, once it answers."""
    server = subprocess.Popen([sys.executable, "-m", "crispseg", "demo", str(model), "--port", str(PORT)])
    try:
        for _ in range(300):
            try:
                urlopen(url).close()
                break
            except OSError:
                time.sleep(1)
        yield
    finally:
        server.terminate()
        server.wait()


def table(networks: Mapping[str, tuple[str, str]] = RESULTS) -> str:
    """The table of results of these networks."""
    seconds = {row["model"]: row["seconds"] for row in rows_of("all_seconds")}
    lines = ["| network | mIoU | boundary F | G MACs | ms |", "| --- | --- | --- | --- | --- |"]
    for name, (file, label) in networks.items():
        rows = runs_of(name, file)
        scores = [spread([float(row[key]) for row in rows]) for key in ("miou", "boundary_f_3")]
        if name == "crisp":
            scores = [f"**{each}**" for each in scores]
        adds = f"{float(rows[0]['multiply_adds']) / 1e9:.2f}"
        milliseconds = f"{1000 * float(seconds[name]):.0f}"
        lines.append(f"| {label}{' †' * (len(rows) == 1)} | {' | '.join([*scores, adds, milliseconds])} |")
    return "\n".join(lines)


def five_minutes() -> str:
    """The table of five minutes: mIoU and boundary F, means over the seeds; best values of a column are bold.

    † marks methods that have one seed on a data set.
    """
    with (ROOT / "benchmarks/first_result.csv").open(newline="", encoding="utf-8") as file:
        rows = pd.DataFrame(csv.DictReader(file)).replace("", float("nan"))
    conditions = {"processor": "avx512_bf16", "images": "all", "minutes": "5"}
    rows = rows[(rows[list(conditions)] == pd.Series(conditions)).all(axis=1)]
    runs = rows.set_index(["method", "data"])
    last = {score: runs[f"last_{score}"].fillna(runs[score]).astype(float) for score in ("miou", "boundary_f_3")}
    scores = pd.DataFrame(last).groupby(level=["method", "data"]).mean()
    seeds = rows.groupby(["method", "data"])["seed"].nunique().groupby("method").min()
    wide = scores.unstack("data").swaplevel(axis=1).loc[list(FIVE_MINUTES)]
    wide = wide[[(domain, score) for domain in DOMAINS for score in scores]]
    lines = ["| `--model` |" + "".join(f" {name} |" for name in DOMAINS.values()), "| --- |" + " --- |" * len(DOMAINS)]
    for method, row in wide.iterrows():
        cells = [marked(row[domain], wide[domain].max()) for domain in DOMAINS]
        label = FIVE_MINUTES[str(method)] + " †" * int(seeds[method] == 1)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def marked(pair: pd.Series[float], best: pd.Series[float]) -> str:
    """Two scores as text, the best ones bold; empty if they are missing."""
    texts = [f"**{value:.1f}**" if value == top else f"{value:.1f}" for value, top in zip(pair, best, strict=True)]
    return "" if pair.isna().any() else ", ".join(texts)


def benchmark() -> str:
    """The table of networks on CamVid, best boundaries first."""
    return table({name: BENCHMARK[name] for name in sorted(BENCHMARK, key=boundary_f, reverse=True)})


def boundary_f(name: str) -> float:
    return statistics.mean(float(row["boundary_f_3"]) for row in runs_of(name, BENCHMARK[name][0]))


def latency() -> str:
    """The table of times on a CPU, of the columns that help to choose a format."""
    columns = ("network", "G MACs", "`Segmenter`", "ONNX Runtime", "OpenVINO", "OpenVINO, bf16", "OpenVINO, int8")
    with (ROOT / "benchmarks/results/latency_512x1024.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    lines += [f"| {' | '.join(row[column] for column in columns)} |" for row in rows]
    return "\n".join(lines)


def draw_benchmark() -> None:
    """Draw boundary F against time and multiply-adds."""
    figure = Figure(figsize=(12, 6), layout="constrained")
    seconds = {row["model"]: 1000 * float(row["seconds"]) for row in rows_of("all_seconds")}
    adds = {name: float(runs_of(name, file)[0]["multiply_adds"]) / 1e9 for name, (file, _) in BENCHMARK.items()}
    drawn = (seconds, (50, 100, 200, 500), "ms an image, two threads"), (adds, (2, 5, 10, 20, 50), "G multiply-adds")
    for axes, (costs, ticks, title) in zip(figure.subplots(1, 2, sharey=True), drawn, strict=True):
        for name in BENCHMARK:
            color = "tab:red" if name in ("crisp", "crisp_s", "crisp_l") else "tab:blue"
            label = "crisp, 256" if name == "wide" else name.removesuffix("_residual").removesuffix("_refined")
            axes.plot(costs[name], boundary_f(name), "o", color=color)
            axes.annotate(label, (costs[name], boundary_f(name)), (4, 3), textcoords="offset points", fontsize=7)
        axes.set(xscale="log", xlabel=title, xlim=(min(costs.values()) * 0.85, max(costs.values()) * 1.6))
        axes.set_xticks(ticks, map(str, ticks))
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("boundary F, 3 px (%), CamVid val")
    with atomic_path(ASSETS / "benchmark.png") as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def runs_of(name: str, file: str) -> list[dict[str, str]]:
    return [row for row in rows_of(file) if row["model"] == name]


def rows_of(name: str) -> list[dict[str, str]]:
    with (ROOT / f"benchmarks/camvid/{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    return f"{values[0]:.1f}" if len(values) == 1 else f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def page_tables() -> dict[str, dict[str, str]]:
    """The generated tables of each page, by the names in its comments."""
    of_site = five_minutes().replace("docs/", "")
    return {
        "README.md": {"five minutes": five_minutes()},
        "docs/results.md": {"five minutes": of_site, "networks": benchmark(), "latency": latency()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("all", "scenes", "papers", "tutorial", "table"))
    parser.add_argument("--data", type=Path, help="folder of the data sets aerial and nuclei")
    parser.add_argument("--weights", default="true", help="ImageNet weights of the backbone, a file")
    given = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    if given.what in ("all", "scenes"):
        scenes(given.weights)
    if given.what == "papers" or (given.what == "all" and given.data):
        papers(given.data.resolve(), given.weights)
    if given.what in ("all", "tutorial"):
        tutorial()
    if given.what in ("all", "table"):
        draw_benchmark()
        for page, tables in page_tables().items():
            text = (ROOT / page).read_text(encoding="utf-8")
            for name, made in tables.items():
                block = rf"(?<=<!-- generated: {name} -->\n\n).*?(?=\n\n<!-- end -->)"
                text = re.sub(block, lambda _, made=made: made, text, flags=re.DOTALL)
            (ROOT / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
