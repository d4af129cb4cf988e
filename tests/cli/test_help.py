"""The first page of each command's help: short, with examples and true flags, and printed without torch."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files

import pytest
from commands import Capture, output_of

from crispseg.cli import first_page
from crispseg.cli.command import Command, WithData, commands, help_width, read_flags
from crispseg.cli.main import COMMANDS, HELP_PAGE, main

NAMES = [page.name.removesuffix(".txt") for page in (files("crispseg.cli") / "help").iterdir()]
PAGES = {name: f"{first_page(name.split())}\n" for name in NAMES}


@pytest.fixture(scope="module", autouse=True)
def _all_commands() -> None:
    for name in COMMANDS:
        import_module(f"crispseg.cli.{name}")


def keys_of(command: type[Command]) -> set[str]:
    """The keys of a command, also without their group, and the help's own."""
    (of_data,) = WithData.more_keys({}).values()
    keys = {**command.known_keys(), **of_data}
    return {"help", "key", "data", "model", "augment"} | {*keys} | {key.rpartition(".")[2] for key in keys}


def examples(page: str) -> Iterator[list[str]]:
    for line in re.findall(r"^  crispseg (.+)$", page, re.MULTILINE):
        yield shlex.split(line)


def test_each_command_has_a_page() -> None:
    assert {*PAGES} == {*commands, "data", "label"}


def test_the_list_of_commands_fits_a_terminal() -> None:
    assert max(map(len, HELP_PAGE.splitlines())) <= 80


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_short_and_true(name: str) -> None:
    lines = PAGES[name].splitlines()
    assert len(lines) <= 35 and max(map(len, lines)) <= 80
    if name not in commands:
        return
    assert lines[0].startswith(commands[name].usage().partition(" [--key")[0].replace(" --out", ""))
    known = keys_of(commands[name])
    for flag in re.findall(r"--([\w.]*\w)", PAGES[name]):
        assert flag in known, f"{name} has no --{flag}"
    shown = [*examples(PAGES[name])]
    assert len(shown) == 2
    for words in shown:
        title = max((title for title in commands if words[: len(title.split())] == title.split()), key=len)
        command = commands[title]
        arguments, tree = read_flags(words[len(title.split()) :], command.known_keys())
        assert {*tree} <= keys_of(command)
        assert bool(arguments) <= bool(command.words)


def test_help_is_printed_in_each_spelling(capsys: Capture) -> None:
    page = output_of(capsys, "predict", "--help")
    assert page == PAGES["predict"]
    for argv in (["help", "predict"], ["predict", "-h"], ["predict", "runs/a", "--out=b", "--help"]):
        assert output_of(capsys, *argv) == page
    assert output_of(capsys, "label") == output_of(capsys, "label", "--help", "all") == PAGES["label"]
    whole = output_of(capsys, "predict", "--help", "all")
    assert all(f"--{key}" in whole for key in {*commands["predict"].known_keys()} - {"run", "images"})
    assert whole == output_of(capsys, "help", "predict", "all")
    assert output_of(capsys, "help", "label", "next", "all") == output_of(capsys, "label", "next", "--help", "all")
    page = output_of(capsys, "help", "data")
    assert "--palette_tolerance" in page == output_of(capsys, "help", "data", "all")
    assert max(map(len, page.splitlines())) <= help_width()
    assert main(["help", "prdict"]) == 2


def test_pages_need_no_torch() -> None:
    """Nor does the list of the data's options, which needs more of the others."""
    code = (
        "import sys; from crispseg.cli.main import main\n"
        "assert not any(main([*name.split(','), '--help']) for name in sys.argv[1:])\n"
        "assert not {'torch', 'numpy', 'rich', 'pydantic'} & {*sys.modules}\n"
        "assert main(['help', 'data']) == 0 and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *(name.replace(" ", ",") for name in PAGES)], check=False)
    assert done.returncode == 0
