"""Self-contained HTML pages, which include their style, images, data and scripts, and fetch nothing.

Pages are jinja2 templates in `visualization/templates`. They escape all text, since file names may contain anything.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from crispseg.errors import CrispsegError
from crispseg.io.files import writable_file
from crispseg.labels import Color

LOADER = PackageLoader("crispseg.visualization")
TEMPLATES = Environment(loader=LOADER, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
THUMBNAIL = 208  # longest side in pixels of an image in a list; a thousand have less than 15 MB


def render(template: str, **values: Any) -> str:
    """Render a template of `crispseg/visualization/templates` with escaped values."""
    return TEMPLATES.get_template(template).render(**values)


def notebook(**parts: Any) -> str:
    """Return the notebook HTML of a result from title, values, note, pictures, colors or classes."""
    empty = dict.fromkeys(("title", "values", "note", "pictures", "colors", "classes"), ())
    return render("notebook.html", **{**empty, **parts})


class Picture(NamedTuple):
    """Image embedded in a page, for the macro `img`.

    Args:
        source: file as a `data:` URL.
        width, height: size in pixels.
        text: alternative text for screen readers.
    """

    source: str
    width: int
    height: int
    text: str


def embedded(
    pixels: NDArray[np.uint8], text: str, *, photo: bool = False, longest: int = 640, clear: Color | None = None
) -> Picture:
    """Embed an image `(H, W, 3)` RGB in a page, reduced so that no side is longer than `longest` pixels.

    Args:
        text: alternative text for screen readers.
        photo: save as WebP, which is small but not exact, instead of PNG.
        clear: transparent colour, for PNG images of at most 256 colours.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.BOX)
    file = io.BytesIO()
    if photo:
        image.save(file, "WEBP", quality=75)
    else:
        options = {}
        if image.getcolors(256):
            image = image.quantize(256)  # exact, and half the file size
            assert image.palette is not None
            if clear in image.palette.colors:
                options = {"transparency": image.palette.colors[clear]}
        image.save(file, "PNG", optimize=True, **options)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(f"data:image/{'webp' if photo else 'png'};base64,{data}", *image.size, text)


def check_page(path: Path, *suffixes: str) -> None:
    """Raise a CrispsegError if a page (.html, .htm), or a file with another of the suffixes, cannot be written."""
    suffixes = suffixes or (".html", ".htm")
    if path.suffix.lower() not in suffixes:
        raise CrispsegError(f"cannot write {path}: give a file that ends in {suffixes[0]}")
    writable_file(path)
