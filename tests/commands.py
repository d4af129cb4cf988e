"""Commands as tests run them, in this process."""

import re
import resource
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from crispseg.cli.main import main

Capture = pytest.CaptureFixture[str]


def error_of(capsys: Capture, *argv: object) -> str:
    """The one line on stderr of a command that must fail, or the lines of a question."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 2
    captured = capsys.readouterr()
    line, *question = captured.err.splitlines()
    assert line.startswith("crispseg: error: ") and "Traceback" not in captured.out
    assert not question or len(question) < 10
    return "\n".join([line, *question])


def output_of(capsys: Capture, *argv: object) -> str:
    """What a command that must succeed prints on stdout."""
    capsys.readouterr()
    code = main([str(word) for word in argv])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def hints(text: str) -> list[list[str]]:
    """The words of the commands that a text tells a user to run next."""
    return [shlex.split(line) for line in re.findall(r"^  crispseg (.+)$", text, re.MULTILINE)]


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Files cannot grow larger in the block."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
