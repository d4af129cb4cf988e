"""`crispseg data list|download|import`"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from crispseg.cli.command import Command, Group
from crispseg.config.settings import Field, Tree, checked, options_of
from crispseg.data.catalogue import catalogue
from crispseg.data.download import obtain
from crispseg.data.importing import import_annotations


class Data(Group):
    """List, download or import data sets and annotations."""

    name = "data"


class ListData(Command):
    """List public data sets: classes, images, licences and downloads."""

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
        print("--data NAME --data.root DIR trains on them; --data nuclei alone uses the bundled part")


@dataclass(kw_only=True)
class DownloadData(Command):
    """Download a data set from an open address if its licence allows it, then unpack and check it.

    Complete archives are not downloaded again. For other data sets, the command prints a link and checks the folder.

    Args:
        dataset: name of the data set in 'crispseg data list'.
        out: folder to download to, or to check.
    """

    name = "data download"
    words = ("dataset",)
    dataset: str
    out: Path

    def __call__(self) -> None:
        entry = obtain(self.dataset, self.out, partial(print, flush=True))
        if entry.archives:
            print(f"--data {entry.name} --data.root {self.out / entry.root}")


@dataclass(kw_only=True)
class ImportData(Command):
    """Convert annotations of a labelling tool to a folder of images, masks and classes.txt.

    COCO, YOLO (polygons), CVAT, Label Studio, labelme and GeoJSON (QuPath) are recognised.

    Args:
        sources: annotation files, or folders of them; for YOLO, a folder with data.yaml, labels and usually images.
        out: new or empty folder to write to.
    """

    name = "data import"
    words = ("sources",)
    sources: list[Path]
    out: Path
    options: Tree = field(init=False)

    @classmethod
    def more_keys(cls, tree: Tree) -> dict[str, dict[str, Field]]:
        return {"Options": options_of(import_annotations)}

    def take(self, tree: Tree) -> None:
        known = options_of(import_annotations)
        self.options = {key: checked(known[key].kind, tree.pop(key), key) for key in known if key in tree}
        super().take(tree)

    def __call__(self) -> None:
        lines = import_annotations(self.sources, self.out, **self.options)
        print(*lines, f"train on them: crispseg train {shlex.quote(str(self.out))}", sep="\n")
