"""What the command line makes of errors that nobody foresaw."""

from __future__ import annotations

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from crispseg.cli.main import main
from crispseg.errors import INTERRUPTED, CrispsegError

Capture = pytest.CaptureFixture[str]


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def run(argv: list[str]) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "crispseg.cli.list", SimpleNamespace(run=run))
    return main(["list", "a b"])


def test_a_defect_shows_its_traceback_and_the_command(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert failing(TypeError("two\nlines"), monkeypatch) == 70
    text = capsys.readouterr().err
    assert "Traceback (most recent call last)" in text and "in run" in text and "crispseg list 'a b'" in text


def test_too_little_memory_is_no_defect(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert failing(MemoryError(), monkeypatch) == 2
    assert "there is not enough memory" in capsys.readouterr().err


def test_of_a_data_worker_s_error_the_message_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    worker = "Caught CrispsegError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  x\n"
    assert failing(CrispsegError(f"{worker}crispseg.errors.CrispsegError: a\nb is broken"), monkeypatch) == 2
    assert capsys.readouterr().err == "crispseg: error: a\\nb is broken\n"


def test_an_interrupt_before_the_command_line_is_there() -> None:
    code = """if True:
        import sys

        class Interrupting:
            def find_spec(self, name, path=None, target=None):
                if name == "crispseg.cli.main":
                    raise KeyboardInterrupt

        from crispseg.__main__ import main
        sys.meta_path.insert(0, Interrupting())
        sys.exit(main())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, f"crispseg: {INTERRUPTED}\n")


def test_an_interrupt_that_became_an_error_of_ours(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def run(argv: list[str]) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise CrispsegError("a plugin fails") from None

    monkeypatch.setitem(sys.modules, "crispseg.cli.list", SimpleNamespace(run=run))
    assert main(["list"]) == 143
    assert capsys.readouterr().err == f"crispseg: {INTERRUPTED}\n"
