"""The target of guided fuzzing, without its library."""

import re
import shlex
from pathlib import Path

import pytest

from fuzz.guided import inputs, target
from fuzz.readers import Reader, readers
from fuzz.text_readers import text_readers

WORKFLOW = Path(__file__).resolve().parents[2] / ".github/workflows/weekly.yml"


@pytest.mark.parametrize("kind", text_readers())
def test_inputs_are_read_and_damaged_ones_refused(kind: str) -> None:
    read = target(text_readers()[kind])
    for data in (b"", b"\0", *inputs(text_readers()[kind]).values()):
        read(data)


def test_another_error_is_an_error() -> None:
    with pytest.raises(ZeroDivisionError):
        target(Reader({"a": b""}, lambda path: 1 / len(path.read_bytes())))(b"\0")


def test_the_workflow_fuzzes_every_reader(tmp_path: Path) -> None:
    loop = re.search(r"for kind in (.+); do\n +python -m fuzz\.guided \"\$kind\"", WORKFLOW.read_text())
    assert loop and {*shlex.split(loop[1])} == {*readers(tmp_path), *text_readers()}
