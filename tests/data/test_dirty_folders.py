"""Folders as people have them train right at the first `crispseg train FOLDER`, or at the second, as the first says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crispseg.cli.main import main
from crispseg.cli.train import Train

from .dirty_folders import FOLDERS, Truth
from .own_folders import TINY

COMMAND = re.compile(r"crispseg (?:train|data import|doctor) .+?(?=; or: |'? makes |$)", re.MULTILINE)
"""A command in what another one prints."""


def outcome(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[bool, str]:
    """Whether a command succeeds, and what it prints."""
    capsys.readouterr()
    status = main([*words])
    captured = capsys.readouterr()
    assert status in (0, 1, 2, 3), captured.err
    return status == 0, captured.out + captured.err


@pytest.mark.slow
@pytest.mark.parametrize("make", FOLDERS, ids=lambda make: make.__name__)
def test_trains_right_at_the_second_try_at_the_latest(
    make: Callable[[Path], Truth], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = tmp_path / "raw folder", tmp_path / "run"
    truth = make(root)
    flags = [*TINY, "--iterations=2", "--seed=0", f"--out={run}"]
    done, printed = outcome(capsys, "train", str(root), *flags)
    while not done:
        commands = [text for text in COMMAND.findall(printed) if truth.masks in text]
        assert commands, printed
        words = shlex.split(commands[0])[1:]
        done, printed = outcome(capsys, *words, *(flags if str(run) not in words[-1] and words[0] == "train" else []))
        if words[0] != "train":
            done, printed = outcome(capsys, *shlex.split(COMMAND.findall(printed)[-1])[1:], *flags)
        assert done, printed
    data = Train.parsed([str(run / "config.yaml")]).config().data
    assert data.label_set().names == tuple(truth.classes)
    seen = {}
    for split in ("train", "val"):
        for pair, sample in zip(data.dataset(split).pairs, data.dataset(split), strict=True):
            seen[str(pair.image.relative_to(data.root).with_suffix(""))] = (split, sample.labels)
    for name, (_, labels) in seen.items():
        np.testing.assert_array_equal(labels, truth.labels[name], name)
    assert len(seen) == truth.count
    if truth.val is not None:
        assert {name for name, (split, _) in seen.items() if split == "val"} == truth.val
    print(make.__name__, len(seen), printed)
