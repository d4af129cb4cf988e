"""Names of files: in folders of data, in lists, and of results."""

from __future__ import annotations

import io
import os
import re
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from random import Random
from unittest.mock import patch

import numpy as np

from crispseg import Segmenter, create_model
from crispseg.cli.main import main
from crispseg.data import Folder, check_split
from crispseg.data.text_files import class_names, read_palette
from crispseg.doctor import subject_of
from crispseg.doctor.facts import scan
from crispseg.errors import CrispsegError
from crispseg.io.images import write_image
from fuzz.kinds import Case, Kind, Lost
from fuzz.mutations import WORDS

STEMS = (
    *(
        "a",
        "b",
        "A",
        "a_mask",
        "mask_a",
        "a.png",
        "a.b",
        ".a",
        "..a",
        "a ",
        " a",
        "-a",
        "--out",
        "a\nb",
        "a\tb",
        "a\rb",
        "é",
    ),
    *(
        "e\u0301",
        "\U0001f600",
        "\u202egnp",
        "\u2028",
        "a\x1b[31mb",
        "%s",
        "{0}",
        "{{ 7 }}",
        "$(ls)",
        "`ls`",
        "a;b",
        "a&b",
    ),
    *("*", "?", "[ab]", "a'b", 'a"b', "<b>", "a\\b", "C:", "nul", "~", "#a", "a,b", "x" * 240, "y" * 251, "é" * 125),
    *(
        os.fsdecode(b"\xff\xfe"),
        os.fsdecode(b"a\xc3"),
        "0",
        "-0",
        "1e9",
        "null",
        "train",
        "images",
        "a_overlay",
        "objects",
    ),
)
SUFFIXES = (".png", ".png", ".png", ".PNG", ".jpg", ".JPEG", ".tif", ".webp", ".txt", "", ".png.png")
ODD = ("dangling link", "loop", "pipe", "zeros", "empty", "folder", "link", "link above")


class Names(Kind):
    name = "names and paths"

    def __init__(self, place: Path) -> None:
        random = np.random.default_rng(0)
        write_image(place / "image.png", random.integers(0, 256, (32, 32, 3), np.uint8))
        write_image(place / "mask.png", random.integers(0, 3, (32, 32), np.uint8))
        self.place = place
        self.image, self.mask = ((place / f"{name}.png").read_bytes() for name in ("image", "mask"))
        self.segmenter = Segmenter(create_model("fpn", num_classes=3, backbone="test_efficientnet", width=8))

    def case(self, random: Random, folder: Path) -> Case:
        images, masks, out = (folder / name for name in ("images", "masks", "out"))
        names = [random.choice(STEMS) for _ in range(random.choice((1, 2, 4)))]
        for name in names:
            below = random.choice(("", "", "", f"{random.choice(STEMS)}/"))
            suffix = random.choice(SUFFIXES)
            self._put(images / f"{below}{name}{suffix}", self.image)
            self._put(masks / f"{below}{name}{random.choice((suffix, '.png', '_mask.png'))}", self.mask)
        odd = random.choice(ODD) if random.random() < 0.3 else None
        if odd is not None:
            self._put_odd(odd, random.choice((images, masks)) / "odd.png")
        listed = folder / "list.txt"
        lines = [random.choice((*names, *WORDS)) for _ in range(3)]
        listed.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape" if random.random() < 0.5 else "replace"))
        if random.random() < 0.3:
            listed.write_bytes(random.randbytes(random.choice((0, 3, 100))))
        only = listed if random.random() < 0.5 else None

        def data() -> None:
            check_split(Folder(images, masks, num_classes=3, val_list=only).dataset("all"), "val")

        def examined() -> None:
            scan(subject_of(Folder(images, masks)), 1)

        readers = {
            "data": data,
            "doctor": examined,
            "classes": lambda: class_names(listed),
            "palette": lambda: read_palette(listed),
            "predict": lambda: self._predicted(images, out),
        }
        return Case(f"{names!r}{f' and a {odd}' if odd else ''}", readers, {})

    def _predicted(self, images: Path, out: Path) -> None:
        """Each image that is said to be segmented has its two files."""
        said, heard = io.StringIO(), io.StringIO()
        with (
            patch("crispseg.inference.prediction.Segmenter", lambda *_, **__: self.segmenter),
            redirect_stdout(said),
            redirect_stderr(heard),
        ):
            status = main(["predict", "run", str(images), "--out", str(out)])
        written = list(out.rglob("*.png")) if out.is_dir() else []
        done = re.search(r"^(\d+) of \d+ images segmented", said.getvalue(), re.MULTILINE)
        if done and len(written) < 2 * int(done[1]):  # one of a name that is too long may have half of them
            raise Lost(f"{done[1]} images were said to be segmented, but there are {len(written)} files")
        if status == 2:
            raise CrispsegError(heard.getvalue().splitlines()[-1])
        if status != 0:
            raise RuntimeError(f"exit status {status}: {heard.getvalue()}")

    @staticmethod
    def _put(path: Path, content: bytes) -> None:
        with suppress(OSError, ValueError):  # a name that this file system does not take, or is there already
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _put_odd(self, odd: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if odd == "pipe":
            os.mkfifo(path)
        elif odd == "empty":
            path.touch()
        elif odd == "folder":
            path.mkdir()
        else:
            targets = {"dangling link": "nowhere", "loop": path.name, "zeros": "/dev/zero", "link above": ".."}
            path.symlink_to(targets.get(odd, self.place / "image.png"))
