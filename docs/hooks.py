"""What the site says of each model's options comes from the code that reads them."""

from __future__ import annotations

import inspect
from typing import Any

from crispseg.models import list_models, models
from crispseg.models.registry import explained_options, model_options


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page."""
    return markdown.replace("{{ options }}", "\n".join(map(options_of, list_models())), 1)


def options_of(name: str) -> str:
    """A heading, the builder's first line and a table of its options."""
    summary = (inspect.getdoc(models[name]) or "").partition("\n")[0]
    texts = explained_options(name)
    rows = [
        f"| `{key}` | `{option.default!r}` | {inspect.formatannotation(option.annotation)} | {texts.get(key, '')} |"
        for key, option in model_options(name).items()
    ]
    rows = [row.replace(" | None |", " or None |").replace("typing.", "") for row in rows]
    head = [f"### `{name}`", "", summary, "", "| option | default | type | what it is |"]
    return "\n".join([*head, "| --- | --- | --- | --- |", *rows, ""])
