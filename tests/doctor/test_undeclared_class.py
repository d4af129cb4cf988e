"""Masks with one id more than classes are declared: no copy drops it, and each proposed command trains."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from crispseg.cli.main import main

from .trees import Tree


@pytest.mark.parametrize("declared", [["--data.classes=[road,tree,car]"], ["--data.num_classes=3"]])
def test_the_highest_id_is_not_dropped(declared: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree, out = Tree(tmp_path / "data"), tmp_path / "out"
    assert main(["doctor", str(tree.root), *declared]) == 3
    printed = capsys.readouterr().out
    assert "the value 3, but only 3 classes are declared" in printed and "--fix" not in printed
    commands = re.findall(r"or train with: crispseg (.+)", printed)
    assert len(commands) == (3 if "classes=[" in declared[0] else 2)
    assert main(["doctor", str(tree.root), *declared, "--fix", str(out)]) == 2 and not out.exists()
    capsys.readouterr()
    for command in commands:
        assert main(["doctor", *shlex.split(command)[1:]]) == 0, capsys.readouterr().out
    assert main(["train", str(tree.root), *declared]) == 2
    printed = capsys.readouterr().err
    assert "the value 3, but only 3 classes are declared" in printed
    assert all(shlex.quote(word) in printed for command in commands for word in shlex.split(command)[-1:])
