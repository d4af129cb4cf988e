"""Results and errors of every command as JSON, and the exit status of each ending."""

import importlib
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
from commands import Capture
from test_host_state import COMMAND, COMMAND_ROWS, SLOW, Interrupted, place

import crispseg.cli.list  # noqa: F401 as it registers itself
from crispseg import Project, errors
from crispseg.cli.command import commands
from crispseg.cli.exit_codes import ExitCode
from crispseg.cli.main import main
from crispseg.cli.results import write_json
from tests.folders.messy import FOLDERS
from tests.folders.trees import SIZE, Tree

__all__ = ["place"]  # a fixture

RESULTS = {  # a key of each command's results
    "ablate": "models",
    "annotate": "project",
    "benchmark": "models",
    "compare": "models",
    "convert": "num_classes",
    "data get": "out",
    "data import": "summary",
    "data list": "nuclei",
    "demo": "url",
    "distill": "miou",
    "doctor": "splits",
    "evaluate": "of_images",
    "export": "comparisons",
    "inspect": "page",
    "label errors": "masks",
    "label next": "images",
    "list": "crisp",
    "predict": "done",
    "quickstart": "miou",
    "recipes": "rows",
    "train": "iou",
}
ALL = [pytest.param(name, marks=[pytest.mark.slow] * (COMMAND + name in SLOW)) for name in COMMAND_ROWS]


def parsed(text: str) -> dict[str, Any]:
    """JSON without NaN and infinities, which other languages do not read."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    results: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return results


def words_of(name: str, fails: bool, at: SimpleNamespace) -> list[str]:
    return [*name.split(), *COMMAND_ROWS[name][fails].format_map(vars(at)).split()]


@pytest.mark.parametrize("name", ALL)
def test_results_are_all_of_stdout(
    name: str, place: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    place.new = str(tmp_path / "new")
    monkeypatch.setattr("crispseg.cli.demo.Event", Interrupted)
    monkeypatch.setattr("crispseg.cli.demo.serve", lambda *models, **settings: nullcontext("http://127.0.0.1"))
    monkeypatch.setattr("crispseg.cli.annotate.open_window", Project)
    assert main([*words_of(name, False, place), "--json", "-"]) == 0
    assert parsed(capfd.readouterr().out)[RESULTS[name]]


@pytest.mark.parametrize("name", COMMAND_ROWS)
def test_an_error_is_the_last_line_of_stderr(name: str, place: SimpleNamespace, tmp_path: Path, capfd: Capture) -> None:
    place.new = str(tmp_path / "new")
    argv, file = words_of(name, True, place), tmp_path / "results.json"
    assert main([*argv, f"--json={file}"]) == ExitCode.MISTAKE
    error = parsed(capfd.readouterr().err.splitlines()[-1])["error"]
    assert error["code"] == ExitCode.MISTAKE and error["message"] and error["remedy"]
    assert file.exists() == (name == "predict")  # other images may have results
    assert main(argv) == ExitCode.MISTAKE
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith(f"crispseg: error: {error['message']}")


def test_an_error_has_its_field_its_remedy_and_commands(tmp_path: Path, capsys: Capture) -> None:
    def error_of(*words: object) -> dict[str, Any]:
        assert main(["train", *map(str, words), "--json", "-"]) == ExitCode.MISTAKE
        captured = capsys.readouterr()
        assert not captured.out
        error: dict[str, Any] = parsed(captured.err)["error"]
        return error

    FOLDERS["strokes, 255 unlabelled"].draw(tmp_path)
    error = error_of(tmp_path, "--lr=none")
    assert error["field"] == "lr" and "number" in error["remedy"]
    question = error_of(tmp_path, "--iterations=1")
    assert "strokes" in question["remedy"]
    assert any(command.endswith("--data.ignore=[255]'") for command in question["commands"])


def test_infinities_are_null(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", {"values": [np.inf, {"of class": np.float64("nan")}, 1.5]})
    assert parsed((tmp_path / "file.json").read_text()) == {"values": [None, {"of class": None}, 1.5]}


ENDINGS = [  # exit status, the command that has it, and the error that the command has
    (ExitCode.SUCCESS, "list", None),
    (ExitCode.WARNINGS, "doctor data", None),
    (ExitCode.ERRORS, "doctor data --num_classes=2", None),
    (ExitCode.MISTAKE, "list --json results.txt", None),
    (ExitCode.MISTAKE, "list", OSError(28, "No space left")),
    (ExitCode.BUG, "list", TypeError("two")),
    (ExitCode.INTERRUPTED, "list", KeyboardInterrupt()),
    (ExitCode.TERMINATED, "list", errors.Interrupted("stopped", 15)),
]


@pytest.mark.parametrize(("code", "command", "error"), ENDINGS)
def test_each_ending_has_its_exit_status(
    code: ExitCode,
    command: str,
    error: BaseException | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = Tree(tmp_path / "data")
    tree.add("black", image=np.zeros((*SIZE, 3), np.uint8))
    tree.source()

    def start(argv: list[str]) -> NoReturn:
        assert error
        raise error

    if error:
        monkeypatch.setitem(commands, "list", SimpleNamespace(start=start))
    assert main(command.split()) == code
    if error:
        assert main(["list", "--json=-"]) == code
        assert parsed(capsys.readouterr().err.splitlines()[-1])["error"]["code"] == code


def test_the_table_of_exit_codes_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nbconvert")
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "docs")
    rows = importlib.import_module("generate").exit_codes().splitlines()[2:]
    assert [int(row.split("`")[1]) for row in rows] == [0, 1, 2, 3, 4, 70, 130, 143]
    assert {code for code, *_ in ENDINGS} == {*ExitCode} - {ExitCode.REFUSED}
