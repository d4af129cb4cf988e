"""Tables of the site that are made from what the code reads: options of models, rows of the papers' tables."""

from __future__ import annotations

import inspect
import re
from typing import Any

from crispseg.models import list_models, models
from crispseg.models.registry import model_options
from crispseg.recipes import PaperRow, read_rows


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page."""
    markdown = re.sub(r"\{\{ rows (\w+) \}\}", lambda found: rows_of(found[1]), markdown)
    return markdown.replace("{{ options }}", "\n".join(map(options_of, list_models())), 1)


def rows_of(paper: str) -> str:
    """The rows of a paper's tables that are trained here, with its values and the counts of the models here."""
    head = ["| row | in the paper | model | mIoU | M parameters | G multiply-adds | |", "| --- " * 7 + "|"]
    return "\n".join(head + [line_of(row) for row in read_rows(paper) if row.row])


def line_of(row: PaperRow) -> str:
    """A row of that table; what the paper counts is followed by what is counted here."""
    counts = row.counts() if row.parameters or row.multiply_adds else None
    shown = ["" if row.miou is None else f"{row.miou:g}"]
    for at, paper in enumerate((row.parameters, row.multiply_adds)):
        shown.append(f"{paper:g}; {counts[at]:.2f}" if counts and paper else "")
    options = " ".join(f"{key}={value}".replace(" ", "") for key, value in row.model.items() if key != "name")
    return " | ".join([f"| `{row.name}`", row.label, f"`{row.model['name']}` `{options}`", *shown, f"{row.note} |"])


def options_of(name: str) -> str:
    """A heading, the builder's first line and a table of its options."""
    summary = (inspect.getdoc(models[name]) or "").partition("\n")[0]
    rows = [
        f"| `{key}` | `{option.default!r}` | {inspect.formatannotation(option.kind)} | {option.about} |"
        for key, option in model_options(name).items()
    ]
    rows = [row.replace(" | None |", " or None |").replace("typing.", "") for row in rows]
    head = [f"### `{name}`", "", summary, "", "| option | default | type | what it is |"]
    return "\n".join([*head, "| --- | --- | --- | --- |", *rows, ""])
