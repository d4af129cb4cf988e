"""Damage: to bytes, to the chunks of a PNG, to text, and to trees of JSON and YAML."""

from __future__ import annotations

import copy
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

from crispseg.io.png import PNG


class Damaged(NamedTuple):
    """A file's content after something happened to it."""

    content: bytes
    what: str
    """What happened."""
    forged: bool = False
    """Whether checksums were made to fit, or whole files were mixed: then nobody can tell that it is no other file."""


NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def damaged(random: Random, content: bytes, others: list[bytes]) -> Damaged:
    """One to three accidents to a file; `others` are sound files of its kind."""
    done: list[str] = []
    forged = False
    for _ in range(random.choice((1, 1, 1, 1, 2, 3))):
        if random.random() < 0.03:
            cut = random.randrange(len(content) + 1)
            content, what, forged = content[:cut] + random.choice(others)[cut:], "spliced", True
        else:
            name = random.choice(list(ACCIDENTS))
            content, what = ACCIDENTS[name](random, content), name
        done.append(what)
    return Damaged(content, ", ".join(done), forged)


def _flipped(random: Random, content: bytes) -> bytes:
    if not content:
        return content
    changed = bytearray(content)
    place = random.randrange(8 * len(content))
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def _bytes_set(random: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 2, 8)) if content else 0):
        changed[random.randrange(len(content))] = random.choice((0, 255, random.randrange(256)))
    return bytes(changed)


def _number_set(random: Random, content: bytes) -> bytes:
    value, size = random.choice(NUMBERS), random.choice((1, 2, 4))
    at = random.randrange(len(content) + 1)
    return (
        content[:at]
        + (value & (1 << 8 * size) - 1).to_bytes(size, random.choice(("big", "little")))
        + content[at + size :]
    )


def _piece(random: Random, content: bytes) -> slice:
    at = random.randrange(len(content) + 1)
    return slice(at, at + random.choice((1, 4, 64, 4096)))


def _removed(random: Random, content: bytes) -> bytes:
    piece = _piece(random, content)
    return content[: piece.start] + content[piece.stop :]


def _repeated(random: Random, content: bytes) -> bytes:
    piece = _piece(random, content)
    return content[: piece.start] + content[piece] * random.choice((2, 2, 50)) + content[piece.stop :]


def _zeroed(random: Random, content: bytes) -> bytes:
    piece = _piece(random, content)
    return content[: piece.start] + bytes(len(content[piece])) + content[piece.stop :]


def _inserted(random: Random, content: bytes) -> bytes:
    at = random.randrange(len(content) + 1)
    return content[:at] + random.randbytes(random.choice((1, 4, 64))) + content[at:]


ACCIDENTS: dict[str, Callable[[Random, bytes], bytes]] = {
    "bit flipped": _flipped,
    "bytes set": _bytes_set,
    "number set": _number_set,
    "piece removed": _removed,
    "piece repeated": _repeated,
    "piece zeroed": _zeroed,
    "bytes inserted": _inserted,
    "cut off": lambda random, content: content[: random.randrange(len(content) + 1)],
    "appended": lambda random, content: content + random.randbytes(random.choice((1, 100, 5000))),
    "start lost": lambda random, content: content[random.randrange(len(content) + 1) :],
}


# PNG ----------------------------------------------------------------------------------------------------------------


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kind and the data of each chunk of a sound PNG."""
    start = len(PNG)
    while start < len(content):
        length = int.from_bytes(content[start : start + 4])
        yield content[start + 4 : start + 8], content[start + 8 : start + 8 + length]
        start += 12 + length


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these chunks, with their checksums."""
    return PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def forged_png(random: Random, content: bytes) -> Damaged:
    """A PNG some of whose chunks are others, moved, lost or repeated, with checksums that fit."""
    chunks = list(png_chunks(content))
    at = random.randrange(len(chunks))
    kind, data = chunks[at]
    way = random.choice(("other", "other", "lost", "repeated", "moved", "renamed", "pixels"))
    if way == "pixels":
        at = next(index for index, (name, _) in enumerate(chunks) if name == b"IDAT")
        raw = zlib.decompress(b"".join(part for name, part in chunks if name == b"IDAT"))
        bad, _, _ = damaged(random, raw, [raw])
        chunks = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
        chunks.insert(at, (b"IDAT", zlib.compress(bad)))
    elif way == "other":
        chunks[at] = kind, damaged(random, data, [data]).content
    elif way == "lost":
        del chunks[at]
    elif way == "repeated":
        chunks[at:at] = [chunks[at]] * random.choice((1, 1, 1000))
    elif way == "moved":
        chunks.insert(random.randrange(len(chunks)), chunks.pop(at))
    else:
        chunks[at] = random.choice((b"IDAT", b"PLTE", b"tRNS", b"eXIf", b"acTL", b"iCCP", b"zTXt", b"QqQq")), data
    return Damaged(png_of(chunks), f"chunk {way} (forged)", True)


# Text and trees -----------------------------------------------------------------------------------------------------

WORDS = (
    *("", "null", "true", "-1", "0", "1e999", "-.inf", ".nan", "1" * 5000, "2026-13-45", "2026-01-02", "0x10", "1_000"),
    *(
        "!!binary aGk=",
        "!!python/object/apply:os.system [ls]",
        "!!set {a}",
        "? a",
        "{",
        "[",
        "}",
        "]",
        "&a",
        "*a",
        "%",
        "@",
    ),
    *(
        "'",
        '"',
        "\\",
        "\t",
        "\0",
        "\x1b[31m",
        "\r\n",
        "\u2028",
        "\ufeff",
        "é",
        "\U0001f600",
        "../..",
        "/",
        "~",
        "{{ 7 }}",
    ),
    *("<script>alert(1)</script>", "a b", "a\nb", " ", "-", "--out", "#", ": ", "- ", "[" * 500, "{a: " * 500, "name"),
)

VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        7.5,
        -0.0,
        1e308,
        float("inf"),
        float("-inf"),
        float("nan"),
        10**9,
        10**12,
        10**40,
    ),
    *("", "a", "1", "nan", "\0", "a\nb", "../../x", "/etc/passwd", "é\u2028", "\ud800", "x" * 5000, "<b>"),
    *([], {}, [None], [[]], {"a": 1}, [1, 2], [0.5, "a"], [[1, 2], [3]], {"": {}}, [10**40], [float("nan")] * 4),
)


def damaged_text(random: Random, text: str) -> str:
    """Lines or words of a text are lost, repeated, moved or others."""
    lines = text.splitlines(keepends=True) or [""]
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(lines))
        way = random.randrange(7)
        if way == 0 and len(lines) > 1:
            del lines[at]
        elif way == 1:
            lines.insert(random.randrange(len(lines) + 1), lines[at])
        elif way == 2:
            lines[at] = " " * random.choice((1, 2, 4)) + lines[at]
        elif way == 3:
            cut = random.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:cut] + random.choice(WORDS) + lines[at][cut:]
        elif way == 4:
            key, colon, _ = lines[at].partition(":")
            lines[at] = f"{key}{colon} {random.choice(WORDS)}\n"
        elif way == 5:
            key, comma, rest = lines[at].partition(",")
            lines[at] = f"{random.choice(WORDS)}{comma}{rest}" if random.random() < 0.5 else f"{key}{comma}"
        else:
            lines[at] = lines[at].rstrip("\n")
    return "".join(lines)


def damaged_tree(random: Random, tree: Any) -> Any:
    """A copy of a tree of dicts and lists in which values or keys are others, lost or repeated."""
    tree = copy.deepcopy(tree)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        places = list(_places(tree))
        if not places:
            return random.choice(VALUES)
        holder, key = random.choice(places)
        way = random.randrange(6)
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, list):
            holder.append(holder[key])
        elif way == 1:
            holder[random.choice((f"{key}s", "", "name", "a\nb"))] = holder[key]
        elif way == 2:
            _, other = random.choice(places), random.choice(places)
            holder[key] = copy.deepcopy(other[0][other[1]])
        elif way == 3 and isinstance(holder[key], int | float):
            holder[key] = random.choice((holder[key] * 10**6, -holder[key], holder[key] + 0.5, str(holder[key])))
        else:
            holder[key] = copy.deepcopy(random.choice(VALUES))
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Each value of a tree, by what holds it and its key or place."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(entries):
        yield tree, key
        yield from _places(value)


def damaged_json(random: Random, tree: Any) -> bytes:
    """A tree as JSON, with damage to the tree, to the text or to the bytes."""
    way = random.random()
    if way < 0.7:
        return json.dumps(damaged_tree(random, tree)).encode("utf-8", "surrogatepass")
    text = json.dumps(tree, indent=1)
    if way < 0.85:
        return damaged_text(random, text).encode("utf-8", "surrogatepass")
    return damaged(random, text.encode(), [text.encode()]).content
