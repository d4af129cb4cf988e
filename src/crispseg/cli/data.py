"""`crispseg data list|show|download|import`"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from crispseg.cli.command import HELP, Command, WithData, commands, say
from crispseg.config.settings import Tree
from crispseg.data import DATA_SOURCES
from crispseg.data.catalogue import catalogue, class_meanings, class_table, readable_splits
from crispseg.data.dataset import FileDataset, SegmentationDataset
from crispseg.data.download import obtain
from crispseg.data.folder import Folder
from crispseg.data.folder_layout import recognise
from crispseg.data.importing import import_annotations
from crispseg.data.named import build_data, data_fields
from crispseg.data.sources import PublicSource
from crispseg.data.split_check import spread, survey
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.labels import LabelSet


class Data(Command):
    """Public data sets and annotations, by commands of two words."""

    name = "data"

    @classmethod
    def start(cls, argv: Sequence[str]) -> int | None:
        """Run one of the commands, or print which there are."""
        known = {name.removeprefix("data "): each for name, each in commands.items() if name.startswith("data ")}
        if argv and argv[0] in known:
            return known[argv[0]].start(argv[1:])
        if argv and argv[0] not in HELP:
            raise CrispsegError(f"unknown command 'data {argv[0]}'{did_you_mean(argv[0], known)}")
        abouts = [f"  {name:12}{(each.__doc__ or '').splitlines()[0]}" for name, each in known.items()]
        print("usage: crispseg data COMMAND [...]", "", *abouts, sep="\n")
        return 0


class ListData(Command):
    """List public data sets: classes, images, licences, and which can be downloaded."""

    name = "data list"

    def __call__(self) -> None:
        numbers = [Column(header, justify="right", no_wrap=True) for header in ("classes", "train", "val")]
        columns = (Column("name", no_wrap=True), *numbers, Column("download", no_wrap=True), Column("licence"))
        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for entry in catalogue().values():
            size = sum(archive.size or 0 for archive in entry.archives) / 1e9
            download = f"yes, {size:.0f} GB" if size else "yes" if entry.archives else "no"
            counts = [str(entry.counts.get(split, "")) for split in ("train", "val")]
            table.add_row(entry.name, entry.classes, *counts, download, entry.licence)
        Console().print(table)
        say(Console(), "--data NAME --data.root DIR trains on them; --data nuclei alone takes the bundled part")


@dataclass(kw_only=True)
class ShowData(WithData):
    """Show what the values of the masks mean, and the images, sizes and classes of each split.

    Without --data.root, what is known about a public data set.

    Args:
        target: a data set's name, or a folder of data in a known layout; else --data says it.
    """

    name = "data show"
    words = ("target",)
    target: str | None = None

    def __call__(self) -> None:
        console = Console()
        found: Tree = {"name": self.target} if self.target else {}
        if self.target and Path(self.target).is_dir() and self.target not in DATA_SOURCES:
            found = recognise(Path(self.target), self.data)
        settings = self.chosen(found)
        root = data_fields(str(settings["name"])).get("root")
        rootless = root is not None and root.default is MISSING and "root" not in settings
        source = build_data({**settings, "root": "."} if rootless else settings)
        if entry := catalogue().get(source.name):
            counts = ", ".join(f"{split} {count}" for split, count in entry.counts.items())
            published = f"{entry.classes} classes; as published: {counts} images with masks"
            say(console, f"{entry.name}: {entry.title}, {published}")
            say(console, f"licence: {entry.licence}; {entry.home}")
            if entry.get:
                say(console, entry.get)
        if rootless and isinstance(source, PublicSource):
            with suppress(CrispsegError):  # Mapillary's classes are in its own files
                console.print(class_table(class_meanings(source.lookup(), source.label_set())))
            say(console, "give --data.root DIR to count")
            return
        splits, faults = readable_splits(source)
        if not splits:
            raise CrispsegError(next(iter(faults.values()), f"{source.name} has no splits"))
        _show_splits(source.label_set(), splits, console)
        for line in source.notes() if isinstance(source, Folder) else ():
            say(console, line)
        for split, fault in faults.items():
            say(console, f"{split}: {fault}")


SAMPLE = 200
"""Images of each split, at most, that are read to count pixels."""


def _show_splits(labels: LabelSet, splits: Mapping[str, SegmentationDataset], console: Console) -> None:
    """The mapping with the share of each class, and a line for each split."""
    reports, lines = [], []
    for split, dataset in splits.items():
        indices = spread(len(dataset), SAMPLE)
        report, faults = survey(dataset, split, indices)
        of = "" if len(indices) == len(dataset) else f" ({len(indices)} of them, evenly spaced, were read)"
        head = report.lines()[0].partition(", ")[2] if report else "none could be read"
        lines.append(f"{split}: {len(dataset)} images{of}, {head}")
        reports += [report] if report else []
        if faults:
            lines.append(f"{split}: {len(faults)} of {len(indices)} could not be read, first: {faults[0]}")
    first = next(iter(splits.values()))
    meanings = class_meanings(first.lookup if isinstance(first, FileDataset) else None, labels)
    console.print(class_table(meanings, reports))
    for line in lines:
        say(console, line)


@dataclass(kw_only=True)
class DownloadData(Command):
    """Download a data set whose licence allows it from an open address, unpack and check it.

    Archives that are complete are not downloaded again. For other data sets, say where to get them and check the
    folder.

    Args:
        dataset: name of the data set, as 'crispseg data list' shows it.
        out: folder to download to, or to check.
    """

    name = "data download"
    words = ("dataset",)
    dataset: str
    out: Path

    def __call__(self) -> None:
        console = Console()
        entry = obtain(self.dataset, self.out, lambda line: say(console, line))
        if entry.archives:
            say(console, f"--data {entry.name} --data.root {self.out / entry.root}")


@dataclass(kw_only=True)
class ImportData(Command):
    """Turn annotations of COCO or labelme (JSON) or YOLO (text) into a folder of images, masks and classes.txt.

    Args:
        sources: JSON files of COCO (polygons and run lengths) or labelme, or folders of them; or a folder with YOLO's
            data.yaml, images and labels (polygons).
        out: new or empty folder to write to.
        images: folder that the names of images start from, or one above; by default that of each JSON file.
        classes: names in the order of the ids to be, as a list or a text file; by default COCO's in the order of their
            ids, labelme's in that of the alphabet. The background is put in front if it is not among them.
        background: class of pixels that no shape covers; null ignores them.
        ignore: names of classes whose pixels become 255.
    """

    name = "data import"
    words = ("sources",)
    sources: list[Path]
    out: Path
    images: Path | None = None
    classes: list[str] | Path | None = None
    background: str | None = "background"
    ignore: list[str] = field(default_factory=list)

    def __call__(self) -> None:
        keys = ("sources", "out", "images", "classes", "background", "ignore")
        done = import_annotations(**{key: getattr(self, key) for key in keys})
        for line in [*done.lines, f"train on them: crispseg train {shlex.quote(str(done.out))}"]:
            say(Console(), line)
