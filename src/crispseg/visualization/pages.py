"""Self-contained HTML pages, which include their style, images, data and scripts, and fetch nothing.

Pages are jinja2 templates in `visualization/templates`. They escape all text, since file names may contain anything.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from crispseg.errors import CrispsegError
from crispseg.io.files import writable_file
from crispseg.labels import Color
from crispseg.visualization.pictures import drawn

LOADER = PackageLoader("crispseg.visualization")
TEMPLATES = Environment(loader=LOADER, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
BRIGHTENED = "Dark images are brightened for display: values from 1 to 99.8 percent become black to white."
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
        image.save(file, "WEBP", quality=75, method=2)  # in half the time of the default, and 4 % larger
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


def chart(text: str, *marks: Sequence[Any], size: tuple[float, float] = (3.6, 2.4), **axes_settings: Any) -> Picture:
    """Embed a chart of marks, such as `("plot", x, y)` for that method of matplotlib's axes; size 1 is 100 pixels."""
    import matplotlib  # imported here, because few callers need it
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"text.parse_math": False}):  # names of classes may have dollars
        figure = Figure(size, layout="constrained", dpi=100)
        axes = figure.subplots()
        for method, *arguments in marks:
            getattr(axes, method)(*arguments)
        axes.set(**axes_settings)
        return embedded(drawn(figure), text, longest=2560)


def check_page(path: Path, suffixes: Sequence[str] = (".html", ".htm")) -> None:
    """Raise a CrispsegError if a page, or a file with another of the suffixes, cannot be written."""
    if path.suffix.lower() not in suffixes:
        raise CrispsegError(f"cannot write {path}; give a file that ends in {suffixes[0]}")
    writable_file(path)
