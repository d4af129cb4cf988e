"""`crispseg data download NAME --out DIR`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from crispseg.cli.parsing import Parser, Tree, build_data
from crispseg.data import DATA_SOURCES
from crispseg.data.base import read_lines
from crispseg.data.catalogue import CATALOGUE, Entry
from crispseg.data.download import download
from crispseg.data.overview import readable_splits
from crispseg.doctor.recognise import recognise
from crispseg.errors import CrispsegError, did_you_mean


def run_download(argv: Sequence[str]) -> None:
    """`crispseg data download NAME --out DIR`"""
    parser = Parser(
        prog="crispseg data download",
        description="Download a data set whose licence allows it from an open address, unpack and check it; an "
        "interrupted one goes on where it broke off. Of others, say where they are to be had and check the folder.",
    )
    parser.add_argument("name", help=f"one of {', '.join(CATALOGUE)}")
    parser.add_argument("--out", type=Path, required=True, help="folder to download to, or to check")
    parser.add_argument("--keep_archives", type=bool, default=False, help="keep the archives when they are unpacked")
    parsed = parser.parse(list(argv))
    if parsed.name not in CATALOGUE:
        extra = "" if parsed.name not in DATA_SOURCES else "; it needs no download"
        raise CrispsegError(f"unknown data set '{parsed.name}'{did_you_mean(parsed.name, CATALOGUE)}{extra}")
    entry = CATALOGUE[parsed.name]
    console = Console()
    root = parsed.out / entry.root
    lines, problem = check_folder(entry, root)
    if not entry.archives:
        if problem:
            empty = not parsed.out.is_dir() or not any(parsed.out.iterdir())
            raise CrispsegError(
                f"{entry.name} cannot be downloaded from here ({entry.licence}): go to {entry.home}, {entry.get}; "
                + (f"then check {parsed.out} by this command" if empty else f"{parsed.out} is not it yet: {problem}")
            )
        for line in lines:
            say(console, line)
        return
    if problem:
        say(console, f"{entry.title}; licence: {entry.licence}; {entry.home}")
        for archive in entry.archives:
            if archive.md5 is None:
                say(
                    console,
                    f"{archive.file}: no checksum is published; those of its files are verified when unpacking",
                )
        count = _download(entry, parsed.out, parsed.keep_archives)
        say(console, f"unpacked {count} files")
        lines, problem = check_folder(entry, root)
    for line in lines:
        say(console, line)
    if problem:
        raise CrispsegError(f"{root} is not complete though all archives are unpacked: {problem}")
    say(console, entry.get or f"--data {entry.name} --data.root {root}")


def _download(entry: Entry, out: Path, keep: bool) -> int:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        return download(entry, out, show, keep)


def check_folder(entry: Entry, root: Path) -> tuple[list[str], str]:
    """What a data set's folder holds, a line a split, and what is wrong with it; empty where it is complete."""
    if entry.name == "sbd":
        return _check_sbd(entry, root)
    data: Tree = {"name": entry.name, "root": str(root)}
    if root.is_dir():
        try:
            found = recognise(root).data
        except CrispsegError:
            found = {}
        data = dict(found) if found.get("name") == entry.name else data
    lines: list[str] = []
    problems: list[str] = []
    try:
        splits, faults = readable_splits(build_data(data))
    except CrispsegError as error:
        return [], str(error)
    for split, dataset in splits.items():
        published = entry.counts.get(split)
        lines.append(f"{split}: {len(dataset)} images with masks in {root}, {published} as published")
        if published is not None and len(dataset) < published:
            problems.append(f"'{split}' has {len(dataset)} of {published} images")
    problems += faults.values()
    missing = [split for split in entry.counts if split not in splits and split not in faults]
    problems += [f"'{split}' is missing" for split in missing if split != "test"]
    return lines, problems[0] if problems else ""


def _check_sbd(entry: Entry, root: Path) -> tuple[list[str], str]:
    lines: list[str] = []
    for split, published in entry.counts.items():
        listing = root / f"{split}.txt"
        if not listing.is_file():
            return lines, f"{listing} is missing"
        names = [line.split()[0] for line in read_lines(listing)]
        lost = [name for name in names if not (root / "cls" / f"{name}.mat").is_file()]
        lines.append(f"{split}: {len(names) - len(lost)} masks in {root}, {published} as published")
        if lost or len(names) < published:
            missing = f", first cls/{lost[0]}.mat is missing" if lost else ""
            return lines, f"'{split}' has {len(names) - len(lost)} of {published} masks{missing}"
    return lines, ""


def say(console: Console, line: str) -> None:
    """Print a line as it is, whatever the width of the terminal."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)
