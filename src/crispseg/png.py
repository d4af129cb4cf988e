"""What PNG files say about themselves."""

from __future__ import annotations

import zlib
from typing import BinaryIO

PNG = b"\x89PNG\r\n\x1a\n"
"""How a file begins."""
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"tIME")
"""Chunks of a PNG that say nothing about its pixels."""


def compare_checksums(file: BinaryIO) -> None:
    """Go through the chunks of a PNG, whose place in the file stays. Pillow skips the checksums of pixels and behind.

    Raises:
        ValueError: the checksum of a chunk, but for text, is not that of its content; or the end is missing.
    """
    place = file.tell()
    file.seek(0)
    content = memoryview(file.read())
    file.seek(place)
    start = len(PNG)
    while start + 12 <= len(content):
        end = start + 8 + int.from_bytes(content[start : start + 4])
        kind = bytes(content[start + 4 : start + 8])
        if kind not in TEXTS and zlib.crc32(content[start + 4 : end]) != int.from_bytes(content[end : end + 4]):
            raise ValueError(f"the checksum of its chunk {kind.decode('ascii', 'replace')} is another")
        if kind == b"IEND":
            return
        start = end + 4
    raise ValueError("its end is missing")
