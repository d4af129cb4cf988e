"""Values of a YAML file that are not of their type: one line with the file, the key and the value."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_cli import error_of

from crispseg.api import in_groups
from crispseg.cli.main import main
from crispseg.cli.parsing import parse_training, read_yaml
from crispseg.config.yaml_files import parse_yaml
from crispseg.errors import INTERRUPTED, CrispsegError

Capture = pytest.CaptureFixture[str]


def test_dates_are_text() -> None:
    assert parse_yaml("out: 2020-01-01\nclasses: [2020-01-01 10:00:00]\n") == {
        "out": "2020-01-01",
        "classes": ["2020-01-01 10:00:00"],
    }


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("epochs: 2020-01-01", ["epochs is 2020-01-01; give a whole number"]),
        ("lr: 2020-13-45", ["lr is 2020-13-45; give a number"]),
        ("out: null", ["out is null; give a path: folder of the run"]),
        ("loss: null", ["loss is null; give a mapping"]),
        ("model: {name: null}", ["model.name is null", "give a name"]),
        ("data: {name: [a, b]}", ["data.name is [a, b]", "give a name"]),
        ("data: {name: 5.5}", ["data.name is 5.5", "give a name"]),
        ("model.name: fpn", ["unknown key 'model.name'; write 'model: fpn'"]),
        ("preset: [own]", ["preset is [own]", "give a name"]),
        ("init_from: 5", ["init_from is 5", "give a name"]),
        ("plugins: [5]", ["plugins is [5]; give a list of files"]),
        ("folds: 5", ["'folds' is no setting, but a flag", "--folds"]),
        ("model: {name: !!binary aGVsbG8=}", ["model.name is of the kind binary; give text"]),
        ("lr: !!set {a, b}", ["lr is of the kind set"]),
        ("epochs: !!timestamp abc", ["epochs is of the kind timestamp"]),
        ("deterministic: !!bool abc", ["deterministic is abc, which cannot be read as bool"]),
        ("seed: " + "9" * 5000, ["seed is 999", "…", "cannot be read as int"]),
        ("epochs: 0x" + "f" * 5000, ["epochs is 0xfff", "…", "too large"]),
        ("augment: {crop: " + "[" * 300 + "]" * 300 + "}", ["augment.crop has more than 20 lists"]),
        (
            "a: &a " + "[" * 15 + "1" + "]" * 15 + "\nloss: " + "[" * 15 + "*a" + "]" * 15,
            ["loss has more than 20 lists"],
        ),
        ('out: "a\\0b"', ["out is 'a\\x00b', with a NUL byte"]),
        ('plugins: ["a\\0b.py"]', ["plugins is 'a\\x00b.py', with a NUL byte"]),
        ('model: "a\\nb"', ["unknown model 'a\\nb'; known: agln"]),
        ('optimizer: "sgd\\nadam"', ["optimizer is sgd\\nadam; give one of sgd, adamw"]),
        ('init_from: "a\\eb"', ["a\\x1bb does not exist"]),
        ("optimizer: " + "a" * 100_000, ["optimizer is aaa", "…", "give one of sgd, adamw"]),
    ],
)
def test_a_value_of_another_type(text: str, phrases: list[str], tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text + "\n")
    line = error_of(capsys, "train", path, "--print_config")
    assert all(phrase in line for phrase in phrases) and len(line) < 700


def test_what_is_said_of_a_file_names_it(tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "config.yaml").write_text("lr: !!binary aGVsbG8=\n")
    with refuses(str(tmp_path / "config.yaml"), "lr is of the kind binary"):
        read_yaml(tmp_path / "config.yaml")


@pytest.mark.parametrize("value", ["[5]", "!!x", "[null]"])
def test_plugins_that_are_no_files(value: str, capsys: Capture) -> None:
    assert "is no Python file" in error_of(capsys, "train", f"--plugins={value}", "--print_config")


@pytest.mark.parametrize(
    ("values", "phrase"),
    [
        ({"seed": 10**5000}, "seed is no plain value"),
        ({"out": "a\0b"}, "out is 'a\\x00b', with a NUL byte"),
        ({"epochs": datetime.date(2020, 1, 1)}, "epochs is 2020-01-01"),
        ({"data": {"name": ["a"]}}, "data.name is [a]"),
    ],
)
def test_values_of_python(values: dict[str, Any], phrase: str, refuses: Any) -> None:
    with refuses(phrase):
        parse_training(
            [],
            in_groups(dict(values), {"model": {"name": "crisp"}, "data": {"name": "folder"}}),
            prog="",
            description="",
        )


# What nobody foresaw ------------------------------------------------------------------------------------------------


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def run(argv: list[str]) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "crispseg.cli.list", SimpleNamespace(run=run))
    return main(["list", "a b"])


def test_a_defect_is_one_line_with_a_log(monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert failing(TypeError("two\nlines"), monkeypatch) == 70
    (log,) = tmp_path.iterdir()
    assert capsys.readouterr().err == (
        "crispseg: defect: TypeError: two lines; this is no mistake of yours: please report it with the traceback in "
        f"{log}\n"
    )
    text = log.read_text()
    assert "crispseg list 'a b'" in text and "Traceback (most recent call last)" in text and "in run" in text
    assert os.name != "posix" or log.stat().st_mode & 0o077 == 0


def test_a_defect_without_room_for_a_log(monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    assert failing(KeyError(), monkeypatch) == 70
    text = capsys.readouterr().err
    assert "Traceback" in text and text.endswith("please report it with the traceback above\n")


def test_too_little_memory_is_no_defect(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert failing(MemoryError(), monkeypatch) == 2
    assert "there is not enough memory" in capsys.readouterr().err


def test_of_a_data_worker_s_error_the_message_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    worker = "Caught CrispsegError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  x\n"
    assert failing(CrispsegError(f"{worker}crispseg.errors.CrispsegError: a\nb is broken"), monkeypatch) == 2
    assert capsys.readouterr().err == "crispseg: error: a\\nb is broken\n"


def test_an_interrupt_before_the_command_line_is_there() -> None:
    code = """if True:
        import sys

        class Interrupting:
            def find_spec(self, name, path=None, target=None):
                if name == "crispseg.cli.main":
                    raise KeyboardInterrupt

        from crispseg.__main__ import main
        sys.meta_path.insert(0, Interrupting())
        sys.exit(main())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, f"crispseg: {INTERRUPTED}\n")


def test_an_interrupt_that_became_an_error_of_ours(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def run(argv: list[str]) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise CrispsegError("a plugin fails") from None

    monkeypatch.setitem(sys.modules, "crispseg.cli.list", SimpleNamespace(run=run))
    assert main(["list"]) == 143
    assert capsys.readouterr().err == f"crispseg: {INTERRUPTED}\n"
