"""Self-contained HTML pages: style, pictures, data and scripts, if any, are inside, and nothing is fetched.

Pages are jinja2 templates in `visualization/templates`. They escape all text: names of files may be anything.
"""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from crispseg.errors import CrispsegError
from crispseg.io.files import atomic_path, writable_file
from crispseg.labels import Color


@cache
def environment() -> Environment:
    """The templates of this package. Values for scripts go through `tojson`."""
    loader = PackageLoader("crispseg.visualization")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def render(template: str, **values: Any) -> str:
    """A page: a template of `crispseg/visualization/templates` with these values, in which text is escaped."""
    return environment().get_template(template).render(**values)


def notebook(**parts: Any) -> str:
    """What a notebook shows of a result: some of title, values, note, curve, picture, colors and classes."""
    empty = dict.fromkeys(("title", "note", "curve", "picture", "classes"), None) | {"values": (), "colors": ()}
    return render("notebook.html", **{**empty, **parts})


class Picture(NamedTuple):
    """A picture inside a page, for the macro `img`.

    Args:
        source: the file, as a `data:` address.
        width, height: pixels.
        text: for those who cannot see it.
    """

    source: str
    width: int
    height: int
    text: str


def embedded(
    pixels: NDArray[np.uint8], text: str, *, photo: bool = False, longest: int = 640, clear: Color | None = None
) -> Picture:
    """A picture `(H, W, 3)` RGB as part of a page, reduced until no side is longer than `longest` pixels.

    Args:
        pixels: the picture.
        text: for those who cannot see it.
        photo: save as JPEG, which is small but not exact; else as PNG.
        longest: pixels.
        clear: a colour to see through, of a picture of at most 256 colours that is no photo.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.BOX)
    file = io.BytesIO()
    if photo:
        image.save(file, "JPEG", quality=85)
    else:
        options = {}
        if image.getcolors(256):
            image = image.quantize(256)  # exact, and half as large a file
            assert image.palette is not None
            if clear in image.palette.colors:
                options = {"transparency": image.palette.colors[clear]}
        image.save(file, "PNG", optimize=True, **options)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(f"data:image/{'jpeg' if photo else 'png'};base64,{data}", *image.size, text)


def check_page(path: Path, *suffixes: str) -> None:
    """Raise a CrispsegError, before long work, if a page (.html, .htm), or another file, cannot be written there."""
    suffixes = suffixes or (".html", ".htm")
    if path.suffix.lower() not in suffixes:
        raise CrispsegError(f"cannot write {path}: give a file that ends in {suffixes[0]}")
    writable_file(path)


def write_page(path: Path, html: str) -> None:
    """Write a page to where `check_page` allowed it."""
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
