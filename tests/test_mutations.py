"""The planted mistakes of benchmarks/mutations.py still apply to the code."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import crispseg


def test_each_is_a_piece_of_text_that_occurs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    pytest.importorskip("coverage")
    mutations = importlib.import_module("mutations").MUTATIONS
    code = [path.read_text(encoding="utf-8") for path in Path(crispseg.__file__).parent.rglob("*.py")]
    assert len(mutations) >= 40
    assert [one.id for one in mutations if sum(text.count(one.old) for text in code) != 1] == []
