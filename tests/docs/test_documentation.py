"""What the README and the documentation show can be used: commands with their keys and values, flags, imports."""

import ast
import importlib.util
import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from dataset_trees import grid, picture, save

from crispseg import create_model, list_models
from crispseg.cli.command import Command
from crispseg.cli.main import COMMANDS, main
from crispseg.config.settings import fields_of
from crispseg.data import DATA_SOURCES
from crispseg.data.named import data_source
from crispseg.folders.finding import FINDING_KINDS
from crispseg.models import saving

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
PAGES += sorted(page for folder in ("docs", "examples") for page in (ROOT / folder).rglob("*.md"))
PROGRAMS = sorted((ROOT / "examples").rglob("*.py"))
FORMS = re.compile(r"…|\.\.\.|\[--|\b(COMMAND|FLAGS|NAME|TABLE)\b")
"""In lines that show the form of a command."""
MAPPINGS = ("--loss", "--boundary_weights", "--model.fuse_options")
"""Flags whose entries are flags of their own, such as `--loss.dice`."""


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language; those of the shell name none."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [code for named, code in fences if named == language]


PAGES_WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


def commands() -> list[Any]:
    """The lines of code blocks, and code with a flag within sentences, which may leave out arguments."""
    places: dict[tuple[str, bool], str] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in blocks(page, ""):
            for line in block.replace("\\\n", " ").splitlines():
                places.setdefault((line, True), page.name)
        for code in re.findall(r"`(crispseg [^`]*? --[^`]+)`", text):
            places.setdefault((" ".join(code.split()), False), page.name)
    return [
        pytest.param(line, whole, id=re.sub(r"\s+", " ", f"{page}: {line}")[:100])
        for (line, whole), page in places.items()
        if line.startswith("crispseg ") and not FORMS.search(line)
    ]


class Understood(BaseException):
    """The flags are parsed; what the command would do now is tested elsewhere."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what parsing reads of the files that the commands name."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("a", "b", "c"):
        picture(folder / f"photos/images/{name}.png")
        save(folder / f"photos/masks/{name}.png", grid([0, 1]))
    part = re.search(r"`my_fuse\.py`:\n\n```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL)
    assert part
    (folder / "my_fuse.py").write_text(part[1].replace('"gated"', '"gated_of_docs"'))
    config = "model: sfnet\ndata: nuclei\n"
    (folder / "config.yaml").write_text(config)
    for name in ("nuclei", "aerial"):
        create_model("fpn", num_classes=2, backbone="test_efficientnet").save_pretrained(folder / "shipped" / name)
    for run in ("RUN", "runs/a", "runs/cells", "runs/folds", "runs/mine", "runs/streets"):
        (folder / run).mkdir(parents=True)
        (folder / run / "config.yaml").write_text(config)
    return folder


@pytest.mark.parametrize(("line", "whole"), commands())
def test_commands_are_understood(
    line: str, whole: bool, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(saving, "SHIPPED", place / "shipped")
    line = line.replace("$RECIPES", str(files("crispseg") / "recipes")).replace(" gated ", " gated_of_docs ")
    argv = shlex.split(line, comments=True)[1:]
    assert argv[0] in COMMANDS

    parsed = Command.parsed.__func__  # type: ignore[attr-defined]

    def stop(cls: type[Command], argv: Any) -> NoReturn:
        data = getattr(parsed(cls, argv), "data", {})
        assert data.keys() <= {"name", *fields_of(data_source(data.get("name", "folder")))}
        raise Understood

    if argv[0] in ("train", "quickstart"):
        argv.append("--print_config")
    else:
        monkeypatch.setattr(Command, "parsed", classmethod(stop))
        monkeypatch.setattr("crispseg.cli.command.load_plugins", lambda files: None)  # of the repository
    try:
        status = main(argv)
    except Understood:
        return
    message = capsys.readouterr().err
    assert status == 0 or (not whole and " missing; " in message), message


def test_flags_within_sentences_exist(capsys: pytest.CaptureFixture[str]) -> None:
    subcommands = [name.split() for name in ("data list", "data import", "label next", "label errors")]
    choices = [["train", f"--data={name}"] for name in DATA_SOURCES]
    choices += [["train", f"--model={name}"] for name in list_models()]
    for argv in [*([name] for name in COMMANDS), *subcommands, *choices]:
        assert main([*argv, "--help", "all"]) == 0
    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))
    shown = capsys.readouterr().out
    known = {*re.findall(r"--[\w.-]+", shown + shown.replace("_", "-") + scripts), "--help", "--version", "--strict"}
    known |= {f"--{flag.rpartition('.')[2]}" for flag in known if "." in flag}  # a key without its group
    for page in PAGES:
        for code in re.findall(r"`(--[^`]+)`", page.read_text(encoding="utf-8")):
            for flag in re.findall(r"(?:^|\s)(--[\w.-]+)", code):
                mapping = flag.rpartition(".")[0]
                assert flag in known or flag.endswith(".") or mapping in MAPPINGS, f"{page.name}: {code}"


@pytest.mark.parametrize("page", [*PAGES_WITH_PYTHON, *PROGRAMS], ids=lambda page: page.name)
def test_python_parses_and_its_imports_exist(page: Path) -> None:
    for block in blocks(page, "python") or [page.read_text(encoding="utf-8")]:
        nodes = ast.walk(ast.parse(block))
        imports = [
            node for node in nodes if isinstance(node, ast.ImportFrom) and str(node.module).startswith("crispseg")
        ]
        exec(compile(ast.Module(imports, type_ignores=[]), page.name, "exec"), {})


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "benchmarks/README.md"])
def test_links_outside_of_the_site_lead_somewhere(page: str) -> None:
    """`make docs` checks those inside."""
    for target in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text(encoding="utf-8")):
        assert target.startswith("https://") or (ROOT / page).parent.joinpath(target).exists(), target


def test_the_steps_of_a_journey_exist() -> None:
    steps = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "docs/development/design.md").read_text(encoding="utf-8"))
    assert len(steps) > 20
    for file, name in steps:
        code = (ROOT / "src/crispseg" / file).read_text(encoding="utf-8")
        assert re.search(rf"^(def|class) {name}\b", code, re.MULTILINE), f"{file}::{name}"


def test_every_promise_has_its_tests() -> None:
    _, *sections = (ROOT / "SECURITY.md").read_text(encoding="utf-8").split("\n## ")
    promises = [item for section in sections[1:] for item in section.split("\n- ")[1:]]  # the first: how to report
    assert len(promises) > 10
    for promise in promises:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", promise)
        assert named, promise
        for file, name in named:
            assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"


def test_every_bound_says_what_it_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nbconvert")
    monkeypatch.syspath_prepend(ROOT / "docs")
    rows = [row.strip("| ").split(" | ") for row in importlib.import_module("generate").bounds().splitlines()[2:]]
    assert all(int(value.replace(",", "")) and len(about) > 9 for _, value, about in rows)
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")]
    constants = re.findall(r"^MAX_\w+", "\n".join(sources), re.MULTILINE)
    assert len(rows) > 10 and sorted(name.strip("`") for name, _, _ in rows) == sorted(constants)


def test_files_for_agents_name_every_command_and_page(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nbconvert")
    monkeypatch.syspath_prepend(ROOT / "docs")
    generate = importlib.import_module("generate")
    listed, skill = generate.llms(), generate.skill()
    assert {*COMMANDS} == {name.split()[0] for name in generate.command_names()}
    for name in generate.command_names():
        assert f"- `crispseg {name}`: " in listed
        assert f"\n## crispseg {name}\n" in skill and f"\nusage: crispseg {name}" in skill
    for page in (ROOT / "docs").glob("*.md"):
        assert f"]({page.stem}/)" in listed
    _, head, body = skill.split("---\n", 2)
    assert yaml.safe_load(head)["name"] == "crispseg" and len(yaml.safe_load(head)["description"]) <= 1024
    assert "`--json FILE`" in body and generate.exit_codes() in body


def test_every_finding_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nbconvert")
    monkeypatch.syspath_prepend(ROOT / "docs")
    rows = [row.strip("| ").split(" | ") for row in importlib.import_module("generate").findings().splitlines()[2:]]
    assert [row[0].strip("`") for row in rows] == [*FINDING_KINDS]
    for code, _, fault, *_ in rows:
        assert re.search(r"[a-z]{3}", fault) and not re.search(r"[{}]", fault), code


def test_measured_tables_and_their_list_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nbconvert")
    monkeypatch.syspath_prepend(ROOT / "docs")
    generate = importlib.import_module("generate")
    listed = re.findall(
        r"^  file: (\w+)$", (generate.MEASURED / "tables.yaml").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(listed) == sorted(path.stem for path in generate.MEASURED.glob("*.csv"))
    for page in ("appendix", "trials"):
        lines = [line for line in generate.measured(page).splitlines() if line.startswith("|")]
        assert lines and all(line.endswith("|") for line in lines)


def test_tables_of_pages_are_those_of_the_measured_rows() -> None:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "docs/figures.py")
    assert spec and spec.loader
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    for page, tables in figures.page_tables().items():
        for name, table in tables.items():
            assert f"<!-- generated: {name} -->\n\n{table}\n\n<!-- end -->" in (ROOT / page).read_text(encoding="utf-8")
