"""What PNG files say about themselves."""

from __future__ import annotations

import zlib
from typing import BinaryIO

PNG = b"\x89PNG\r\n\x1a\n"
"""How a file begins."""
BLOCK = 2**20
"""Bytes that are read at a time."""
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"tIME")
"""Chunks of a PNG that say nothing about its pixels."""


def compare_checksums(file: BinaryIO) -> None:
    """Go through the chunks of a PNG, whose place in the file stays. Pillow skips the checksums of pixels and behind.

    Raises:
        ValueError: the checksum of a chunk, but for text, is not that of its content; or the end is missing.
    """
    place = file.tell()
    try:
        file.seek(len(PNG))
        while len(head := file.read(8)) == 8:
            left, kind = int.from_bytes(head[:4]), head[4:]
            checksum = zlib.crc32(kind)
            while left and (content := file.read(min(left, BLOCK))):
                checksum, left = zlib.crc32(content, checksum), left - len(content)
            if left or len(stated := file.read(4)) < 4:
                break
            if kind not in TEXTS and checksum != int.from_bytes(stated):
                raise ValueError(f"the checksum of its chunk {kind.decode('ascii', 'replace')} is another")
            if kind == b"IEND":
                return
        raise ValueError("its end is missing")
    finally:
        file.seek(place)
