"""Hostile changes by rule: of the values and structures of a text, of the bytes of a file, and of the file itself."""

import os
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

from crispseg.inference.runtime import CHECKSUM, UNSEALED, seal
from fuzz.damage import png_chunks, png_of

NUMBERS = ["0", "-1", "1", "0.5", "255", "2147483648", "9223372036854775808", "1e30", "-1e30"]
NO_NUMBERS = ["1e308", "1e999", "nan", "NaN", ".nan", "inf", "Infinity", "-.inf"]
WORDS = ("", "text", 5000 * "9", "\\u0000", "../x", "/dev/zero", "<b>", "é", "nan", "a,b", "*", "~/x")
VALUES = ("null", "true", "[]", "{}", "[[]]", '{"a": 1}')
DEEP = 50_000 * "[" + 50_000 * "]"
KINDS = ("number", "type", "nest", "repeat", "lose")
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s"\[\]{}<>=:;,]+')
PAIRS = {"]": "[", "}": "{", ">": "<"}


class Edit(NamedTuple):
    """A piece of a text and what replaces it; `is_alike` if the result may be sound and say something else."""

    start: int
    end: int
    new: str
    is_alike: bool


def pieces(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of values, lines, and groups in brackets."""
    yield from (token.span() for token in TOKEN.finditer(text))
    yield from (line.span() for line in re.finditer(r".+", text))
    opened: list[int] = []
    for bracket in re.finditer(r"[\[\]{}<>]", text):
        if bracket[0] in PAIRS.values():
            opened.append(bracket.start())
        elif opened and text[opened[-1]] == PAIRS[bracket[0]]:
            yield opened.pop(), bracket.end()


def edits(text: str, kind: str) -> Iterator[Edit]:
    """Yield all edits of a kind, of all pieces of a text."""
    for start, end in dict.fromkeys(pieces(text)):
        piece, new = text[start:end], dict[str, bool]()
        quote = '"' if piece.startswith('"') else ""
        is_number, is_word = number_of(piece) is not None, bool(TOKEN.fullmatch(piece))
        if kind == "number" and is_number:
            new = {f"{quote}{number}{quote}": number in NUMBERS for number in (*NUMBERS, *NO_NUMBERS)}
        elif kind == "type":
            new = dict.fromkeys((f"{quote}{word}{quote}" for word in WORDS), is_word and not is_number)
            new |= dict.fromkeys(VALUES, is_word and not (is_number or quote)) | {"true": is_word and not quote}
        elif kind == "nest":
            new = dict.fromkeys((f"[{piece}]", f"[[{piece}]]", f'{{"a": {piece}}}', f"<a>{piece}</a>", DEEP), False)
        elif kind == "repeat":
            new = {joint.join([piece] * times): True for joint in (", ", " ", "\n") for times in (2, 999)}
        elif kind == "lose":
            yield from (Edit(start, place, "", is_alike=True) for place in {start + 1, (start + end) // 2, len(text)})
            new, end = {"": True}, re.compile(r"\s*,?").match(text, end).end()  # type: ignore[union-attr]
        yield from (Edit(start, end, value, is_alike) for value, is_alike in new.items())


def number_of(text: str) -> float | None:
    with suppress(ValueError):
        return float(text.strip('"'))
    return None


def text_of(path: Path, content: bytes) -> str:
    """The text of a file, or the text in it: the head of tensors, or the first numbers of another binary file."""
    if path.suffix == ".safetensors":
        return content[8 : 8 + int.from_bytes(content[:8], "little")].decode()
    return content.decode() if is_text(content) else " ".join(map(str, struct.unpack("<32H", content[:64])))


def with_text(path: Path, content: bytes, text: str) -> bytes:
    """The content of a file with another text in it."""
    if path.suffix == ".safetensors":
        head = text.encode()
        return struct.pack("<Q", len(head)) + head + content[8 + int.from_bytes(content[:8], "little") :]
    if is_text(content):
        return text.encode()
    numbers = [whole(number_of(word)) for word in text.split()]
    changed = b"".join(struct.pack("<H", number % 2**16) for number in numbers) + content[64:]
    return png_of([*png_chunks(changed)]) if path.suffix == ".png" else changed  # with checksums that fit


def is_text(content: bytes) -> bool:
    with suppress(UnicodeDecodeError):
        return "\0" not in content.decode()
    return False


def whole(number: float | None) -> int:
    """A number of a file's head, from 0 to the largest of 32 bits."""
    return int(min(number, 2**32 - 1)) if number and number > 0 else 0


def apply(edit: Edit, path: Path) -> None:
    """Change a file by an edit of its text; an exported file gets the checksum of its new content."""
    content = path.read_bytes()
    text = text_of(path, content)
    content = with_text(path, content, text[: edit.start] + edit.new + text[edit.end :])
    path.write_bytes(CHECKSUM.sub(lambda match: match[0].replace(match[1], UNSEALED.encode()), content))
    if CHECKSUM.search(content):
        seal(path)


def flipped(random: Random, content: bytes) -> bytes:
    """The content with another bit."""
    place, bit = random.randrange(len(content)), random.randrange(8)
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def cut(random: Random, content: bytes) -> bytes:
    return content[: random.randrange(len(content))]


FILES = {"empty": b"", "blank": b" \n", "binary": bytes(range(256)) * 20, "JSON": b'{"a": [1, 2]}', "list": b"[]"}
FILES |= {"page": b"<!DOCTYPE html><html><body>404</body></html>", "YAML": b"a: {b: 1}\n", "XML": b"<a><b/></a>"}
FILES |= {"pickle": b"\x80\2cos\nsystem\nq\0.", "ZIP": b"PK\5\6" + bytes(18), "UTF-16": "a: 1\n".encode("utf-16")}
FILES |= {"PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "zeros": bytes(5000)}
OTHERS = ("folder", "pipe", "socket", "loop", "nothing", "/dev/zero", "/dev/null", "/dev/random", *FILES)


def put_other(name: str, path: Path) -> None:
    """Replace a file by a folder, a pipe, a socket, a link to itself, nothing or a device, or by another file."""
    path.unlink(missing_ok=True)
    match name:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(os.path.relpath(path))
        case _ if name in FILES:
            path.write_bytes(FILES[name])
        case _:
            path.symlink_to(path.name if name == "loop" else name)
