"""`crispseg data download NAME --out DIR`"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TaskID, TransferSpeedColumn

from crispseg.cli.parsing import Parser, build_data
from crispseg.data import DATA_SOURCES
from crispseg.data.catalogue import Entry, catalogue
from crispseg.data.dataset import DataSource
from crispseg.data.download import download
from crispseg.data.folder_layout import recognise
from crispseg.data.free.arrange import arrange
from crispseg.data.overview import readable_splits
from crispseg.data.sbd import listed_masks
from crispseg.errors import CrispsegError, did_you_mean, telling
from crispseg.io.files import owned


def run_download(argv: Sequence[str]) -> None:
    """`crispseg data download NAME --out DIR`"""
    parser = Parser(
        prog="crispseg data download",
        description="Download a data set whose licence allows it from an open address, unpack and check it; an "
        "interrupted one goes on where it broke off. For others, say where they are to be had and check the folder. "
        "Nuclei and aerial are brought into the layout that is read.",
    )
    parser.add_argument("name", help=f"one of {', '.join(catalogue())}")
    parser.add_argument("--out", type=Path, required=True, help="folder to download to, or to check")
    parser.add_argument("--keep_archives", type=bool, default=False, help="keep the archives when they are unpacked")
    parsed = parser.parse(argv)
    if parsed.name not in catalogue():
        extra = "" if parsed.name not in DATA_SOURCES else "; it needs no download"
        raise CrispsegError(f"unknown data set '{parsed.name}'{did_you_mean(parsed.name, catalogue())}{extra}")
    entry, out, console = catalogue()[parsed.name], parsed.out, Console()
    root = out / entry.root
    lines, problem = check_folder(entry, root)
    arranged = False
    if problem and (entry.archives or (entry.root != "." and out.is_dir())):
        again = "the same command goes on from what is there"
        with owned(out, *{out / one.folder for one in entry.archives}), telling(lambda: again):
            arranged = _arrange(entry, out, console) > 0
            lines, problem = check_folder(entry, root)  # which another process may have completed meanwhile
            if problem and entry.archives:
                say(console, f"{entry.title}; licence: {entry.licence}; {entry.home}")
                note = "no checksum is published; those of its files are verified when unpacking"
                for archive in (one for one in entry.archives if one.md5 is None):
                    say(console, f"{archive.file}: {note}")
                say(console, f"unpacked {_download(entry, out, parsed.keep_archives)} files")
                _arrange(entry, out, console)
                lines, problem = check_folder(entry, root)
    if problem and not entry.archives:
        empty = not out.is_dir() or not any(out.iterdir())
        raise CrispsegError(
            f"{entry.name} cannot be downloaded from here ({entry.licence}): go to {entry.home}, {entry.get}; "
            + (f"then check {out} by this command" if empty else f"{out} is not it yet: {problem}")
        )
    for line in lines:
        say(console, line)
    if problem:
        raise CrispsegError(f"{root} is not complete though all archives are unpacked: {problem}")
    if entry.archives or arranged:
        say(console, f"--data {entry.name} --data.root {root}" if entry.layout else entry.get)


def _arrange(entry: Entry, out: Path, console: Console) -> int:
    """Bring what was unpacked into the layout that is read, where that is another; the number of its images."""
    if count := arrange(entry.name, out, out / entry.root):
        say(console, f"wrote {out / entry.root}: {count} images; what was unpacked beside it is not needed any more")
    return count


def _download(entry: Entry, out: Path, keep: bool) -> int:
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        return download(entry, out, show, keep)


def check_folder(entry: Entry, root: Path) -> tuple[list[str], str]:
    """What a data set's folder holds, a line a split, and what is wrong with it; empty where it is complete."""
    found: dict[str, int] = {}
    faults: dict[str, str] = {}
    try:
        if entry.name == "sbd":
            for split in entry.counts:
                found[split] = len(listed_masks(root, split))
        else:
            splits, faults = readable_splits(_source(entry, root))
            found = {split: len(dataset) for split, dataset in splits.items()}
    except CrispsegError as error:
        return [], str(error)
    lines = [
        f"{split}: {count} images with masks in {root}, {entry.counts.get(split)} as published"
        for split, count in found.items()
    ]
    problems = list(faults.values())
    for split, count in entry.counts.items():
        if split in found and found[split] < count:
            problems.append(f"'{split}' has {found[split]} of {count} images")
        elif split not in found and split not in faults and split != "test":
            problems.append(f"'{split}' is missing")
    return lines, problems[0] if problems else ""


def _source(entry: Entry, root: Path) -> DataSource:
    """The data source at a root, which may hold one of several layouts."""
    data: Mapping[str, Any] = {}
    if root.is_dir():
        with suppress(CrispsegError):
            data = recognise(root)
    return build_data(data if data.get("name") == entry.name else {"name": entry.name, "root": str(root)})


def say(console: Console, line: str) -> None:
    """Print a line as it is, whatever the width of the terminal."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)
