"""One walk finds the files of a folder and their sizes."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from crispseg.errors import CrispsegError
from crispseg.folders.tree import Tree


def test_files_and_sizes(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "a/1.jpg", "a/.hidden.png", ".git/3.png", "classes.txt", "@eaDir/4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("xyz")
    (tmp_path / "a/again").symlink_to(tmp_path)
    tree = Tree.of(tmp_path)
    assert {str(path): size for path, size in tree.files.items()} == {"a/1.jpg": 3, "b/2.PNG": 3, "classes.txt": 3}
    assert [str(path) for path in tree.images] == ["a/1.jpg", "b/2.PNG"]
    assert tree.folders[PurePosixPath("b")] == {".png": 1}
    assert tree.named() == {"classes.txt": PurePosixPath("classes.txt")}
    assert tree.below("a").images == (PurePosixPath("1.jpg"),)
    assert tree.path(tree.images[0]) == tmp_path / "a/1.jpg"


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CrispsegError, match="missing"):
        Tree.of(tmp_path / "x")
    (tmp_path / "file").touch()
    with pytest.raises(CrispsegError, match="not a folder"):
        Tree.of(tmp_path / "file")
