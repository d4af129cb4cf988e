"""Data sources, data checks and augmentation."""

from collections import UserDict

from crispseg.data.dataset import DataSource, FileDataset, Sample, SegmentationDataset
from crispseg.data.examination import check_split
from crispseg.data.folder import Folder
from crispseg.data.loading import Transformed
from crispseg.data.sources import (
    ADE20K,
    VOC2012,
    Aerial,
    CamVid,
    Cityscapes,
    CocoStuff,
    Mapillary,
    Nuclei,
    PascalContext,
    official_classes,
)
from crispseg.data.transforms import Augment, eval_transform, train_transform
from crispseg.errors import CrispsegError
from crispseg.folders.report import SplitReport, class_weights, softened_weights
from crispseg.labels import IGNORE, LabelSet


class DataSources(UserDict[str, type[DataSource]]):
    """Data sources by name; a duplicate name raises a `CrispsegError`."""

    def __setitem__(self, name: str, source: type[DataSource]) -> None:
        if name in self:
            raise CrispsegError(f"data '{name}' is already registered; choose another name")
        if not issubclass(source, DataSource):
            raise CrispsegError(f"data '{name}' is no DataSource; write class {source.__name__}(DataSource)")
        super().__setitem__(name, source)


DATA_SOURCES = DataSources(
    (source.name, source)
    for source in (ADE20K, Aerial, CamVid, Cityscapes, CocoStuff, Folder, Mapillary, Nuclei, PascalContext, VOC2012)
)
"""Data sources by their `data.name`."""

__all__ = [
    "ADE20K",
    "DATA_SOURCES",
    "IGNORE",
    "VOC2012",
    "Aerial",
    "Augment",
    "CamVid",
    "Cityscapes",
    "CocoStuff",
    "DataSource",
    "FileDataset",
    "Folder",
    "LabelSet",
    "Mapillary",
    "Nuclei",
    "PascalContext",
    "Sample",
    "SegmentationDataset",
    "SplitReport",
    "Transformed",
    "check_split",
    "class_weights",
    "eval_transform",
    "official_classes",
    "softened_weights",
    "train_transform",
]
