"""Data: where images and masks come from, how they are checked and how they are varied."""

from crispseg.data.base import IGNORE, DataSource, LabelSet, Sample, SegmentationDataset
from crispseg.data.camvid import CamVid
from crispseg.data.check import SplitReport, check_split, class_weights
from crispseg.data.folder import Folder
from crispseg.data.scenes import Scenes
from crispseg.data.transforms import Augment, eval_transform, train_transform

DATA_SOURCES: dict[str, type[DataSource]] = {source.name: source for source in (CamVid, Folder, Scenes)}
"""What `--data NAME` can be."""

__all__ = [
    "DATA_SOURCES",
    "IGNORE",
    "Augment",
    "CamVid",
    "DataSource",
    "Folder",
    "LabelSet",
    "Sample",
    "Scenes",
    "SegmentationDataset",
    "SplitReport",
    "check_split",
    "class_weights",
    "eval_transform",
    "train_transform",
]
