"""Self-contained HTML pages: style, pictures, data and scripts, if any, are inside, and nothing is fetched.

Pages are jinja2 templates in `crispseg/templates`, which escape all text; names from files and users can be anything.
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
from crispseg.files import atomic_path, writable_file

WIDEST = 640
"""Pixels of the longer side to which pictures are reduced by default."""


@cache
def environment() -> Environment:
    """The templates of this package. Values for scripts go through `tojson`."""
    found = Environment(
        loader=PackageLoader("crispseg"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return found


def render(template: str, **values: Any) -> str:
    """A page: a template of `crispseg/templates` with these values, in which text is escaped."""
    return environment().get_template(template).render(**values)


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
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.BOX)
    file = io.BytesIO()
    if photo:
        image.save(file, "JPEG", quality=85)
    else:
        _with_palette(np.asarray(image)).save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(f"data:image/{'jpeg' if photo else 'png'};base64,{data}", *image.size, text)


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
    if path.suffix.lower() not in (".html", ".htm"):
        raise CrispsegError(f"cannot write a page to {path}: give a file that ends in .html")
    writable_file(path)


def write_page(path: Path, html: str) -> None:
    """Write a page to where `check_page` allowed it."""
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
