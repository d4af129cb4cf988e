"""Self-contained HTML pages: style, pictures, data and scripts, if any, are inside, and nothing is fetched.

Pages are jinja2 templates in `crispseg/templates`, which escape all text; names from files and users can be anything.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from crispseg.errors import CrispsegError
from crispseg.files import atomic_path, writable_file

SUFFIXES = (".html", ".htm")
WIDEST = 640
"""Pixels of the longer side to which pictures are reduced by default."""


@cache
def environment() -> Environment:
    """The templates of this package."""
    return Environment(
        loader=PackageLoader("crispseg"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> str:
    """A template of `crispseg/templates` with these values; text in them is escaped, `Markup` is not."""
    return environment().get_template(template).render(**{"style": "", "script": "", **values})


def page(title: str, *body: str, style: str = "", script: str = "") -> str:
    """A whole page of blocks of HTML; with a script, the browser is told to let it fetch nothing.

    Args:
        title: text, shown in the browser's tab only.
        body: blocks of HTML.
        style: CSS beyond what all pages share.
        script: JavaScript, run when the blocks are there; without it no script runs at all.

    Raises:
        ValueError: the script holds what would end it.
    """
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError("a script with '</script' or '<!--' in it would end early or not at all; write it otherwise")
    return render("page.html", title=title, body=Markup("\n".join(body)), style=Markup(style), script=Markup(script))


def _block(name: str, *values: Any) -> str:
    """A macro of `blocks.html`."""
    return str(getattr(environment().get_template("blocks.html").module, name)(*values))


def data_block(name: str, values: Any) -> str:
    """Values for a page's script, which finds them as JSON in the element of this id."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return _block("data", name, Markup(text))


def cards(values: Sequence[tuple[str, str, str]]) -> str:
    """Numbers to see first: name, value, and what is small below it."""
    return _block("cards", values)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls where it is too wide. `head` is text; cells are HTML."""
    return _block("table", head, [map(Markup, row) for row in rows])


def named(text: str, color: Sequence[int]) -> str:
    """A text behind its RGB colour, 0 to 255."""
    return _block("named", text, color)


class Picture(NamedTuple):
    """A picture inside a page, for the macro `img`."""

    source: str
    """The file, as a `data:` address."""
    width: int
    height: int
    text: str
    """For those who cannot see it."""


def embedded(pixels: NDArray[np.uint8], text: str, *, photo: bool = False, longest: int = WIDEST) -> Picture:
    """A picture as part of a page.

    Args:
        pixels: `(H, W, 3)` RGB; reduced by averaging until no side is longer than `longest`.
        text: for those who cannot see it.
        photo: save as JPEG, which is small but not exact; else as PNG.
        longest: pixels.
    """
    height, width = pixels.shape[:2]
    factor = longest / max(height, width)
    if factor < 1:
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    file = io.BytesIO()
    if photo:
        Image.fromarray(pixels).save(file, "JPEG", quality=85)
    else:
        _with_palette(pixels).save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    height, width = pixels.shape[:2]
    return Picture(f"data:image/{'jpeg' if photo else 'png'};base64,{data}", width, height, text)


def picture(pixels: NDArray[np.uint8], text: str, *, photo: bool = False, longest: int = WIDEST) -> str:
    """`embedded` as an `<img>`, HTML."""
    return _block("img", embedded(pixels, text, photo=photo, longest=longest))


def _with_palette(pixels: NDArray[np.uint8]) -> Image.Image:
    """The same picture with a palette where it has at most 256 colours: as a file it is then about half as large."""
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colors, indices = np.unique(packed, return_inverse=True)
    if len(colors) > 256:
        return Image.fromarray(pixels)
    picture = Image.fromarray(indices.reshape(packed.shape).astype(np.uint8))
    picture.putpalette(np.stack([colors >> 16, colors >> 8 & 255, colors & 255], axis=1).astype(np.uint8).tobytes())
    return picture


def check_page(path: Path) -> None:
    """Before long work starts, see that a page can be written there.

    Raises:
        CrispsegError: the name does not end in .html or .htm, or nothing can be written there.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise CrispsegError(f"cannot write a page to {path}: give a file that ends in .html")
    writable_file(path)


def write_page(path: str | Path, html: str) -> None:
    """Write a page.

    Raises:
        CrispsegError: as for `check_page`.
    """
    check_page(Path(path))
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
