"""What the command line makes of errors that nobody foresaw."""

from types import SimpleNamespace

import pytest
from commands import Capture

import crispseg.cli.list  # noqa: F401 as it registers itself
from crispseg.cli.command import commands
from crispseg.cli.main import main
from crispseg.errors import CrispsegError

WORKER = "Caught CrispsegError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  x\n"
WORKER += "crispseg.errors.CrispsegError: "
DEFECT = ["Traceback (most recent call last)", "in run", "this is a bug"]


@pytest.mark.parametrize(
    ("error", "status", "phrases"),
    [
        (TypeError("two\nlines"), 70, DEFECT),
        (RuntimeError(WORKER.replace("crispseg.errors.Crispseg", "Runtime") + "mine"), 70, [*DEFECT, "mine"]),
        (MemoryError(), 2, ["there is not enough memory"]),
        (CrispsegError(f"{WORKER}a is broken\n"), 2, ["crispseg: error: a is broken\n"]),
    ],
)
def test_only_a_defect_shows_its_traceback(
    error: Exception, status: int, phrases: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def run(argv: list[str]) -> None:
        raise error

    monkeypatch.setitem(commands, "list", SimpleNamespace(start=run))
    assert main(["list", "a b"]) == status
    text = capsys.readouterr().err
    for phrase in phrases:
        assert phrase in text
    assert (len(text.splitlines()) == 1) == (status == 2)


def test_streams_may_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["crispseg", "--version"])
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{stream}", None)
    assert main() == 0
