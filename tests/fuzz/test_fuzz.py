"""A hypothesis test a reader, and that the campaign sees what it should."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from crispseg import CrispsegError
from fuzz.campaign import attempt
from fuzz.readers import Reader, readers

KINDS = ("images", "masks", "settings", "config.json", "safetensors", "checkpoints", "COCO", "labelme")


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return readers(tmp_path_factory.mktemp("sound"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_or_harmless(kind: str, known: dict[str, Reader], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    number = count()
    for name, content in known[kind].seeds.items():
        (tmp_path / name).write_bytes(content)
        known[kind].read(tmp_path / name)  # sound files are read

    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(seed=strategies.integers(0, 2**32))
    def check(seed: int) -> None:
        assert attempt(kind, known[kind], seed, tmp_path / str(next(number))) in ("read", "refused")

    check()


def refuse(path: Path) -> None:
    raise CrispsegError(f"{path} is broken; restore it")


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (lambda path: 1 / 0, "ZeroDivisionError"),
        (lambda path: path.read_bytes(), "accepted"),
        (lambda path: path.write_bytes(b"other"), "changed"),
        (refuse, "refused"),
        (lambda path: "always this", "read"),
    ],
)
def test_faults_are_seen(read: Callable[[Path], Any], outcome: str, tmp_path: Path) -> None:
    assert outcome in attempt("kind", Reader({"a.png": b"0123456789" * 9}, read, (".png",)), 3, tmp_path / "in")
