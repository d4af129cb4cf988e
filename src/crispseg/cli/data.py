"""`crispseg data list|get|import`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shutil import copy
from typing import Literal

from rich.console import Console
from rich.table import Column, Table

from crispseg.cli.command import Command
from crispseg.cli.keys import WithOptions
from crispseg.data.catalogue import catalogue
from crispseg.data.importing import import_annotations
from crispseg.data.sources import Nuclei
from crispseg.errors import command_line
from crispseg.io.files import check_new_folder, writable_folder


class ListData(Command):
    """List public data sets: classes, images, licences and web pages."""

    name = "data list"

    def __call__(self) -> None:
        numbers = [Column(header, justify="right", no_wrap=True) for header in ("classes", "train", "val")]
        columns = (Column("name", no_wrap=True), *numbers, Column("licence"), Column("web page", overflow="fold"))
        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for entry in catalogue().values():
            counts = [str(entry.counts.get(split, "")) for split in ("train", "val")]
            shown = {key: getattr(entry, key) for key in ("classes", "counts", "licence", "home")}
            self.results[entry.name] = shown
            table.add_row(entry.name, entry.classes, *counts, entry.licence, entry.home)
        Console().print(table)
        print("--data NAME --data.root DIR trains on them; --data nuclei alone uses the bundled part")


@dataclass(kw_only=True)
class GetData(Command):
    """Copy the bundled images to a folder, as an example of your own: microscope images and masks of their nuclei.

    The masks are instance masks: 0 is background, and each nucleus has a number. Sub-folders are the splits.

    Args:
        source: name of the data, nuclei.
        out: new or empty folder to write to.
    """

    name = "data get"
    words = ("source", "out")
    source: Literal["nuclei"]
    out: Path

    def __call__(self) -> None:
        check_new_folder(self.out)
        nuclei = Nuclei()
        for split in nuclei.splits():
            for pair in nuclei.pairs(split):
                copy(pair.image, writable_folder(self.out / "images" / split))
                copy(pair.mask, writable_folder(self.out / "instances" / split))
        settings = {kind: str(self.out / kind) for kind in ("images", "instances")}
        settings |= {"classes": "[background,nucleus,border]", "out": f"runs/{self.out.name}"}
        step = command_line(["train"], settings)
        self.results |= {"out": self.out, "next": step}
        print(f"wrote {self.out}", "next:", f"  {step}", sep="\n")


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
        step = command_line(["train", self.out], {"out": f"runs/{self.out.name}"})
        self.results |= {"out": self.out, "summary": lines, "next": step}
        print(*lines, "next:", f"  {step}", sep="\n")
