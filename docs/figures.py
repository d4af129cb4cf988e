"""Make the pictures of README.md and the site, and tables of README.md, docs/results.md and docs/strokes.md.

    python docs/figures.py all --data DATA --weights WEIGHTS     # about three hours
    python docs/figures.py table                                 # the tables, of the rows in benchmarks/

`scenes` shows images of the data sets nuclei, aerial and leaf below DATA, and trains `crisp` and a plain loop for five
minutes; `papers` trains four networks for thirty; `tutorial` runs the commands of docs/tutorial.md and photographs its
pages in Chromium. WEIGHTS is a file of the backbone's ImageNet weights. Runs stay in runs/figures, and are not made
again.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import itertools
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import cv2
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from selenium import webdriver

import crispseg
from crispseg.data import Aerial, FileDataset, Nuclei
from crispseg.evaluation.boundary import BoundaryScores
from crispseg.evaluation.evaluate import score_model
from crispseg.io.files import atomic_path
from crispseg.io.images import colorize, read_image, write_image
from crispseg.labels import LabelSet, voc_palette
from crispseg.visualization.pictures import GAP, overlay, panels, text_font

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))
import first_result  # noqa: E402
import upsamplers  # noqa: E402

ASSETS, RUNS = ROOT / "docs/assets", ROOT / "runs/figures"
BACKBONE = "tf_efficientnet_lite0"
WIDTH, PORT = 1280, 7871
LABEL = 11.5  # points; can be read where the picture is 400 pixels wide
ANGLES = np.deg2rad(np.arange(-30, 330, 15))
OFFSETS = [(radius * np.cos(angle), radius * np.sin(angle)) for radius in range(14, 200, 6) for angle in ANGLES]
"""Places of a name next to its point, near ones first, in pixels."""
TITLE = 44  # pixels of a line of text in README's picture

DOMAIN_TILES = {
    "fluorescence": ("nuclei", "7d40ea6ead1b"),
    "histology": ("nuclei", "0121d6759c5a"),
    "aerial photo": ("aerial", "tile2_005"),
    "leaf": ("leaf", "1514"),
}
"""Val images of README's picture: the bundled model that segments each, and the image's name."""

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

STROKES = {
    "full": "full masks",
    "strokes": "strokes",
    "strokes --loss.gated_crf=1": "strokes and a loss for pixels of equal colour",
}
"""Rows of the table of docs/strokes.md: the method in benchmarks/strokes.csv, and its label."""

ROUNDS = ("nuclei", "leaf", "aerial")  # data sets of the scripted user
USER = (
    ("crispseg after one minute, 12 to 30 strokes", "crispseg", 0),
    ("after five minutes", "crispseg", 4),
    ("after ten minutes, 45 strokes more", "crispseg", -1),
    ("random forest, the same strokes", "forest", -1),
    ("random forest, strokes where it was wrong", "own forest", -1),
    ("crispseg, full masks of all images, ten minutes", "full masks", -1),
)
"""Rows of the scripted user's table of docs/strokes.md: label, method in benchmarks/scripted_user.csv, and round."""
FULL_MASKS = "full --backbone_lr_factor=0.1 --augment.cutmix=64"  # method in benchmarks/strokes.csv, as in projects

BENCHMARK = {
    **RESULTS,
    "sfnet_default": ("papers", "[SFNet](papers/sfnet.md)"),
    "ddsm_upernet_default": ("papers", "[UPerNet with DDSM](papers/ddsm.md)"),
    "unept_default": ("papers", "[UN-EPT](papers/unept.md)"),
    "agln_default": ("papers", "[AGLN](papers/agln.md)"),
    "sfnet_lite_default": ("papers", "SFNet-Lite"),
    "agln_lite_default": ("papers", "AGLN-Lite"),
    "ddsm_deeplabv3plus_default": ("papers", "DeepLabV3+ with DDSM"),
    "wide": ("crisp", "`crisp` of 256 channels"),
    "smp_unet": ("crisp", "smp `Unet`"),
    "smp_deeplabv3": ("crisp", "smp `DeepLabV3`"),
    "smp_pspnet": ("crisp", "smp `PSPNet`"),
    "lraspp": ("crisp", "torchvision LR-ASPP"),
}
"""Rows of the second table of docs/results.md, by boundary F."""

PAGES = {"evaluation": ("scores.html", 1310, 1200), "inspection": ("page.html", 785, 1000)}
"""Pages of the tutorial: the file, and the height and width of its picture."""

PAPERS = {
    "sfnet_figure_5": ("aerial", "sfnet"),
    "ddsm_figure_4": ("aerial", "ddsm_upernet"),
    "agln_figure_3": ("nuclei", "agln"),
    "unept_figure_4": ("nuclei", "unept"),
}
"""Figures of the papers: the data that a network is trained on for thirty minutes, and its name."""


def run(command: str, cwd: Path = ROOT) -> None:
    print(command, flush=True)
    subprocess.run([sys.executable, "-m", *shlex.split(command)], cwd=cwd, check=True)


def trained(name: str, flags: str, weights: Path) -> Path:
    """The run of that name; it is trained if it is not there."""
    folder = RUNS / name
    if not (folder / "model").is_dir():
        pretrained = f"--model.backbone {BACKBONE} --model.pretrained {shlex.quote(str(weights))}"
        run(f"crispseg train {flags} {pretrained} --out {folder}")
    return folder


def scenes(data: Path, weights: Path) -> None:
    """Val images of four domains, half of each as the bundled model sees it; under them, boundaries of one image.

    This image is the one of aerial whose gain in boundary F of crisp over the plain loop, after five minutes of
    training each, is nearest to the mean gain; so is the gain of the part of it.
    """
    tiles = [half_segmented(data, *DOMAIN_TILES[title]) for title in DOMAIN_TILES]
    source = first_result.data_of("aerial", data / "aerial")
    first_result.load_plugins([str(first_result.PLUGIN)])
    runs = RUNS / "loop_fpn", RUNS / "crispseg"
    if not runs[0].is_dir():
        first_result.plain_loop(source, "smp_fpn", weights, 5, 0, runs[0])
    if not runs[1].is_dir():
        first_result.ours(source, (), weights, 5, 0, runs[1])
    val = source.dataset("val")
    models = [crispseg.from_pretrained(run) for run in runs]
    gains = gains_of_images(models, val)
    mean = np.nanmean(gains)
    chosen = int(np.nanargmin(abs(gains - mean)))
    print(f"boundary F rises by {mean:.1f} on average, and by {gains[chosen]:.1f} on {val.name_of(chosen)}")
    image, truth, _ = val[chosen]
    maps = [truth, *(crispseg.Segmenter(model)(image).labels for model in models)]
    part = part_of_gain(maps, len(val.labels), mean)
    pictures = [bright(image)[part], *(colorize(labels[part], val.labels.palette) for labels in maps)]
    zoomed = [cv2.resize(picture, (624, 624), interpolation=cv2.INTER_NEAREST) for picture in pictures]
    titles = ["part of an image", "ground truth", "plain loop, FPN", "crispseg train"]
    save("scenes", np.vstack([scene(tiles, [*DOMAIN_TILES]), scene(zoomed, titles), colors_of(val.labels)]))


def scene(pictures: Sequence[NDArray[np.uint8]], titles: Sequence[str]) -> NDArray[np.uint8]:
    """Square pictures in a row, under titles that can be read where the row is 400 pixels wide."""
    side = WIDTH // len(pictures)
    row = Image.new("RGB", (WIDTH, side + TITLE), "white")
    for index, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        fitted = cv2.resize(picture, (side - 2 * GAP, side - 2 * GAP), interpolation=cv2.INTER_AREA)
        row.paste(Image.fromarray(fitted), (index * side + GAP, TITLE + GAP))
        middle = (index + 0.5) * side, TITLE / 2
        ImageDraw.Draw(row).text(middle, title, "black", text_font(TITLE * 2 // 3), "mm")
    return np.asarray(row)


def colors_of(classes: LabelSet) -> NDArray[np.uint8]:
    """A row with the names of classes, each next to its colour."""
    row = Image.new("RGB", (WIDTH, TITLE), "white")
    draw, left = ImageDraw.Draw(row), GAP
    for name, color in classes.legend:
        draw.rectangle((left, TITLE // 4, left + TITLE, TITLE * 3 // 4), fill=tuple(color))
        draw.text((left + TITLE + 2 * GAP, TITLE / 2), name, "black", text_font(TITLE * 2 // 3), "lm")
        left += WIDTH // len(classes)
    return np.asarray(row)


def half_segmented(data: Path, model: str, name: str) -> NDArray[np.uint8]:
    """The middle square of a val image; its right half has the classes' colours and outlines."""
    val = first_result.data_of(model, data / model).dataset("val")
    image = next(val[index][0] for index in range(len(val)) if val.name_of(index) == name)
    side = min(*image.shape[:2], 512)
    top, left = ((length - side) // 2 for length in image.shape[:2])
    square = np.s_[top : top + side, left : left + side]
    result = crispseg.Segmenter(model)(image)
    picture = bright(image)[square]
    labels = result.labels[square]
    drawn = overlay(overlay(picture, labels, result.label_set, 0.4), labels, result.label_set, outlines=True)
    half = side // 2
    picture[:, half:] = drawn[:, half:]
    picture[:, half - 1 : half + 1] = 255
    return picture


def bright(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image with its darkest and brightest pixels as black and white."""
    low, high = np.percentile(image, (1, 99.8))
    return np.clip((image - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)


def gains_of_images(models: Sequence[crispseg.SegmentationModel], val: FileDataset) -> NDArray[np.float64]:
    """Gain in boundary F, the mean over the classes, of the second model over the first, for each image."""
    scores = [score_model(model, val, boundary=[3]) for model in models]
    first, second = (np.nanmean(score.boundary.per_image[:, 0], axis=1) for score in scores)
    return second - first


def part_of_gain(maps: Sequence[NDArray[np.uint8]], classes: int, gain: float) -> tuple[slice, slice]:
    """The part of a third of the height whose gain is nearest to `gain`, of the half of the parts with most boundaries.

    `maps` are the truth, and the labels of the first and of the second model.
    """
    truth, *predictions = maps
    side = min(truth.shape) // 3
    corners = itertools.product(*(range(0, length - side, side // 8) for length in truth.shape))
    parts = [np.s_[top : top + side, left : left + side] for top, left in corners]
    square = np.ones((3, 3), np.uint8)
    edges = cv2.dilate(truth, square) != cv2.erode(truth, square)
    parts = sorted(parts, key=lambda part: edges[part].sum())[len(parts) // 2 :]
    scores = []
    for labels in predictions:
        metric = BoundaryScores(classes, [3])
        for index, part in enumerate(parts):
            metric.update(torch.from_numpy(labels[part])[None], torch.from_numpy(truth[part])[None], [index])
        scores.append(np.nanmean(metric.scores().per_image[:, 0], axis=1))
    return parts[int(np.nanargmin(abs(scores[1] - scores[0] - gain)))]


def papers(data: Path, weights: Path) -> None:
    """Figures in the manner of the papers, by examples/paper_figures.py."""
    shown = (Aerial(data / "aerial"), "tile2_008"), (Nuclei(data / "nuclei"), "337b6eed0726")
    for source, name in shown:
        dataset = source.dataset("val")
        image = next(dataset[index][0] for index in range(len(dataset)) if dataset.name_of(index) == name)
        write_image(RUNS / f"{source.name}.png", image[340:532, 240:496] if source.name == "aerial" else image)
    for figure, (source_name, model) in PAPERS.items():
        flags = f"--data {source_name} --data.root {data / source_name} --minutes 30 --model {model}"
        folder = trained(model, flags, weights)
        script = [sys.executable, "examples/paper_figures.py", folder, RUNS / f"{source_name}.png", RUNS]
        subprocess.run(script, cwd=ROOT, check=True)
        name = f"{source_name}_{figure}"
        save(name, read_image(RUNS / f"{name}.png"), colors=96)


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
        colorize(np.asarray(Image.open(folder / "data/instances/test" / path.name)) % 255, colours) for path in images
    ]
    rows = [[np.asarray(Image.open(path).convert("RGB")) for path in images], numbered]
    save("tutorial_data", panels([[fit(picture) for picture in row] for row in rows], [path.stem for path in images]))
    save("tutorial_val", np.asarray(Image.open(folder / "runs/cells/val.png").convert("RGB")))
    overlays = [folder / f"predictions/{path.stem}_overlay.png" for path in images]
    shown = [fit(np.asarray(Image.open(path).convert("RGB"))) for path in overlays]
    save("tutorial_predictions", panels([shown], [path.stem for path in images]))
    with browser() as page:
        for name, (file, *size) in PAGES.items():
            page.get((folder / file).as_uri())
            save(name, photograph(page, *size), "pages")
        url = f"http://127.0.0.1:{PORT}"
        with demo(folder / "cells.onnx", url):
            page.get(url)
            time.sleep(10)
            upload = page.find_element("css selector", "input[type=file]")
            upload.send_keys(str(folder / "data/images/test/751f421d3229.png"))
            time.sleep(30)
            save("demo", photograph(page, 1040, 1000), "pages")


def fit(image: NDArray[np.uint8], size: int = 256) -> NDArray[np.uint8]:
    """The left upper square of the image."""
    side = min(image.shape[:2])
    return np.asarray(cv2.resize(image[:side, :side], (size, size), interpolation=cv2.INTER_AREA))


def save(name: str, image: NDArray[np.uint8], folder: str = "figures", colors: int = 192) -> None:
    """Write a picture at most as wide as the site shows it, in few colours: a quarter of the bytes."""
    (ASSETS / folder).mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(image)
    picture.thumbnail((WIDTH, picture.height), Image.Resampling.LANCZOS)
    picture = picture.quantize(colors, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
    picture.save(ASSETS / folder / f"{name}.png", optimize=True)


@contextmanager
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))))
    for flag in ("--headless", "--no-sandbox", "--disable-gpu"):
        options.add_argument(flag)
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        show_at(running, WIDTH, 900)
        yield running
    finally:
        running.quit()


def show_at(page: Any, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def photograph(page: Any, height: int, width: int = WIDTH) -> NDArray[np.uint8]:
    """Return the upper part of what the browser shows."""
    show_at(page, width, height)
    time.sleep(5)  # frames are drawn again
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB"))


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
            scores = [f"**{score}**" for score in scores]
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


def strokes() -> str:
    """The table of strokes and full masks: mIoU and boundary F of one seed."""
    scores = {}
    for row in rows_of_file("strokes"):
        if row["minutes"] == "5":
            scores[row["method"], row["data"]] = f"{float(row['last_miou']):.1f}, {float(row['last_boundary_f_3']):.1f}"
    lines = ["| | nuclei | leaf | CamVid |", "| --- | --- | --- | --- |"]
    for method, label in STROKES.items():
        cells = [scores[method, data] for data in ("nuclei", "leaf", "camvid")]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rows_of_file(name: str) -> list[dict[str, str]]:
    with (ROOT / "benchmarks" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of_scripted_user() -> dict[tuple[str, str], list[NDArray[np.float64]]]:
    """mIoU after each round, for each seed, by method and data set."""
    scores = defaultdict(list)
    for row in rows_of_file("scripted_user"):
        scores[row["method"], row["data"]].append(np.array(row["miou"].split(), float))
    for row in rows_of_file("strokes"):
        if row["method"] == FULL_MASKS:
            scores["full masks", row["data"]].append(np.array([float(row["last_miou"])]))
    return scores


def scripted_user() -> str:
    """The table of a scripted user: mean mIoU over the seeds."""
    scores = of_scripted_user()
    lines = ["| mIoU | nuclei | leaf | aerial |", "| --- | --- | --- | --- |"]
    for label, method, minute in USER:
        rows = [scores[method, data] for data in ROUNDS]
        cells = [f"{np.mean([rounds[minute] for rounds in row]):.1f}" if row else "not run" for row in rows]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_scripted_user() -> None:
    """Draw mIoU against minutes of training, and that of forests."""
    figure, scores = Figure(figsize=(7, 5), layout="constrained"), of_scripted_user()
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    minutes = np.arange(1, 11)
    for data, color in zip(ROUNDS, ("tab:red", "tab:green", "tab:blue"), strict=True):
        axes.plot(minutes, np.mean(scores["crispseg", data], 0), color=color, marker="o", label=data)
        axes.plot(minutes[-1] + 0.3, np.mean(scores["forest", data]), color=color, marker="^", clip_on=False)
    axes.plot([], [], color="grey", marker="^", linestyle="none", label="random forest, all strokes")
    axes.set(xlabel="minutes of training, with five more strokes after each", ylabel="mIoU on val (%)", xticks=minutes)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4)
    with atomic_path(ASSETS / "scripted-user.png") as temporary:
        figure.savefig(temporary, dpi=110, format="png")


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
    """Draw boundary F, with standard deviations over seeds, against time, and the front of the networks."""
    figure = Figure(figsize=(8, 8.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    seconds = {row["model"]: 1000 * float(row["seconds"]) for row in rows_of("all_seconds")}
    front, lines, best = [], [], 0.0
    for name in sorted(BENCHMARK, key=lambda name: seconds[name]):
        scores = [float(row["boundary_f_3"]) for row in runs_of(name, BENCHMARK[name][0])]
        error = statistics.stdev(scores) if len(scores) > 1 else 0
        color = "tab:red" if name.startswith("crisp") or name == "wide" else "tab:blue"
        axes.errorbar(seconds[name], boundary_f(name), error, fmt="o", color=color, elinewidth=1)
        lines.append([(seconds[name], boundary_f(name) + sign * error) for sign in (-1, 1)])
        if boundary_f(name) > best:
            best = boundary_f(name)
            front.append((seconds[name], best))
    lines += itertools.pairwise(front)
    axes.plot(*zip(*front, strict=True), color="tab:red", linewidth=1, zorder=0)
    axes.set(xscale="log", xlabel="milliseconds an image, two threads", ylabel="boundary F, 3 px (%), CamVid val")
    axes.set_xlim(min(seconds[name] for name in BENCHMARK) * 0.85, max(seconds[name] for name in BENCHMARK) * 1.6)
    axes.set_xticks((50, 100, 200, 500), ("50", "100", "200", "500"))
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    label_points(axes, {plain_name(name): (seconds[name], boundary_f(name)) for name in BENCHMARK}, lines)
    with atomic_path(ASSETS / "benchmark.png") as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def draw_upsamplers() -> None:
    """Draw mIoU and boundary F of the fuse parts on half-size images against time."""
    milliseconds = upsamplers.costs_of_parts()["image_ms"].astype(float)
    means = upsamplers.short_scores().groupby(level=0).mean().join(milliseconds)
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, score in zip(figure.subplots(1, 2), ("mIoU", "F"), strict=True):
        axes.plot(means["image_ms"], means[score], "o")
        axes.set(xlabel="milliseconds an image, one thread", ylabel=f"{score} (%), CamVid val")
        axes.margins(0.15)
        axes.grid(alpha=0.3)
        label_points(axes, {str(fuse): (row["image_ms"], row[score]) for fuse, row in means.iterrows()}, [])
    with atomic_path(ASSETS / "upsamplers.png") as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def plain_name(name: str) -> str:
    """The label of a network, without links and code."""
    label = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", BENCHMARK[name][1])
    return re.sub(r"[`*]|, the default|, input.*", "", label) + " 1.33×" * name.endswith("_larger")


def label_points(axes: Axes, points: Mapping[str, tuple[float, float]], lines: Sequence[Any]) -> None:
    """Write names beside points, free of points, names and lines, as near as the best of some orders allows."""
    figure = axes.figure
    figure.canvas.draw()
    pixels = dict(zip(points, axes.transData.transform([*points.values()]), strict=True))
    boxes = [box for line in lines for box in boxes_along(*axes.transData.transform(line))]
    renderer, sizes = figure.canvas.get_renderer(), dict[str, tuple[float, float]]()
    for name in points:
        text = figure.text(0, 0, name, fontsize=LABEL)
        extent = text.get_window_extent(renderer)
        sizes[name] = extent.width + 4, extent.height
        text.remove()
    orders = [np.random.default_rng(seed).permutation([*points]).tolist() for seed in range(12)]
    placed = [placed_names(order, pixels, sizes, boxes, axes.bbox) for order in orders]
    best = min(filter(None, placed), key=lambda places: np.hypot(*np.transpose([*places.values()])).sum())
    for name, offset in best.items():
        side = "left" if offset[0] > 0 else "right"
        style = {"textcoords": "offset points", "fontsize": LABEL, "ha": side, "va": "center"}
        line = {"arrowstyle": "-", "linewidth": 0.4, "shrinkA": 0, "shrinkB": 3, "relpos": (side == "right", 0.5)}
        axes.annotate(name, points[name], np.multiply(offset, 72 / figure.dpi), arrowprops=line, **style)


def placed_names(
    order: Sequence[str],
    points: Mapping[str, NDArray[np.float64]],
    sizes: Mapping[str, tuple[float, float]],
    lines: Sequence[Bbox],
    frame: Bbox,
) -> dict[str, tuple[float, float]] | None:
    """Return the offset of each name, in this order, at the first free place; None if there is none for a name.

    Neither a name nor the line to it meets another point, name or line to a name; names do not meet `lines` either.
    """
    dots = {name: Bbox.from_extents(*point - 6, *point + 6) for name, point in points.items()}
    drawn, places = list[Bbox](), dict[str, tuple[float, float]]()
    for name in order:
        (width, height), point = sizes[name], points[name]
        others = [*drawn, *(dot for other, dot in dots.items() if other != name)]
        for x, y in OFFSETS:
            left, middle = point[0] + (x if x > 0 else x - width), point[1] + y
            box = Bbox.from_extents(left, middle - height / 2, left + width, middle + height / 2)
            leader = [part for part in boxes_along(point, np.add(point, (x, y))) if not part.overlaps(dots[name])]
            inside = frame.containsx(box.x0) and frame.containsx(box.x1)
            if (
                inside
                and not box.count_overlaps([*others, *lines])
                and not any(p.count_overlaps(others) for p in leader)
            ):
                places[name] = x, y
                drawn += [box, *leader]
                break
        else:
            return None
    return places


def boxes_along(start: NDArray[np.float64], end: NDArray[np.float64]) -> list[Bbox]:
    """Small boxes on a line between two points of a figure."""
    return [Bbox.from_extents(x - 2, y - 2, x + 2, y + 2) for x, y in np.linspace(start, end, 50)]


def runs_of(name: str, file: str) -> list[dict[str, str]]:
    return [row for row in rows_of(file) if row["model"] == name]


def rows_of(name: str) -> list[dict[str, str]]:
    return rows_of_file(f"camvid/{name}")


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    return f"{values[0]:.1f}" if len(values) == 1 else f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def page_tables() -> dict[str, dict[str, str]]:
    """The generated tables of each page, by the names in its comments."""
    of_site = five_minutes().replace("docs/", "")
    return {
        "README.md": {"five minutes": five_minutes()},
        "docs/models.md": {"upsamplers": upsamplers.table()},
        "docs/strokes.md": {"strokes": strokes(), "scripted user": scripted_user()},
        "docs/results.md": {"five minutes": of_site, "networks": benchmark(), "latency": latency()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("all", "scenes", "papers", "tutorial", "table"))
    parser.add_argument("--data", type=Path, help="folder of the data sets nuclei, aerial and leaf")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of the backbone, a file")
    given = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    if given.what in ("all", "scenes"):
        scenes(given.data.resolve(), given.weights)
    if given.what in ("all", "papers"):
        papers(given.data.resolve(), given.weights)
    if given.what in ("all", "tutorial"):
        tutorial()
    if given.what in ("all", "table"):
        draw_benchmark()
        draw_scripted_user()
        draw_upsamplers()
        for page, tables in page_tables().items():
            text = (ROOT / page).read_text(encoding="utf-8")
            for name, made in tables.items():
                block = rf"(?<=<!-- generated: {name} -->\n\n).*?(?=\n\n<!-- end -->)"
                text = re.sub(block, lambda _, made=made: made, text, flags=re.DOTALL)
            (ROOT / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
