"""What is known about public data sets: sizes as published, licences, and where they are to be had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import yaml


@dataclass(frozen=True)
class Archive:
    """A file at an open address.

    A checksum is given where one is published; `source` says where. Without one, a zip's own checksums of its files,
    which are verified when it is unpacked, have to do.
    """

    url: str
    md5: str | None = None
    size: int | None = None
    """Bytes, where published."""
    folder: str = "."
    """Below the folder that is downloaded to, where it is unpacked."""
    source: str = ""

    @property
    def file(self) -> str:
        """Its name."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class Entry:
    """One data set."""

    name: str
    """That of the data source; SBD is none."""
    title: str
    classes: str
    counts: Mapping[str, int]
    """Images with public masks in each split, as published."""
    licence: str
    home: str
    """Where its owners describe it."""
    get: str = ""
    """What to get there and where to put it, where it cannot be downloaded here; or what to do with it."""
    archives: tuple[Archive, ...] = ()
    root: str = "."
    """Below the folder that is downloaded to, what `--data.root` is."""


def _read() -> dict[str, Entry]:
    text = resources.files("crispseg.data").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    archives = ((one, tuple(Archive(**found) for found in one.pop("archives", ()))) for one in yaml.safe_load(text))
    return {one["name"]: Entry(**one, archives=found) for one, found in archives}


CATALOGUE: dict[str, Entry] = _read()
"""Data set → what is known about it."""
