"""What a person sees in a terminal: the screen after each piece of output, at two widths."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyte
import pytest
from PIL import Image
from ptyprocess import PtyProcess
from training_runs import FLAGS, of_many_opinions

pytestmark = pytest.mark.slow
WIDTHS = 80, 120
LINES = 40
BARS = "━╸╺"


class Terminal:
    """A command in a terminal of some width, and all screens that it shows.

    Attributes:
        screens: the lines of the screen after each piece of output.
        lines: all lines at the end, also those that have left the screen.
        status: exit status of the command.
    """

    def __init__(self, width: int, *argv: object) -> None:
        self.width = width
        self.screen = pyte.HistoryScreen(width, LINES, history=1000)
        stream = pyte.ByteStream(self.screen)
        command = [sys.executable, "-m", "crispseg", *map(str, argv)]
        process = PtyProcess.spawn(command, dimensions=(LINES, width))
        self.screens: list[list[str]] = []
        for output in pieces(process.read):
            stream.feed(output)
            self.screens.append([line.rstrip() for line in self.screen.display])
        self.status = process.wait()

    @property
    def lines(self) -> list[str]:
        gone = ["".join(line[column].data for column in range(self.width)) for line in self.screen.history.top]
        return [line.rstrip() for line in [*gone, *self.screen.display] if line.strip()]

    def bars(self) -> list[list[str]]:
        """The lines with a bar on each screen."""
        return [[line for line in screen if any(char in line for char in BARS)] for screen in self.screens]


def pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while True:
        try:
            yield read(4096)
        except EOFError:
            return


def check_bars(terminal: Terminal) -> None:
    """One bar at a time, in the last line, and none that stays."""
    assert any(terminal.bars())
    assert max(map(len, terminal.bars())) == 1
    assert not any(char in line for line in terminal.lines for char in BARS)


@pytest.mark.parametrize("width", WIDTHS)
def test_training(width: int, tmp_path: Path) -> None:
    terminal = Terminal(width, "train", *FLAGS, "--epochs=8", "--out", tmp_path / "run")
    assert terminal.status == 0
    check_bars(terminal)
    evaluations = [line for line in terminal.lines if line.startswith("epoch ")]
    assert [line.split()[1] for line in evaluations] == [f"{epoch}/8" for epoch in range(1, 9)]
    assert all("mIoU" in line for line in evaluations)
    training = [bar for screen in terminal.bars() for bar in screen if "loss" in bar]
    assert all("mIoU" in bar and bar.endswith("left") for bar in training)
    for screen in terminal.screens:  # an evaluation that was printed stays above the bar
        places = [index for index, line in enumerate(screen) if line.startswith("epoch ")]
        bar = next((index for index, line in enumerate(screen) if any(char in line for char in BARS)), LINES)
        assert max(places, default=0) < bar or not places


@pytest.mark.parametrize("width", WIDTHS)
def test_prediction(width: int, tmp_path: Path) -> None:
    of_many_opinions(4).save_pretrained(tmp_path / "model")
    (tmp_path / "images").mkdir()
    for index in range(6):
        Image.fromarray(np.full((256, 320, 3), 40 * index, np.uint8)).save(tmp_path / f"images/{index}.png")
    terminal = Terminal(width, "predict", tmp_path / "model", tmp_path / "images", "--out", tmp_path / "out")
    assert terminal.status == 0
    check_bars(terminal)
    assert len(list((tmp_path / "out").glob("?.png"))) == 6


def test_export(tmp_path: Path) -> None:
    """The work of a minute is named while it lasts."""
    of_many_opinions(4).save_pretrained(tmp_path / "model")
    terminal = Terminal(WIDTHS[0], "export", tmp_path / "model", "--out", tmp_path / "file.onnx")
    assert terminal.status == 0
    assert any("Writing file.onnx" in line for screen in terminal.screens for line in screen)
    assert not any("Writing" in line for line in terminal.lines)


FAILING = """
from crispseg.decoders.fuse import Concat
from crispseg.decoders.parts import merges
from crispseg.errors import CrispsegError

@merges.register("failing")
class Failing(Concat):
    calls = 0

    def forward(self, levels):
        self.calls += 1
        if self.calls > 20:
            raise CrispsegError("the disk is full; free some space")
        return super().forward(levels)
"""


def test_a_run_that_fails(tmp_path: Path) -> None:
    """The error is the last line on the screen, and no bar stays."""
    (tmp_path / "failing.py").write_text(FAILING)
    flags = [*FLAGS, f"--plugins={tmp_path / 'failing.py'}", "--model.merge=failing", "--epochs=8"]
    terminal = Terminal(WIDTHS[0], "train", *flags, "--out", tmp_path / "run")
    assert terminal.status == 2, terminal.lines
    check_bars(terminal)
    assert "the disk is full; free some space" in "".join(terminal.lines[-2:])
