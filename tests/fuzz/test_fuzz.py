"""A hypothesis test a reader."""

import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from fuzz.campaign import attempt
from fuzz.damage import cut_or_zeroed
from fuzz.readers import Reader, readers
from fuzz.text_readers import text_readers

KINDS = (
    *("images", "masks", "config.json", "safetensors", "checkpoints", "exports"),
    *("COCO", "labelme", "CVAT", "Label Studio"),
    *text_readers(),
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return readers(tmp_path_factory.mktemp("sound")) | text_readers()


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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["images", "checkpoints", "exports"])
def test_cut_files_and_zeroed_blocks(kind: str, known: dict[str, Reader], tmp_path: Path) -> None:
    for seed in range(60):
        assert attempt(kind, known[kind], seed, tmp_path / str(seed), cut_or_zeroed) in ("read", "refused")


SOME = r"(train|evaluate|predict|doctor|data import|inspect)/(number|nest|type|path)/0$"
SOME += r"|(PNG|TIFF|masks|COCO|CVAT|labelme|Label Studio|QuPath|YOLO|data.yaml)/(cut|flip|nest|other)/0$"
SOME += r"|(config.json|model.safetensors)/(cut|flip|nest|other)/0$"


@pytest.mark.slow
def test_hostile_inputs_of_commands_are_right_or_refused() -> None:
    command = [sys.executable, "-m", "fuzz", "--only", SOME]  # in a process without threads
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
