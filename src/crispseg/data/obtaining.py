"""Getting a public data set: download, unpack, bring into the layout that is read, and check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from crispseg.data.catalogue import Entry, catalogue, readable_splits
from crispseg.data.dataset import DataSource
from crispseg.data.download import Progress, download
from crispseg.data.folder_layout import recognise
from crispseg.data.free.arrange import arrange
from crispseg.data.named import build_data
from crispseg.data.sbd import listed_masks
from crispseg.errors import CrispsegError, did_you_mean, telling
from crispseg.io.files import owned


def obtain(name: str, out: Path, progress: Progress, say: Callable[[str], None], keep_archives: bool = False) -> Entry:
    """Download a data set and check it, or check a folder of one that cannot be downloaded.

    Args:
        name: of the data set.
        out: folder to download to, or to check; an interrupted download goes on where it broke off.
        progress: called with the progress of the download.
        say: is given lines about what is found and done.
        keep_archives: whether to keep the archives when they are unpacked.

    Returns:
        What is known about the data set.

    Raises:
        CrispsegError: an unknown data set; one that cannot be downloaded and is not in the folder; as `download`.
    """
    if name not in catalogue():
        raise CrispsegError(f"unknown data set '{name}'{did_you_mean(name, catalogue())}")
    entry = catalogue()[name]
    root = out / entry.root
    lines, problem = check_folder(entry, root)
    if problem and (entry.archives or (entry.root != "." and out.is_dir())):
        again = "the same command goes on from what is there"
        with owned(out, *{out / one.folder for one in entry.archives}), telling(lambda: again):
            _arrange(entry, out, say)
            lines, problem = check_folder(entry, root)  # which another process may have completed meanwhile
            if problem and entry.archives:
                say(f"{entry.title}; licence: {entry.licence}; {entry.home}")
                note = "no checksum is published; those of its files are verified when unpacking"
                for archive in (one for one in entry.archives if one.md5 is None):
                    say(f"{archive.file}: {note}")
                say(f"unpacked {download(entry, out, progress, keep_archives)} files")
                _arrange(entry, out, say)
                lines, problem = check_folder(entry, root)
    if problem and not entry.archives:
        empty = not out.is_dir() or not any(out.iterdir())
        raise CrispsegError(
            f"{entry.name} cannot be downloaded from here ({entry.licence}): go to {entry.home}, {entry.get}; "
            + (f"then check {out} by this command" if empty else f"{out} is not it yet: {problem}")
        )
    for line in lines:
        say(line)
    if problem:
        raise CrispsegError(f"{root} is not complete though all archives are unpacked: {problem}")
    return entry


def _arrange(entry: Entry, out: Path, say: Callable[[str], None]) -> None:
    """Bring what was unpacked into the layout that is read, if that is another one."""
    if count := arrange(entry.name, out, out / entry.root):
        say(f"wrote {out / entry.root}: {count} images; what was unpacked beside it is not needed any more")


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
