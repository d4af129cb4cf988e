"""What a user writes, for mypy and pyright alone: a misspelt method is found, since unused ignores are errors."""

from pathlib import Path
from typing import assert_type

import crispseg
from crispseg import Segmentation, SegmentationModel

run = crispseg.train("photos", "masks", minutes=1, out="runs/mine")
assert_type(run.model, SegmentationModel)
segmenter = crispseg.Segmenter(run.folder)
one = segmenter("photo.jpg")
assert_type(one, Segmentation)
assert_type(segmenter(["a.jpg", "b.jpg"]), list[Segmentation])
height, width = one.labels.shape
found = crispseg.predict("runs/mine", Path("photos"), "out")
print(found.done + 1, run.miou + 0.5, one.shares()["road"], crispseg.create_model("sfnet", num_classes=3).num_classes)
one.save_all("out")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
