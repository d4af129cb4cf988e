"""Self-contained HTML pages: style, pictures, data and scripts, if any, are inside, and nothing is fetched.

Every function takes text and gives HTML; `page` puts it together. Names from files and users are escaped.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crispseg.errors import CrispsegError
from crispseg.files import atomic_path, writable_file

SUFFIXES = (".html", ".htm")
WIDEST = 640
"""Pixels of the longer side to which pictures are reduced by default."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --paper: #fff; --card: #f6f8fa; --line: #d1d9e0;
  --bar: #4184c4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --paper: #0d1117; --card: #151b23;
  --line: #3d444d; --bar: #3a6ea5; } }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p { margin: .25rem 0 .75rem; max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .875rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; }
.card b { display: block; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; min-width: 3.5rem; max-width: 11rem; overflow-wrap: break-word; }
th:first-child, td:first-child { text-align: left; padding-left: 0; position: sticky; left: 0; z-index: 1;
  background: var(--paper); white-space: normal; overflow-wrap: break-word;
  min-width: 9.5rem; max-width: min(20rem, 45vw); }
.swatch { display: inline-block; width: .9rem; height: .9rem; margin-right: .5rem; vertical-align: -.1rem;
  border: 1px solid var(--line); border-radius: 2px; }
:is(dd, td, .name):has(> .swatch) { padding-left: 1.525rem; text-indent: -1.525rem; }
.bar { display: inline-block; position: relative; width: min(7rem, 16vw); height: .8rem; vertical-align: -.05rem;
  background: var(--card); border: 1px solid var(--line); }
.bar i, .bar u { position: absolute; }
.bar i { inset: 0 auto 0 0; background: var(--bar); }
.bar u { top: 50%; height: 0; border-top: 2px solid var(--ink); }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .5rem; }
figure { margin: 1rem 0; }
.pictures figure { margin: 0; }
.pictures img { width: 100%; }
img { display: block; max-width: 100%; height: auto; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .75rem 0; font-size: .875rem; }
"""


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
    scripts, policy = "", ""
    if script:
        scripts = f"<script>\n{script}</script>\n"
        allowed = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        policy = f'<meta http-equiv="Content-Security-Policy" content="{allowed}">\n'
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'{policy}<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + f"\n{scripts}</body>\n</html>\n"
    )


def data_block(name: str, values: Any) -> str:
    """Values for a page's script, which finds them as JSON in the element of this id."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{escape(name)}">{text}</script>'


def heading(text: str, level: int = 2) -> str:
    """A heading of level 1, for the page, to 6."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, soft: bool = False) -> str:
    """Running text; `soft` is smaller and paler."""
    return f'<p class="soft">{escape(text)}</p>' if soft else f"<p>{escape(text)}</p>"


def cards(values: Sequence[tuple[str, str, str]]) -> str:
    """Numbers to see first: name, value, and what is small below it."""
    cells = (
        f'<div class="card">{escape(name)}<b>{escape(value)}</b><span class="soft">{escape(note)}</span></div>'
        for name, value, note in values
    )
    return f'<div class="cards">{"".join(cells)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls where it is too wide. `head` is text; cells are HTML."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = ("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead>\n<tbody>' + "\n".join(lines) + "</tbody></table></div>"
    )


def text(words: str) -> str:
    """Text as HTML."""
    return escape(words)


def soft(words: str) -> str:
    """Text, smaller and paler."""
    return f'<span class="soft">{escape(words)}</span>'


def swatch(color: Sequence[int]) -> str:
    """A small square of an RGB colour, 0 to 255."""
    return f'<span class="swatch" style="background: rgb({", ".join(map(str, map(int, color)))})"></span>'


def named(text: str, color: Sequence[int]) -> str:
    """A text behind its colour."""
    return swatch(color) + escape(text)


def bar(percent: float, interval: Sequence[float] | NDArray[np.float64] | None = None) -> str:
    """A bar from 0 to 100 with an interval drawn on it; empty for NaN."""
    if percent != percent:
        return ""
    whisker = ""
    if interval is not None and not np.isnan(interval).any():
        low, high = interval
        whisker = f'<u style="left: {low:.2f}%; width: {high - low:.2f}%"></u>'
    return f'<span class="bar"><i style="width: {percent:.2f}%"></i>{whisker}</span>'


def legend(names: Sequence[str], palette: Sequence[Sequence[int]]) -> str:
    """Colours and names of classes."""
    entries = (f"<span>{named(name, color)}</span>" for name, color in zip(names, palette, strict=True))
    return f'<div class="legend">{"".join(entries)}</div>'


def picture(pixels: NDArray[np.uint8], text: str, *, photo: bool = False, longest: int = WIDEST) -> str:
    """An `<img>` that holds its file.

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
    return (
        f'<img src="data:image/{"jpeg" if photo else "png"};base64,{data}" width="{width}" height="{height}" '
        f'alt="{escape(text)}">'
    )


def _with_palette(pixels: NDArray[np.uint8]) -> Image.Image:
    """The same picture with a palette where it has at most 256 colours: as a file it is then about half as large."""
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colors, indices = np.unique(packed, return_inverse=True)
    if len(colors) > 256:
        return Image.fromarray(pixels)
    picture = Image.fromarray(indices.reshape(packed.shape).astype(np.uint8))
    picture.putpalette(np.stack([colors >> 16, colors >> 8 & 255, colors & 255], axis=1).astype(np.uint8).tobytes())
    return picture


def pictures(entries: Sequence[tuple[str, str]]) -> str:
    """Pictures side by side, below each other on narrow screens: HTML of each and its caption, text."""
    figures = (f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>" for image, caption in entries)
    return f'<div class="pictures">{"".join(figures)}</div>'


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
