"""Data sources by name, with their settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from crispseg.config.settings import Field, construct, fields_of
from crispseg.data import DATA_SOURCES, DataSource, Folder
from crispseg.data.catalogue import catalogue
from crispseg.errors import CrispsegError, did_you_mean

OWN = ("images", "masks", "instances")
"""Settings that mean own data unless the data that are named have them too."""


def data_source(name: str) -> type[DataSource]:
    """Return the data source of this name.

    Raises:
        CrispsegError: there is none.
    """
    if name in DATA_SOURCES:
        return DATA_SOURCES[name]
    if Path(name).is_dir():
        raise CrispsegError(f"is the folder {name}; give it first, without a key, or as data.root", "data")
    raise CrispsegError(f"unknown data '{name}'{did_you_mean(name, DATA_SOURCES)}")


def data_fields(name: str) -> dict[str, Field]:
    """Return the settings of a data source; one of its fields may be called as its name is."""
    return fields_of(data_source(name))


def build_data(settings: Mapping[str, Any]) -> DataSource:
    """Return the data source that settings describe.

    Args:
        settings: its `name` and its fields; "folder" where there is no name.

    Raises:
        CrispsegError: no such data, an unknown or missing field, or a value that it cannot have.
    """
    name, values = str(settings.get("name", Folder.name)), {key: settings[key] for key in settings if key != "name"}
    kind, entry = data_source(name), catalogue().get(name)
    root = fields_of(kind).get("root")
    known = values.keys() <= fields_of(kind).keys()
    if root and root.default is MISSING and "root" not in values and known and entry and entry.layout:
        raise CrispsegError(f"is missing; {entry.layout.hint}", "data.root")
    return construct(kind, values, "data.")


def own_data_meant(keys: Iterable[str], name: str | None) -> bool:
    """Return whether keys without a name mean own data: one of `OWN` is among them that the data of this name lack."""
    return bool({*OWN} & {*keys} - (data_fields(name).keys() if name else set()))
