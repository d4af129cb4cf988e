"""Masks with one id more than classes are declared: no copy drops it."""

from __future__ import annotations

from pathlib import Path

import pytest

from crispseg.cli.main import main

from .trees import Tree


@pytest.mark.parametrize("declared", [["--data.classes=[road,tree,car]"], ["--data.num_classes=3"]])
def test_the_highest_id_is_not_dropped(declared: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree, out = Tree(tmp_path / "data"), tmp_path / "out"
    assert main(["doctor", str(tree.root), *declared]) == 3
    printed = capsys.readouterr().out
    assert "the value 3 (" in printed and "with the background if it is 0" in printed and "--fix" not in printed
    assert main(["doctor", str(tree.root), *declared, "--fix", str(out)]) == 2 and not out.exists()
    assert main(["train", str(tree.root), *declared]) == 2
    assert "the value 3 (" in capsys.readouterr().err
