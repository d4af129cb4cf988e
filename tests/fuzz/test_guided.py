"""The target of guided fuzzing, without its library."""

from __future__ import annotations

import pytest

from fuzz.guided import inputs, target
from fuzz.readers import Reader
from fuzz.text_readers import text_readers


@pytest.mark.parametrize("kind", text_readers())
def test_inputs_are_read_and_damaged_ones_refused(kind: str) -> None:
    read = target(text_readers()[kind])
    for data in (b"", b"\0", *inputs(text_readers()[kind]).values()):
        read(data)


def test_another_error_is_an_error() -> None:
    with pytest.raises(ZeroDivisionError):
        target(Reader({"a": b""}, lambda path: 1 / len(path.read_bytes())))(b"\0")
