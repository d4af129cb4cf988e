"""Public data sets: download, unpack, convert to the layout that is read, and check."""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pooch

from crispseg.data.catalogue import Archive, Entry, catalogue, readable_splits
from crispseg.data.conversion import convert, listed_masks
from crispseg.data.folder_layout import recognise
from crispseg.data.named import build_data
from crispseg.errors import CrispsegError, did_you_mean, one_line, telling
from crispseg.io.files import LITTER, owned, writable_folder

pooch.get_logger().setLevel("WARNING")


def obtain(name: str, out: Path, say: Callable[[str], None], keep_archives: bool = False) -> Entry:
    """Download a data set and check it, or check a folder of one that cannot be downloaded.

    Args:
        name: of the data set.
        out: folder to download to, or to check. Archives that are there are used.
        say: is given lines about what is found and done.
        keep_archives: whether to keep the archives when they are unpacked.

    Raises:
        CrispsegError: an unknown data set; one that cannot be downloaded and is not in the folder; a failed download, a
            wrong checksum or a damaged archive.
    """
    if name not in catalogue():
        raise CrispsegError(f"unknown data set '{name}'{did_you_mean(name, catalogue())}")
    entry = catalogue()[name]
    root = out / entry.root
    lines, problem = check_folder(entry, root)
    if problem and (entry.archives or (entry.root != "." and out.is_dir())):
        inside = {out / archive.folder for archive in entry.archives}
        with owned(out, *inside), telling(lambda: "run the same command again; complete archives are kept"):
            lines, problem = _converted(entry, out, say)
            if problem and entry.archives:
                say(f"{entry.title}; licence: {entry.licence}; {entry.home}")
                files = [fetch(archive, out) for archive in entry.archives]
                pairs = zip(files, entry.archives, strict=True)
                say(f"unpacked {sum(unpack(file, out / archive.folder) for file, archive in pairs)} files")
                for file in [] if keep_archives else files:
                    file.unlink()
                lines, problem = _converted(entry, out, say)
    if problem and not entry.archives:
        empty = not out.is_dir() or not any(out.iterdir())
        raise CrispsegError(
            f"{name} cannot be downloaded from here ({entry.licence}): go to {entry.home}, {entry.get}; "
            + (f"then check {out} by this command" if empty else f"{out} is not it yet: {problem}")
        )
    for line in lines:
        say(line)
    if problem:
        raise CrispsegError(f"{root} is not complete though all archives are unpacked: {problem}")
    return entry


def fetch(archive: Archive, folder: Path) -> Path:
    """Download an archive, or take the one that is there; either is compared with the published checksum.

    Raises:
        CrispsegError: the download failed, or the checksum is another.
    """
    path = writable_folder(folder) / archive.file
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder, prefix=LITTER) as place:
            try:
                Path(pooch.retrieve(archive.url, None, path.name, place, progressbar=sys.stderr.isatty())).rename(path)
            except OSError as error:  # as those of requests are
                raise CrispsegError(
                    f"{archive.url}: the download failed ({one_line(error)}); run the same command again, or put the "
                    f"file at {path} by other means ('curl -L -C - -o' resumes)"
                ) from None
    if archive.md5 and (found := pooch.file_hash(str(path), alg="md5")) != archive.md5:
        raise CrispsegError(f"{path} has the MD5 {found}, not {archive.md5}; remove it and run the same command again")
    return path


def unpack(path: Path, folder: Path) -> int:
    """Unpack an archive into a folder, over files that are there; the files appear when all of it could be read.

    Nothing is written outside of the folder, links are not made, and checksums within a zip are verified.

    Returns:
        How many files.

    Raises:
        CrispsegError: it is damaged, cut off or wants to write outside of the folder; or something is in the way of a
            file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=LITTER) as inside:
        try:
            shutil.unpack_archive(path, inside, filter=None if path.suffix.lower() == ".zip" else "data")
        except (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
            if isinstance(error, OSError) and error.errno:  # of the disk, not of the archive
                raise
            reason = one_line(error)
            raise CrispsegError(f"{path} cannot be unpacked ({reason}); remove it and download it again") from None
        files = [file for file in Path(inside).rglob("*") if file.is_file() and not file.is_symlink()]
        for file in files:
            target = folder / file.relative_to(inside)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)
            except OSError as error:
                remedy = "remove what is in the way or choose another folder"
                raise CrispsegError(f"cannot put {target} there ({error.strerror}); {remedy}") from None
    return len(files)


def _converted(entry: Entry, out: Path, say: Callable[[str], None]) -> tuple[list[str], str]:
    """Convert what was unpacked, if the layout that is read is another one, and check it."""
    root = out / entry.root
    if count := convert(entry.name, out, root):
        say(f"wrote {root}: {count} images; what was unpacked beside it is not needed any more")
    return check_folder(entry, root)


def check_folder(entry: Entry, root: Path) -> tuple[list[str], str]:
    """Return a line for each split that a data set's folder holds, and what is wrong; empty if it is complete."""
    faults: dict[str, str] = {}
    try:
        if entry.name == "sbd":
            found = {split: len(listed_masks(root, split)) for split in entry.counts}
        else:
            data: Mapping[str, Any] = {}
            with suppress(CrispsegError):  # a root may hold one of several layouts
                data = recognise(root) if root.is_dir() else {}
            known = data if data.get("name") == entry.name else {"name": entry.name, "root": str(root)}
            splits, faults = readable_splits(build_data(known))
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
