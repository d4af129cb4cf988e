#!/usr/bin/env bash
# Makes the pictures of docs/figures.md: seven networks trained briefly on built-in scenes, then looked into.
#
#   docs/figures.sh [RUNS [WEIGHTS]]
#
# RUNS is where the runs go, and stay: what is there is not trained again. WEIGHTS are ImageNet weights of the backbone,
# a file; by default they are downloaded. Relative paths start at the repository's root.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-runs/figures} weights=${2:-true} out=docs/assets/figures

train() {  # NAME, then the flags that make it what it is
  [ -d "$runs/$1/model" ] || crispseg train --preset paper --data scenes --data.train 160 --data.val 24 \
    --augment.crop "[192, 256]" --epochs 4 --val_every 4 --batch_size 4 \
    --optimizer adamw --lr 0.001 --weight_decay 0.01 --warmup 20 \
    --model "$2" --model.backbone tf_efficientnet_lite0 --model.pretrained "$weights" --model.width 64 "${@:3}" \
    --out "$runs/$1"
}

train sfnet sfnet
train sfnet_dcn sfnet --model.fuse dcn
train upernet upernet
train ddsm ddsm_upernet --model.pixels 9 --model.fuse_levels "[3, 4]"
train fpn fpn
train agln agln --model.residual true
train unept unept --model.points 4 --model.output_stride 16 --model.refine boundary --epochs 10 --val_every 10 --lr 0.0005

python - "$runs" <<'PYTHON'
import sys
from pathlib import Path

from crispseg.data.scenes import LABELS, render_scene
from crispseg.imaging import write_image, write_labels

image, labels = render_scene((7, 6), (192, 256))
write_image(Path(sys.argv[1]) / "scene.png", image)
write_labels(Path(sys.argv[1]) / "scene_mask.png", labels, LABELS.palette)
PYTHON

look() {  # NAME, and the one beside it
  crispseg inspect "$runs/$1" "$runs/scene.png" --truth "$runs/scene_mask.png" --beside "$runs/$2" \
    --figures "$out" --out "$runs/$1.html"
}

look sfnet sfnet_dcn
look ddsm upernet
look agln fpn
look unept fpn
crispseg benchmark "$runs"/{sfnet,sfnet_dcn,upernet,ddsm,fpn,agln,unept} --size 192 256 --figure "$out/scene_sfnet_figure_1.png"

python - "$out" <<'PYTHON'  # 256 colours: a quarter of the bytes
import sys
from pathlib import Path

from PIL import Image

for path in Path(sys.argv[1]).glob("*.png"):
    colors = Image.open(path).convert("RGB")
    colors.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True)
PYTHON
