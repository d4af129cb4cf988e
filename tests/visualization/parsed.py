"""Reading the pages that are written."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

VOID = {"img", "meta", "br", "hr"}


class Page(HTMLParser):
    """What a page holds; fails on tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and data.strip():
            self.words.append(data.strip())


def pixels(image: dict[str, str | None]) -> np.ndarray:
    assert image["src"] is not None
    kind, data = image["src"].split(",", 1)
    assert re.fullmatch(r"data:image/(png|webp);base64", kind)
    picture = np.array(Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB"))
    assert picture.shape[:2] == (int(image["height"] or 0), int(image["width"] or 0))
    return picture
