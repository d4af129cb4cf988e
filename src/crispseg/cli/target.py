"""The DATA that a command starts with: a name, a path, or nothing where `--data` says it."""

from __future__ import annotations

from collections.abc import Sequence

from crispseg.cli.parsing import Parser, data_name, data_source
from crispseg.errors import CrispsegError


def take_target(argv: Sequence[str], parser: Parser, about: str) -> str | None:
    """The first word of a command if it is no flag; None where `--data` names a data source.

    Raises:
        CrispsegError: there is neither, or no such data source. `--help` without them prints what there is to know.
    """
    if argv and not argv[0].startswith("-"):
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
