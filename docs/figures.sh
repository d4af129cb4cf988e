#!/usr/bin/env bash
# Makes the pictures of README.md, docs/figures.md and docs/papers: six networks trained for three minutes each on aerial
# photographs and on cell nuclei, then looked into. It takes less than half an hour on two processor cores.
#
#   docs/figures.sh DATA [RUNS [WEIGHTS]]
#
# DATA holds `aerial` and `nuclei`, laid out as `crispseg data download` and docs/datasets.md have them. RUNS is where
# runs go, and stay: what is there is not made again. WEIGHTS are ImageNet weights of the backbone, a file; by default
# they are downloaded. Relative paths start at the repository's root.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${1:?give the folder of the data sets} runs=${2:-runs/figures} weights=${3:-true} out=docs/assets/figures
mkdir -p "$runs" "$out"

train() {  # NAME, data, model, then the flags that make it what it is
  [ -d "$runs/$1/model" ] || crispseg train --data "$2" --data.root "$data/$2" --model "$3" "${@:4}" \
    --model.backbone tf_efficientnet_lite0 --model.pretrained "$weights" --minutes 3 --out "$runs/$1"
}

train sfnet aerial sfnet
train upernet aerial upernet
train ddsm aerial ddsm_upernet --model.pixels 9 --model.fuse_levels "[3, 4]"
train fpn nuclei fpn
train agln nuclei agln
train unept nuclei unept --model.points 4 --model.output_stride 16 --model.refine boundary

python - "$data" "$runs" "$out" <<'PYTHON'  # a part of an image of val of each, and where boundaries are wrong there
import sys
from pathlib import Path

import cv2
import numpy as np

import crispseg
from crispseg.data import Aerial, Nuclei
from crispseg.io.images import colorize, write_image
from crispseg.visualization.pictures import panels

data, runs, out = map(Path, sys.argv[1:])
tile = Aerial(data / "aerial"), "tile2_008", np.s_[340:532, 240:496], np.s_[96:144, 60:124], ("upernet", "ddsm")
cells = Nuclei(data / "nuclei"), "337b6eed0726", np.s_[:192, :256], np.s_[36:84, 192:256], ("fpn", "agln")
rows = []
for source, shown, part, zoom, names in (tile, cells):
    dataset = source.dataset("val")
    image, truth, _ = next(dataset[at] for at in range(len(dataset)) if dataset.name_of(at) == shown)
    image, truth = image[part], truth[part]
    write_image(runs / f"{source.name}.png", image)
    edge = cv2.morphologyEx(truth, cv2.MORPH_GRADIENT, np.ones((7, 7), np.uint8)) > 0  # within 3 pixels of a boundary
    row = [image, colorize(truth, dataset.labels.palette)]
    for model in (*(str(runs / name) for name in names), source.name):
        labels = crispseg.Segmenter(model)(image).labels
        pale = colorize(labels, dataset.labels.palette) // 3 + 170
        pale[edge & (labels != truth) & (truth != 255)] = 230, 0, 0
        row.append(pale)
    rows.append([cv2.resize(each[zoom], None, fx=6, fy=6, interpolation=cv2.INTER_NEAREST) for each in row])
titles = ["photograph", "ground truth", "without the paper's part", "with it", "the model inside"]
write_image(out / "boundaries.png", panels(rows, titles))
PYTHON

for shown in aerial/sfnet aerial/ddsm nuclei/agln nuclei/unept; do
  python examples/paper_figures.py "$runs/${shown#*/}" "$runs/${shown%/*}.png" "$out"
done

python - "$out" <<'PYTHON'  # 96 colours: a sixth of the bytes
import sys
from pathlib import Path

from PIL import Image

for path in Path(sys.argv[1]).glob("*.png"):
    colors = Image.open(path).convert("RGB")
    colors.quantize(96, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True)
PYTHON
