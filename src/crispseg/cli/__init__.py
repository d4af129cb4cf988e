"""The command line."""

from collections.abc import Sequence
from importlib.resources import files

HELP = frozenset({"-h", "--help"})  # flags that ask for help
END = """
--json FILE writes the results as JSON; - prints them.
crispseg {} --help all explains every key."""


def first_page(words: Sequence[str]) -> str:
    """Return the first page of help of the command that the words begin with, a file of this package."""
    pages = {page.name.removesuffix(".txt"): page for page in (files("crispseg.cli") / "help").iterdir()}
    name = " ".join(words[:2])
    name = name if name in pages else words[0]
    page = pages[name].read_text("utf-8")
    is_group = any(other.startswith(f"{name} ") for other in pages)
    return page.rstrip() if is_group else page + END.format(name)
