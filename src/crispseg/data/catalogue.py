"""What is known about public data sets: sizes as published, licences, and where they are to be had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import Any
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
class Layout:
    """Where the files of a data set are below its root, and what mask values mean, as far as no code is needed.

    Paths end in "*" and how the names of the files end; "{}" stands for the official name of a split.
    """

    hint: str
    """What the root holds and where to get it, for errors."""
    values: str
    """How errors call the mask values."""
    images: str
    masks: Sequence[str]
    """The first of these that has files counts; where none has, errors name the shortest."""
    marks: Sequence[Mapping[str, Any]]
    """How a root is recognised: paths of which it "holds" all, and, where these call for it, "keys" of `data`."""
    list: str = ""
    """The file that names the images of a split; without it all that are there count."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Split → its official name, where that is another."""
    void: bool = False
    """Whether values that mean no class, up to the last that does, are ignored; else they are refused."""
    test: str = ""
    """Where the images are whose masks are not public, or the list that names them."""


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
    """Below the folder that is downloaded to, what `data.root` is."""
    layout: Layout | None = None


def _entry(layout: Mapping[str, Any] | None = None, archives: Sequence[Mapping[str, Any]] = (), **known: Any) -> Entry:
    found = tuple(Archive(**archive) for archive in archives)
    return Entry(**known, archives=found, layout=Layout(**layout) if layout else None)


@cache
def catalogue() -> dict[str, Entry]:
    """Data set → what is known about it; read from `catalogue.yaml`."""
    text = resources.files("crispseg.data").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return {entry["name"]: _entry(**entry) for entry in yaml.safe_load(text)}
