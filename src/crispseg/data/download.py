"""Public data sets: download, unpack and check."""

from __future__ import annotations

import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pooch

from crispseg.data.catalogue import Archive, Entry, catalogue
from crispseg.data.named import build_data
from crispseg.errors import CrispsegError, did_you_mean, one_line

pooch.get_logger().setLevel("WARNING")


def obtain(name: str, out: Path, say: Callable[[str], None]) -> Entry:
    """Download a data set and check it, or check a folder of one that cannot be downloaded.

    Args:
        name: of the data set.
        out: folder to download to, or to check. Archives that are there are used, and removed when all is complete.
        say: is given lines about what is found and done.

    Raises:
        CrispsegError: an unknown data set; one that cannot be downloaded and is not in the folder; a failed download, a
            wrong checksum or a damaged archive.
    """
    if name not in catalogue():
        raise CrispsegError(f"unknown data set '{name}'{did_you_mean(name, catalogue())}")
    entry = catalogue()[name]
    root = out / entry.root
    lines, problem = check_folder(entry, root)
    if problem and not entry.archives:
        how = f"go to {entry.home}, {entry.get}; then check {out} by this command; now: {problem}"
        raise CrispsegError(f"{name} cannot be downloaded from here ({entry.licence}): {how}")
    if problem:
        say(f"{entry.title}; licence: {entry.licence}; {entry.home}")
        files = [fetch(archive, out) for archive in entry.archives]
        for file, archive in zip(files, entry.archives, strict=True):
            unpack(file, out / archive.folder)
        lines, problem = check_folder(entry, root)
        if problem:
            raise CrispsegError(f"{root} is not complete though all archives are unpacked: {problem}")
        for file in files:
            file.unlink()
    for line in lines:
        say(line)
    return entry


def fetch(archive: Archive, folder: Path) -> Path:
    """Download an archive, unless it is there with the published checksum.

    Raises:
        CrispsegError: the download failed, or the checksum is another.
    """
    known = f"md5:{archive.md5}" if archive.md5 else None
    try:
        return Path(pooch.retrieve(archive.url, known, archive.file, folder, progressbar=sys.stderr.isatty()))
    except (OSError, ValueError) as error:  # requests' errors are of the first kind, a wrong checksum of the second
        failed = f"{archive.url}: the download failed ({one_line(error)})"
        raise CrispsegError(f"{failed}; run the same command again, or put it at {folder / archive.file}") from None


def unpack(path: Path, folder: Path) -> None:
    """Unpack an archive into a folder, over files that are there; nothing is written outside of it.

    Raises:
        CrispsegError: it is damaged or cut off, wants to write outside of the folder, or the disk is full.
    """
    try:
        shutil.unpack_archive(path, folder, filter=None if path.suffix.lower() == ".zip" else "data")
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        reason = f"{path} cannot be unpacked ({one_line(error)})"
        raise CrispsegError(f"{reason}; free space, or remove it and download it again") from None


def check_folder(entry: Entry, root: Path) -> tuple[list[str], str]:
    """Return a line for each split that a data set's folder holds, and what is wrong; empty if it is complete."""
    try:
        source = build_data({"name": entry.name, "root": str(root)})
        found = {split: len(source.dataset(split)) for split in source.splits()}
    except CrispsegError as error:
        return [], str(error)
    lines = [f"{split}: {found[split]} images in {root}, {entry.counts.get(split)} as published" for split in found]
    for split, count in entry.counts.items():
        if found.get(split, 0) < count and split != "test":
            return lines, f"'{split}' has {found.get(split, 0)} of {count} images"
    return lines, ""
