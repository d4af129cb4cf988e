"""What a test registers is not known after it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from crispseg.decoders import contexts, fuses, merges
from crispseg.models.registry import models

REGISTRIES = (contexts, fuses, merges, models)


def plugins() -> set[str]:
    """Names of the modules that plugins were loaded as."""
    return {name for name in sys.modules if name.startswith("crispseg_plugin_")}


@contextmanager
def unknown_again() -> Iterator[None]:
    """As in a process of its own: what is registered inside is not known after it."""
    before = [{name: registry[name] for name in registry.names()} for registry in REGISTRIES]
    loaded = plugins()
    try:
        yield
    finally:
        for registry, entries in zip(REGISTRIES, before, strict=True):
            registry._entries.clear()
            registry._entries.update(entries)
        for name in plugins() - loaded:
            del sys.modules[name]
