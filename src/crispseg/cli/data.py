"""`crispseg data list|import`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from crispseg.cli.command import Command, Group
from crispseg.cli.hints import after_import
from crispseg.cli.keys import WithOptions
from crispseg.data.catalogue import catalogue
from crispseg.data.importing import import_annotations


class Data(Group):
    """List data sets, or import annotations."""

    name = "data"


class ListData(Command):
    """List public data sets: classes, images, licences and web pages."""

    name = "data list"

    def __call__(self) -> None:
        numbers = [Column(header, justify="right", no_wrap=True) for header in ("classes", "train", "val")]
        columns = (Column("name", no_wrap=True), *numbers, Column("licence"), Column("web page", overflow="fold"))
        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for entry in catalogue().values():
            counts = [str(entry.counts.get(split, "")) for split in ("train", "val")]
            table.add_row(entry.name, entry.classes, *counts, entry.licence, entry.home)
        Console().print(table)
        print("--data NAME --data.root DIR trains on them; --data nuclei alone uses the bundled part")


@dataclass(kw_only=True)
class ImportData(WithOptions):
    """Convert annotations of a labelling tool to a folder of images, masks and classes.txt.

    COCO, YOLO (polygons), CVAT, Label Studio, labelme and GeoJSON (QuPath) are recognised.

    Args:
        sources: annotation files, or folders of them; for YOLO, a folder with data.yaml, labels and usually images.
        out: new or empty folder to write to.
    """

    name = "data import"
    words = ("sources",)
    function = staticmethod(import_annotations)
    sources: list[Path]
    out: Path

    def __call__(self) -> None:
        lines = import_annotations(self.sources, self.out, **self.options)
        print(*lines, "next:", f"  {after_import(self.out)}", sep="\n")
