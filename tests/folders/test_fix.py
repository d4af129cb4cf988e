"""Corrected copies: where they may be written, and what is in them."""

from pathlib import Path

import pytest

from crispseg.cli.main import main
from crispseg.data import Folder
from tests.cli.test_bad_input import files

from .trees import Tree


def test_where_a_copy_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = Tree(tmp_path / "data", train=3, val=2)
    tree.source()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    before = files(tmp_path)
    for out, phrase in (
        (tmp_path / "full", "not empty"),
        (tmp_path / "full/file", "is a file"),
        (tmp_path / "data/fixed", "is inside the data"),
        (tmp_path / "data/images/fixed", "is inside the data"),
    ):
        capsys.readouterr()
        assert main(["doctor", str(tmp_path / "data"), "--fix", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert phrase in line and str(out) in line
    named = ["doctor", "--images", str(tree.root / "images"), "--instances", str(tree.root / "masks")]
    assert main([*named, "--fix", str(tree.root / "masks/fixed")]) == 2
    assert "is inside the data" in capsys.readouterr().err
    tree.split["val"].append("train1")
    tree.source()
    before = files(tmp_path)
    assert (
        main(["doctor", str(tree.root), "--fix", str(tmp_path / "out"), "--classes", "[0 road, 1 wall, 2 car, 3 sky]"])
        == 2
    )
    assert "'0 road' would be another name in classes.txt" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_a_file_that_is_listed_twice_is_copied_once(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "data", train=4, val=2)
    tree.split["val"].append("train1")
    assert set(tree.findings()) == {"image-in-two-splits"}
    assert main(["doctor", str(tree.root), "--fix", str(tmp_path / "out")]) == 3
    assert main(["doctor", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out/images/train/train1.png").exists()
    assert (tmp_path / "out/images/val/train1.png").exists()


def test_a_copy_of_names_with_dots(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "data", train=4, val=3)
    for folder in ("images", "masks"):
        (tree.root / f"{folder}/train0.png").rename(tree.root / f"{folder}/a.png.png")
    out = tmp_path / "out"
    assert main(["doctor", str(tree.root), "--fix", str(out)]) == 0
    source = Folder(root=out)
    assert sum(len(source.dataset(split)) for split in ("train", "val")) == 7
