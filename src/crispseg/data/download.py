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
    """Download and check a data set, or check the folder of one that cannot be downloaded.

    Args:
        out: folder to download to, or to check. Existing archives are used, and removed when all is complete.
        say: called with each line of progress.
    """
    if name not in catalogue():
        raise CrispsegError(f"unknown data set '{name}'{did_you_mean(name, catalogue())}")
    entry = catalogue()[name]
    try:
        lines = _checked(entry, out)
    except CrispsegError as problem:
        if not entry.archives:
            how = f"go to {entry.home}, {entry.get}; then check {out} with this command; currently, {problem}"
            raise CrispsegError(f"{name} cannot be downloaded from here ({entry.licence}): {how}") from None
        say(f"{entry.title}; licence: {entry.licence}; {entry.home}")
        files = [fetch(archive, out) for archive in entry.archives]
        lines = _checked(entry, out)
        for file in files:
            file.unlink()
    for line in lines:
        say(line)
    return entry


def fetch(archive: Archive, folder: Path) -> Path:
    """Download an archive unless it exists with the published checksum, and unpack it over existing files."""
    known, path = f"md5:{archive.md5}" if archive.md5 else None, folder / archive.file
    try:
        pooch.retrieve(archive.url, known, archive.file, folder, progressbar=sys.stderr.isatty())
    except (OSError, ValueError) as error:  # from requests, and for a wrong checksum
        failed = f"{archive.url}: the download failed ({one_line(error)})"
        raise CrispsegError(f"{failed}; run the same command again, or put it at {path}") from None
    try:
        shutil.unpack_archive(path, folder / archive.folder, filter=None if path.suffix == ".zip" else "data")
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        reason = f"{path} cannot be unpacked ({one_line(error)})"
        raise CrispsegError(f"{reason}; free space, or remove it and download it again") from None
    return path


def _checked(entry: Entry, out: Path) -> list[str]:
    """Return a line for each split of a data set; raise an error if it is incomplete."""
    root = out / entry.root
    source = build_data({"name": entry.name, "root": str(root)})
    found = {split: len(source.dataset(split)) for split in source.splits()}
    for split, count in entry.counts.items():
        if found.get(split, 0) < count and split != "test":
            raise CrispsegError(f"'{split}' has {found.get(split, 0)} of {count} images in {root}; get the others")
    return [f"{split}: {found[split]} images in {root}, {entry.counts.get(split)} as published" for split in found]
