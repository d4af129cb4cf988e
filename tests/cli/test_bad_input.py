"""Each bad input gets one clear line and exit status 2, and nothing is written or lost."""

import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Capture, error_of
from training_runs import FLAGS

from crispseg.cli.main import main

SIZE = (64, 96)

Error = Callable[..., str]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def error(tmp_path: Path, capsys: Capture) -> Error:
    """Run a command that must fail; give its one line. No file may appear, change or vanish."""

    def of(*argv: object) -> str:
        before = files(tmp_path)
        line = error_of(capsys, *argv)
        assert files(tmp_path) == before
        return line

    return of


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "finished"))


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\xff", "is not a YAML file"),
        *((text, "") for text in (b"model: [sfnet]", b"data: 5", b"1: 2", b"plugins: 5", b"augment: a")),
    ],
)
def test_a_bad_configuration_file(content: bytes, phrase: str, tmp_path: Path, error: Error) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    line = error("train", path, f"--out={tmp_path / 'run'}")
    assert str(path) in line and phrase in line


@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_output_into_an_unwritable_folder(
    command: str, tmp_path: Path, run: Path, pictures: Path, error: Error
) -> None:
    (tmp_path / "file").write_text("of the user")
    unwritable = tmp_path / "file/below"
    argv: dict[str, list[object]] = {
        "train": [*FLAGS, "--out", unwritable],
        "predict": [run, pictures, "--out", unwritable],
        "evaluate": [run, "--workers=0", "--html", unwritable / "scores.html"],
    }
    line = error(command, *argv[command])
    assert str(unwritable) in line and "choose another folder" in line


class Code:
    """What a hostile pickle does when it is read."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("damage", ["cut", "code"])
def test_a_damaged_checkpoint(
    damage: str, copied: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = copied / "checkpoints/last.ckpt"
    half = checkpoint.read_bytes()[: checkpoint.stat().st_size // 2]
    checkpoint.write_bytes(half if damage == "cut" else pickle.dumps({"state_dict": Code()}, protocol=2))
    before = files(copied)
    assert main(["train", "--resume", str(copied)]) == 2
    *notes, last = capsys.readouterr().err.splitlines()
    assert last.startswith("crispseg: error: ") and str(checkpoint) in last and "damaged" in last
    assert not any("Traceback" in note for note in notes)
    assert files(copied) == before
    assert not (tmp_path / "pwned").exists()


def test_a_checkpoint_of_another_model(copied: Path, error: Error) -> None:
    config = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(re.sub(r"width: 16\b", "width: 12", config))
    line = error("train", "--resume", copied)
    assert str(copied / "checkpoints") in line and "belongs to another model" in line
