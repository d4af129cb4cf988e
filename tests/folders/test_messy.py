"""No folder trains on wrong labels unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from .messy import FOLDERS, WRONG, become


@pytest.mark.parametrize("name", FOLDERS)
def test_a_messy_folder(name: str, tmp_path: Path) -> None:
    assert FOLDERS[name].outcome != WRONG
    assert become(FOLDERS[name], tmp_path) == FOLDERS[name].outcome
