"""What a user writes, for mypy and pyright alone: a misspelt method is found, since unused ignores are errors."""

from pathlib import Path
from typing import assert_type

import crispseg
from crispseg import Segmentation, SegmentationModel

run = crispseg.train("photos", "masks", minutes=1, out="runs/mine")
assert_type(run.model, SegmentationModel)
segmenter = crispseg.Segmenter(run.folder)
mask = segmenter("photo.jpg")
assert_type(mask, Segmentation)
assert_type(segmenter(["a.jpg", "b.jpg"]), list[Segmentation])
height, width = mask.labels.shape
report = crispseg.predict("runs/mine", Path("photos"), "out")
print(report.done + 1, run.miou + 0.5, mask.shares()["road"], crispseg.create_model("sfnet", num_classes=3).num_classes)
mask.save_all("out")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
