"""The DATA that a command starts with: a name, a path, or nothing where `--data` says it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crispseg.cli.parsing import Parser, Tree, data_name, data_source, one_too_many, read_yaml
from crispseg.cli.scoring import recorded_data
from crispseg.data import DATA_SOURCES
from crispseg.data.folder_layout import recognise
from crispseg.errors import CrispsegError
from crispseg.models.saving import WEIGHTS_FILE
from crispseg.training.config import CONFIG


def take_target(argv: Sequence[str], parser: Parser, about: str) -> str | None:
    """The first word of a command if it is no flag; None where `--data` names a data source.

    Raises:
        CrispsegError: there is neither, or no such data source. `--help` without them prints what there is to know.
    """
    if argv and not argv[0].startswith("-"):
        if len(argv) > 1 and not argv[1].startswith("-"):
            raise one_too_many(*argv[:2])
        parser.add_argument("target", metavar="DATA", help=about)
        return argv[0]
    named = data_name(argv)
    if named is None or "--help" in argv or "-h" in argv:
        parser.add_argument("target", metavar="DATA", nargs="?", help=about)
        parser.add_argument("--data", help="data, as for training; brings --data.* keys")
        parser.parse(argv)  # --help, or what is wrong
        raise CrispsegError(f"give the data first: {parser.prog} DATA, or --data with its keys")
    data_source(named)  # a did-you-mean for a wrong name
    return None


def found_data(target: str) -> tuple[Tree, int]:
    """The settings of `--data.*` that a path or a name means, and the channels of the model that a run recorded."""
    path = Path(target)
    if not path.exists() and target in DATA_SOURCES:
        return {"name": target}, 3
    if path.is_file() or (path / CONFIG).is_file() or (path / WEIGHTS_FILE).is_file():
        settings = path if path.is_file() else path / CONFIG
        tree: dict[str, Any] = read_yaml(settings) if settings.is_file() else recorded_data(target)
        if not tree.get("data"):
            raise CrispsegError(f"{target} does not say which data it is about; give --data with its keys")
        return tree["data"], int((tree.get("model") or {}).get("in_chans", 3))
    return recognise(path), 3
