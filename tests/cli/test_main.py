"""What the command line makes of errors that nobody foresaw."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from commands import Capture

import crispseg.cli.list  # noqa: F401 as it registers itself
from crispseg.cli.command import commands
from crispseg.cli.main import main
from crispseg.errors import CrispsegError


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def run(argv: list[str]) -> None:
        raise error

    monkeypatch.setitem(commands, "list", SimpleNamespace(start=run))
    return main(["list", "a b"])


def test_a_defect_shows_its_traceback_and_the_command(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert failing(TypeError("two\nlines"), monkeypatch) == 70
    text = capsys.readouterr().err
    assert "Traceback (most recent call last)" in text and "in run" in text and "this is a bug" in text


def test_too_little_memory_is_no_defect(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert failing(MemoryError(), monkeypatch) == 2
    assert "there is not enough memory" in capsys.readouterr().err


def test_of_a_data_worker_s_error_the_message_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    worker = "Caught CrispsegError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  x\n"
    assert failing(CrispsegError(f"{worker}crispseg.errors.CrispsegError: a\nb is broken"), monkeypatch) == 2
    assert capsys.readouterr().err == "crispseg: error: a b is broken\n"
