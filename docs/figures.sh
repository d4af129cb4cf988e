#!/usr/bin/env bash
# Makes the pictures of docs/figures.md: seven networks trained briefly on aerial photographs and on cell nuclei, then
# looked into. It takes less than ten minutes on two processor cores.
#
#   docs/figures.sh DATA [RUNS [WEIGHTS]]
#
# DATA holds `aerial/images` and `aerial/masks` (class ids), and `nuclei/images` and `nuclei/instances` (a number for
# each nucleus); docs/figures.md says where both are from. RUNS is where prepared data and runs go, and stay: what is
# there is not made again. WEIGHTS are ImageNet weights of the backbone, a file; by default they are downloaded.
# Relative paths start at the repository's root.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${1:?give the folder of the data sets} runs=${2:-runs/figures} weights=${3:-true} out=docs/assets/figures
aerial=(--data.classes "[building, unpaved land, road, vegetation, water]" --data.val_list "$runs/aerial/val.txt")
nuclei=(--data.classes "[background, nucleus, border]" --data.val_list "$runs/nuclei/val.txt")

[ -d "$runs/nuclei" ] || python - "$data" "$runs" <<'PYTHON'
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from crispseg.imaging import read_image, read_mask, write_image

data, runs = map(Path, sys.argv[1:])


def keep(name: str, stem: str, image: np.ndarray, mask: np.ndarray) -> None:
    write_image(runs / name / "images" / f"{stem}.png", image)
    write_image(runs / name / "masks" / f"{stem}.png", mask)


for path in sorted((data / "aerial/images").iterdir()):  # at most 640 pixels a side
    image, mask = read_image(path), read_mask(data / "aerial/masks" / f"{path.stem}.png")
    mask[mask > 4] = 255  # unlabelled
    scale = min(1, 640 / max(mask.shape))
    size = [round(scale * side) for side in mask.shape[::-1]]
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    keep("aerial", path.stem, image, cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT))
    if path.stem == "tile2_007":
        write_image(runs / "aerial.png", image[:192, 40:296])
        write_image(runs / "aerial_mask.png", mask[:192, 40:296])

disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
for path in sorted((data / "nuclei/images").iterdir()):
    nuclei = read_mask(data / "nuclei/instances" / path.name).astype(np.uint16)
    if max(nuclei.shape) > 320:
        continue
    last = cv2.dilate(nuclei, disk)  # of the nuclei within 2 pixels the one with the largest number, and the smallest
    first = cv2.erode(np.where(nuclei > 0, nuclei, 0xFFFF).astype(np.uint16), disk)
    mask = np.where((last > 0) & (first < last), 2, nuclei > 0).astype(np.uint8)
    keep("nuclei", path.stem, read_image(path), mask)
    if path.stem == "4590d7d47f52":
        write_image(runs / "nuclei.png", read_image(path)[:192, :256])
        write_image(runs / "nuclei_mask.png", mask[:192, :256])

for name, shown in (("aerial", "tile2"), ("nuclei", "4")):  # not trained on
    names = sorted(path.stem for path in (runs / name / "images").iterdir() if path.stem.startswith(shown))
    (runs / name / "val.txt").write_text("\n".join(names))
PYTHON

train() {  # NAME, data, then the flags that make it what it is
  local -n keys=$2
  [ -d "$runs/$1/model" ] || crispseg train --data folder --data.images "$runs/$2/images" --data.masks "$runs/$2/masks" \
    "${keys[@]}" --augment.crop "[192, 192]" --iterations 40 --val_every 1000 --batch_size 8 --optimizer adamw \
    --lr 0.001 --weight_decay 0.01 --warmup 10 --loss "{cross_entropy: 1, dice: 1}" --hard_fraction 1 \
    --model "$3" --model.backbone tf_efficientnet_lite0 --model.pretrained "$weights" --model.width 64 "${@:4}" \
    --out "$runs/$1"
}

train sfnet aerial sfnet
train sfnet_dcn aerial sfnet --model.fuse dcn
train upernet aerial upernet
train ddsm aerial ddsm_upernet --model.pixels 9 --model.fuse_levels "[3, 4]"
train fpn nuclei fpn
train agln nuclei agln --model.residual true
train unept nuclei unept --model.points 4 --model.output_stride 16 --model.refine boundary --iterations 80

look() {  # DATA, NAME, and the one beside it
  crispseg inspect "$runs/$2" "$runs/$1.png" --truth "$runs/$1_mask.png" --beside "$runs/$3" \
    --figures "$out" --out "$runs/$2.html"
}

look aerial sfnet sfnet_dcn
look aerial ddsm upernet
look nuclei agln fpn
look nuclei unept fpn
crispseg benchmark "$runs"/{sfnet,sfnet_dcn,upernet,ddsm} --size 192 256 --figure "$out/aerial_sfnet_figure_1.png"

python - "$out" <<'PYTHON'  # 96 colours: a sixth of the bytes
import sys
from pathlib import Path

from PIL import Image

for path in Path(sys.argv[1]).glob("*.png"):
    colors = Image.open(path).convert("RGB")
    colors.quantize(96, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True)
PYTHON
