"""The command line."""

from collections.abc import Sequence
from importlib.resources import files

HELP = frozenset({"-h", "--help"})  # flags that ask for help


def first_page(words: Sequence[str]) -> str:
    """Return the first page of help of the command that the words begin with, a file of this package."""
    pages = {page.name: page for page in (files("crispseg.cli") / "help").iterdir()}
    page = pages.get(f"{' '.join(words[:2])}.txt") or pages[f"{words[0]}.txt"]
    return page.read_text("utf-8").rstrip()
