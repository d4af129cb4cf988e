"""`crispseg doctor`: exit status, what it prints, and the layouts that it knows."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Capture
from dataset_trees import save

from crispseg.cli.main import main

from .trees import COLORS, SIZE, Tree, ids, photo

Report = Callable[[Path, int], dict[str, Any]]


def test_exit_status_json_and_text(tmp_path: Path, capsys: Capture) -> None:
    tree = Tree(tmp_path / "data")
    tree.source()
    command = ["doctor", str(tree.root), "--json", str(tmp_path / "report.json")]
    assert main(command) == 0
    assert "No errors or warnings." in capsys.readouterr().out
    tree.add("black", image=np.zeros((*SIZE, 3), np.uint8))
    tree.source()
    assert main(command) == 1
    save(tree.root / "masks/train0.png", np.full(SIZE, 200, np.uint8))
    assert main([*command, "--data.num_classes=4"]) == 3
    text = capsys.readouterr().out
    for phrase in ("error  value-out-of-range", "200 (6144 pixels)", "→ correct", "data.png", "1 error and 1 warning"):
        assert phrase in text
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["severity"] == "error" and report["splits"]["train"]["pairs"] == 9
    first = report["findings"][0]
    assert first["code"] == "value-out-of-range" and first["files"] == [str(tree.root / "masks/train0.png")]


@pytest.mark.parametrize(
    ("argv", "phrases"),
    [
        ([], ["--data is missing"]),
        (["nowhere"], ["nowhere is missing"]),
        (["."], ["images and masks are not found"]),
        (["nuclei", "--in_chans=17"], ["in_chans is 17"]),
        (["nuclei", "--json=masks/0.png"], ["masks/0.png", "ends in .json"]),
        (["--data=camvid", "--data.root=nowhere"], ["nowhere has no train.txt"]),
        (["--data=cityscapes", "--data.root=."], ["leftImg8bit/train is missing"]),
    ],
)
def test_mistakes_of_the_user(
    argv: list[str], phrases: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *argv]) == 2
    line, *question = capsys.readouterr().err.splitlines()
    assert len(question) < 10
    for phrase in phrases:
        assert phrase in line


@pytest.fixture
def report(capsys: Capture) -> Report:
    """The JSON report of some data, and the exit status that is expected."""

    def examine(target: Path, status: int) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["doctor", str(target), "--json", "-"]) == status
        summary: dict[str, Any] = json.loads(capsys.readouterr().out)
        return summary

    return examine


def test_folders_of_splits(tmp_path: Path, report: Report) -> None:
    """A missing folder is no reason to leave a split out in silence; images to test on need no masks."""
    layout = "{kind}/{split}"
    for seed, split in enumerate(["train"] * 4 + ["val"] * 2 + ["test"] * 3):
        save(tmp_path / layout.format(split=split, kind="images") / f"{seed}.png", photo(seed))
        save(tmp_path / layout.format(split=split, kind="masks") / f"{seed}.png", ids(seed))
    pairs = {split: entry["pairs"] for split, entry in report(tmp_path, 0)["splits"].items()}
    assert pairs == {"train": 4, "val": 2, "test": 3}

    val, test = (tmp_path / layout.format(split=split, kind="masks") for split in ("val", "test"))
    val.rename(tmp_path / "away")
    summary = report(tmp_path, 3)
    (lost,) = (finding for finding in summary["findings"] if finding["code"] == "split-unavailable")
    assert lost["message"].startswith("val: ") and "2 of 9 images in " in lost["message"]
    assert set(summary["splits"]) == {"train", "test"}

    (tmp_path / "away").rename(val)
    shutil.rmtree(test)
    summary = report(tmp_path, 0)
    assert set(summary["splits"]) == {"train", "val"}


def test_where_nothing_pairs(tmp_path: Path, report: Report) -> None:
    save(tmp_path / "images/a.png", photo(1))
    save(tmp_path / "masks/b.png", ids(1))
    assert {entry["code"] for entry in report(tmp_path, 3)["findings"]} == {"image-without-mask", "mask-without-image"}


def test_commands_that_are_printed_work(tmp_path: Path, capsys: Capture) -> None:
    """No copy if no pair can be kept; no training on a run, or on what it would refuse for another reason."""
    tree = Tree(tmp_path / "data", lambda seed: COLORS[ids(seed)])
    tree.source()
    (tmp_path / "config.yaml").write_text(json.dumps({"model": "fpn", "data": {"root": str(tree.root)}}))
    for target, commands in ((tree.root, 1), (tmp_path / "config.yaml", 1), (tmp_path, 0)):
        assert main(["doctor", str(target)]) == 3
        printed = capsys.readouterr().out
        assert printed.count("or train with: crispseg train") == commands and "write a corrected copy" not in printed
    (tree.root / "masks/train0.png").write_bytes(b"")
    assert main(["doctor", str(tree.root)]) == 3 and "or train by" not in capsys.readouterr().out
    grey = Tree(tmp_path / "grey", lambda seed: photo(seed)[..., 0])
    grey.source()
    assert main(["doctor", str(grey.root)]) == 3 and "write a corrected copy" not in capsys.readouterr().out
