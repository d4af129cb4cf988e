"""`crispseg data list|show|download|import|augment`"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jsonargparse.typing import PositiveInt
from rich.console import Console
from rich.table import Column, Table

from crispseg.cli.downloading import run_download, say
from crispseg.cli.parsing import Parser, data_name, data_source, parse_data, take_flag
from crispseg.cli.target import take_target
from crispseg.data import DATA_SOURCES
from crispseg.data.catalogue import Entry, catalogue
from crispseg.data.dataset import FileDataset, SegmentationDataset
from crispseg.data.folder import Folder
from crispseg.data.folder_layout import recognise
from crispseg.data.importing import import_annotations
from crispseg.data.overview import class_meanings, class_table, readable_splits, spread
from crispseg.data.sbd import IMAGES, augment
from crispseg.data.sources import PublicSource
from crispseg.data.split_check import survey
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.io.images import write_image
from crispseg.labels import LabelSet
from crispseg.visualization.contact_sheet import contact_sheet


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return
    name, *rest = argv
    if name not in COMMANDS:
        raise CrispsegError(f"unknown command 'data {name}'{did_you_mean(name, COMMANDS)}")
    COMMANDS[name][0](rest)


def run_list(argv: Sequence[str]) -> None:
    """`crispseg data list`"""
    Parser(prog="crispseg data list", description="Public data sets that are known, as published.").parse(list(argv))
    numbers = [Column(header, justify="right", no_wrap=True) for header in ("classes", "train", "val")]
    columns = (Column("name", no_wrap=True), *numbers, Column("download", no_wrap=True), Column("licence"))
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for entry in catalogue().values():
        sizes = [archive.size for archive in entry.archives]
        size = f"yes, {sum(filter(None, sizes)) / 1e9:.0f} GB" if sizes and any(sizes) else "yes" if sizes else "no"
        counts = [str(entry.counts.get(split, "")) for split in ("train", "val")]
        table.add_row(entry.name, entry.classes, *counts, size, entry.licence)
    console = Console()
    console.print(table)
    say(
        console,
        "--data NAME --data.root DIR trains on them. --data folder takes own images and masks, and "
        "--data nuclei without a root takes the part that comes with crispseg.",
    )


def run_show(argv: Sequence[str]) -> None:
    """`crispseg data show NAME|DIR [--data.key value ...] [--out FILE]`"""
    parser = Parser(
        prog="crispseg data show",
        description="Print what the values of the masks mean, and the images, sizes and classes of each split. Without "
        "--data.root, what is known about a public data set.",
    )
    parser.add_argument("--out", type=Path | None, help="write a sheet of images and labels: .png or .jpg")
    parser.add_argument("--rows", type=PositiveInt, default=4, help="images of each split in the sheet")
    parser.add_argument(
        "--sample", type=PositiveInt, default=200, help="images of each split that are read to count pixels"
    )
    target = take_target(argv, parser, "a data set's name, or a folder of data in a known layout; else --data says it")
    console = Console()
    if target in catalogue() and target not in DATA_SOURCES:
        _show_entry(catalogue()[target], console)
        return
    if target is not None and target not in DATA_SOURCES and Path(target).exists():
        found = recognise(Path(target))
    else:
        found = {"name": target or data_name(argv)}
    public = issubclass(data_source(found["name"]), PublicSource)
    rootless = public and "root" not in found and take_flag(argv, "--data.root") is None
    base = {"data": {**found, "root": "."} if rootless else found}
    parsed, source = parse_data(argv, base, parser)

    if source.name in catalogue():
        _show_entry(catalogue()[source.name], console)
    if rootless and isinstance(source, PublicSource):
        if parsed.out is not None:
            raise CrispsegError("--out shows images, so it needs --data.root")
        _show_classes(source, console)
        return
    splits, faults = readable_splits(source)
    if not splits:
        raise CrispsegError(next(iter(faults.values()), f"{source.name} has no splits"))
    _show_data(source.label_set(), splits, parsed.sample, console)
    for line in source.notes() if isinstance(source, Folder) else ():
        say(console, line)
    for split, fault in faults.items():
        say(console, f"{split}: {fault}")
    if parsed.out is not None:
        write_image(parsed.out, contact_sheet(splits, source.label_set(), parsed.rows))
        say(console, f"a sheet of images is in {parsed.out}")


def _show_entry(entry: Entry, console: Console) -> None:
    counts = ", ".join(f"{split} {count}" for split, count in entry.counts.items())
    say(console, f"{entry.name}: {entry.title}, {entry.classes} classes; as published: {counts} images with masks")
    say(console, f"licence: {entry.licence}; {entry.home}")
    if entry.get:
        say(console, entry.get)


def _show_classes(source: PublicSource, console: Console) -> None:
    """The mapping, from what is known without files."""
    try:
        rows = class_meanings(source.lookup(), source.label_set())
    except CrispsegError as error:  # Mapillary's classes are in its own files
        say(console, f"the classes: {error}")
        return
    console.print(class_table(rows))
    say(console, "give --data.root DIR to count and to see images")


def _show_data(labels: LabelSet, splits: Mapping[str, SegmentationDataset], sample: int, console: Console) -> None:
    """The mapping with the share of each class, and a line for each split."""
    first = next(iter(splits.values()))
    reports = []
    lines = []
    for split, dataset in splits.items():
        count, indices = len(dataset), spread(len(dataset), sample)
        report, faults = survey(dataset, split, indices, dataset.read_labels, f"Reading {split}")
        of = "" if len(indices) == count else f" ({len(indices)} of them, evenly spaced, were read)"
        if report is None:
            lines.append(f"{split}: {count} images; none could be read")
        else:
            head = report.lines()[0].partition(", ")[2]
            lines.append(f"{split}: {count} images{of}, {head}")
            reports.append(report)
        if faults:
            lines.append(f"{split}: {len(faults)} of {len(indices)} could not be read, first: {faults[0]}")
    console.print(
        class_table(class_meanings(first.lookup if isinstance(first, FileDataset) else None, labels), reports)
    )
    for line in lines:
        say(console, line)


def run_import(argv: Sequence[str]) -> None:
    """`crispseg data import FILE_OR_DIR... --out DIR`"""
    parser = Parser(
        prog="crispseg data import",
        description="Turn instances in COCO's JSON (polygons and run lengths) or labelme's JSON files into images, "
        "masks and classes.txt, which --data folder reads.",
    )
    parser.add_argument("sources", nargs="+", type=Path, help="JSON files, or folders of them")
    parser.add_function_arguments(import_annotations, as_group=False, skip={"sources"})
    done = import_annotations(**vars(parser.parse(argv)))
    for line in [*done.lines(), f"--data folder --data.root {done.out}"]:
        say(Console(), line)


def run_augment(argv: Sequence[str]) -> None:
    """`crispseg data augment --root VOC2012 --sbd DIR`"""
    parser = Parser(
        prog="crispseg data augment",
        description="Write SegmentationClassAug and train_aug.txt into the folder of PASCAL VOC 2012 from SBD's masks.",
    )
    parser.add_function_arguments(augment, as_group=False)
    parsed = parser.parse(argv)
    done = augment(**vars(parsed))
    count = done.from_voc + done.from_sbd
    other = "" if count == IMAGES else f"; papers train on {IMAGES}"
    say(Console(), f"wrote {done.folder}: {count} masks, {done.from_voc} of VOC and {done.from_sbd} of SBD{other}")
    say(Console(), f"--data voc2012 --data.root {parsed.root} --data.train_on aug")


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "list": (run_list, "data sets: classes, images, licences, and which can be downloaded"),
    "show": (run_show, "what the masks' values mean, counts of each split, and a sheet of pictures"),
    "download": (run_download, "get a data set and check it; or say where it is to be had, and check a folder of it"),
    "import": (run_import, "turn annotations of COCO or labelme into a folder of masks"),
    "augment": (run_augment, "make the augmented training set of PASCAL VOC 2012 from SBD"),
}

HELP = "\n".join(
    [
        f"usage: crispseg data {'|'.join(COMMANDS)} [...]\n\nPublic data sets and annotations.\n",
        *(f"  {name:12}{text}" for name, (_, text) in COMMANDS.items()),
        "\ncrispseg data COMMAND --help explains the keys.",
    ]
)
