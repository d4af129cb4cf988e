"""Accidents to the bytes of a file."""

import struct
import zlib
from collections.abc import Iterator
from random import Random

PNG = b"\x89PNG\r\n\x1a\n"
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def damaged(random: Random, content: bytes) -> bytes:
    """One to three accidents: bits flipped, bytes set, pieces lost, repeated or zeroed, numbers replaced, a cut end."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        changed = bytearray(content or b"\0")
        start = random.randrange(len(changed))
        end = min(start + random.choice((1, 4, 16, 200, 4096)), len(changed))
        match random.choice(("flip", "set", "number", "lose", "repeat", "zero", "cut")):
            case "flip":
                changed[start] ^= 1 << random.randrange(8)
            case "set":
                changed[start] = random.randrange(256)
            case "number":
                width = random.choice("BHI")
                value = random.choice(NUMBERS) % (1 << 8 * struct.calcsize(width))
                number = struct.pack(random.choice("<>") + width, value)
                changed[start : start + len(number)] = number
            case "lose":
                del changed[start:end]
            case "repeat":
                changed[start:start] = changed[start:end]
            case "zero":
                changed[start:end] = bytes(end - start)
            case "cut":
                del changed[start:]
        content = bytes(changed)
    return content


def cut_or_zeroed(random: Random, content: bytes) -> bytes:
    """A file as a full disk or a power loss leaves it: its end is lost, or up to 4 KiB are zeros."""
    start = random.randrange(len(content))
    zeros = bytes(len(content[start : start + 4096]))
    return content[:start] + (zeros + content[start + 4096 :] if random.random() < 0.7 else b"")


def damaged_text(random: Random, content: bytes) -> bytes:
    """One accident to a text: values of other types, numbers that are large or none, words that mean something."""
    words = (*b"null [] {} -1 1e999 nan true '' ../x <b> \xff".split(), b"9" * 400, b"&a *a")
    pieces = content.replace(b":", b"\0:\0").replace(b",", b"\0,\0").replace(b"\n", b"\0\n\0").split(b"\0")
    at = random.randrange(len(pieces))
    pieces[at] = b" " + random.choice(words) + b" " if random.random() < 0.8 else b""
    return b"".join(pieces)


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of each chunk of a PNG."""
    place = len(PNG)
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        yield content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        place += 12 + length


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of chunks, with checksums that fit."""
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return PNG + b"".join(parts)
