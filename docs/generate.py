"""Write the generated parts of the site: `make docs` runs this before it builds the site.

    python docs/generate.py            # write them
    python docs/generate.py --count    # count the words of the hand-written pages

`.generated/` gets what is read off the code and off the CSV files in `benchmarks/`; pages include these parts.
`docs/notebooks/` gets the notebooks with their outputs, and `docs/reference/` gets pages of nothing but an include.
For agents, `docs/llms.txt` lists the pages and commands, and `docs/reference/SKILL.md` has the help of all commands.

--count prints the prose of each hand-written page, and the sum. Words count outside of code blocks, of tables between
the comments `generated` and `end`, of included parts and of the names that mkdocstrings documents. A word has a letter
or a digit; headings, hand-written tables and code within a sentence count. Pages of `docs/notebooks/` and
`docs/reference/` are generated. A page that includes a generated part and has fewer than 100 words itself is a shell of
that part; it is counted apart.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbconvert import MarkdownExporter
from nbconvert.writers import FilesWriter

from crispseg.cli import first_page
from crispseg.cli.command import Command, commands
from crispseg.cli.exit_codes import ExitCode
from crispseg.cli.main import COMMANDS
from crispseg.config.settings import Field, accepted, fields_of, written
from crispseg.data.catalogue import catalogue
from crispseg.folders.finding import FINDING_KINDS
from crispseg.models import list_models, models
from crispseg.models.registry import model_options
from crispseg.recipes import PAPERS, PaperRow, read_rows

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "benchmarks/results"
SHELL = 100  # words, see above
INCLUDED = {
    "contributing": "CONTRIBUTING.md",
    "security": "SECURITY.md",
    "changelog": "CHANGELOG.md",
    "trials": ".generated/trials.md",
    "command-line": ".generated/commands.md",
    "options": ".generated/options.md",
}
"""Pages of `docs/reference/`, and the part that each includes."""

DESCRIBED = {
    "unusable-file": "missing, empty or damaged files, other channels than the model's, class ids in JPEG files",
    "split-unavailable": "a split that cannot be read",
    "unclear-masks": "values or colours with no meaning, or with several; commands to choose from are printed",
    "too-few-classes": "a split without a labelled pixel, or a training split with one class",
    "class-absent": "a class that some splits lack",
    "nodata-class": "masks in which the value without data (GDAL_NODATA) is one of three or more classes",
    "parts-in-two-splits": "images of one group of names in several splits; a warning for data.group, or half of val",
}
"""Findings whose message consists mostly of values."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true", help="count the words of the hand-written pages")
    if parser.parse_args().count:
        print(count())
    else:
        write_all()


def write_all() -> None:
    parts = {f"rows_{paper}": rows_of(paper) for paper in PAPERS}
    parts["appendix"] = measured("appendix")
    parts["trials"] = "# Trials\n\n" + measured("trials")
    parts["findings"] = findings()
    parts["datasets"] = datasets()
    parts["bounds"] = bounds()
    parts["backbones"] = backbones()
    parts["predict_speed"] = predict_speed()
    parts["options"] = "\n".join(["# Options of the models", "", *map(options_of, list_models())])
    shown: dict[str, str] = {}
    names = sorted(command_names(), key=lambda name: name != "train")  # others refer to keys of train
    head = ["# Command line", "", "## Exit codes", "", exit_codes(), "", json_key(), ""]
    parts["commands"] = "\n".join([*head, *(command_of(commands[name], shown) for name in names)])
    generated = ROOT / ".generated"
    generated.mkdir(exist_ok=True)
    for name, text in parts.items():
        (generated / f"{name}.md").write_text(text, encoding="utf-8")
    reference = ROOT / "docs/reference"
    reference.mkdir(exist_ok=True)
    for name, part in INCLUDED.items():
        (reference / f"{name}.md").write_text(f'--8<-- "{part}"\n', encoding="utf-8")
    (reference / "SKILL.md").write_text(skill(), encoding="utf-8")
    (ROOT / "docs/llms.txt").write_text(llms(), encoding="utf-8")
    writer = FilesWriter(build_directory=str(ROOT / "docs/notebooks"))
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        resources = {"output_files_dir": f"{notebook.stem}_files"}
        book = nbformat.read(notebook, as_version=4)
        for cell in book.cells:
            cell.outputs = [output for output in cell.get("outputs", ()) if of_interest(output)]
        text, attachments = MarkdownExporter().from_notebook_node(book, resources)
        writer.write(text, attachments, notebook_name=notebook.stem)


def pages_of(section: Any) -> Iterator[tuple[str, str]]:
    """Yield titles and files of the pages of a section of the site, in order."""
    for entry in section:
        for title, content in entry.items():
            if isinstance(content, str):
                yield title, content
            else:
                yield from pages_of(content)


def first_paragraph(page: Path) -> str:
    """Return the text before the second paragraph of a page as one line; empty if it has none."""
    paragraphs = prose(page.read_text(encoding="utf-8")).split("\n\n") if page.is_file() else []
    text = [paragraph for paragraph in paragraphs if re.match(r"[A-Za-z`]", paragraph)]
    return re.sub(r"\[([^][]+)\]\([^)]+\)", r"\1", " ".join(text[0].split())) if text else ""


def llms() -> str:
    """Return the pages of the site and all commands for language models, in the format of llmstxt.org."""
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    lines = [f"# {site['site_name']}", "", f"> {site['site_description']}"]
    for section in site["nav"]:
        for heading, pages in section.items():
            lines += ["", f"## {heading}", ""]
            for title, file in pages_of(pages):
                about = first_paragraph(ROOT / "docs" / file)
                lines.append(f"- [{title}]({file.removesuffix('.md')}/)" + f": {about}" * bool(about))
    lines += ["", "## Commands", ""]
    for name in command_names():
        about = (inspect.getdoc(commands[name]) or "").partition("\n\n")[0]
        lines.append(f"- `crispseg {name}`: {' '.join(about.split())}")
    return "\n".join([*lines, ""])


def skill() -> str:
    """Return a skill for agents: the start of the README, the help of all commands, and how they end."""
    about = first_paragraph(ROOT / "README.md")
    lines = ["---", "name: crispseg", f"description: {json.dumps(about)}", "---", "", "# crispseg", "", about, ""]
    lines += [json_key(), "", exit_codes(), ""]
    for name in command_names():
        lines += [f"## crispseg {name}", "", "```", first_page(name.split()), "```", ""]
    return "\n".join(lines)


def command_names() -> list[str]:
    """Return the names of all commands, those of a group after it."""
    for name in COMMANDS:
        importlib.import_module(f"crispseg.cli.{name}")
    order = [*COMMANDS]
    return sorted(commands, key=lambda name: (order.index(name.split()[0]), name))


def count() -> str:
    """Return the words of each hand-written page, and sums."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    lines, sums, shells = [], {"README and guides": 0, "docs/development": 0}, []
    for page in pages:
        name, text = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
        words = len(re.findall(r"\S*\w\S*", prose(text)))
        if page.parent.name in ("notebooks", "reference") or (
            words < SHELL and re.search("^(--8<--|:::)", text, re.MULTILINE)
        ):
            shells.append(name)
            continue
        sums["docs/development" if page.parent.name == "development" else "README and guides"] += words
        lines.append(f"{words:6,}  {name}")
    totals = [f"{total:6,}  {name}" for name, total in sums.items()]
    return "\n".join([*lines, *totals, f"{len(lines):6,}  hand-written pages", f"apart: {' '.join(shells)}"])


def prose(text: str) -> str:
    """Return what is left of a page without code blocks and what is generated."""
    for part in (r"^```.*?^```", r"<!-- generated.*?<!-- end -->", r"^--8<--.*?$", r"^:::.*?$(\n    .*?$)*"):
        text = re.sub(part, "", text, flags=re.DOTALL | re.MULTILINE)
    return text


def measured(page: str) -> str:
    """Return the tables of a page of `benchmarks/results/tables.yaml`, with their commands."""
    lines = []
    for entry in yaml.safe_load((MEASURED / "tables.yaml").read_text(encoding="utf-8"))[page]:
        lines += [f"## {entry['title']}", "", entry.get("about", "").strip(), ""]
        if "include" in entry:
            lines += [f'--8<-- ".generated/{entry["include"]}.md"', ""]
        if "file" in entry:
            lines += [csv_table(MEASURED / f"{entry['file']}.csv"), ""]
    return "\n".join(lines)


def csv_table(path: Path) -> str:
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    return table(head, rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(cell.replace("|", "&#124;") for cell in row) for row in [head, *rows]]
    lines.insert(1, " | ".join(["---"] * len(head)))
    return "\n".join(f"| {line} |" for line in lines)


def findings() -> str:
    """Return the faults that the doctor finds, with the effect of `--fix`."""
    rows = []
    for code, kind in FINDING_KINDS.items():
        text = re.sub(r"\{count:(.+?)\}", r"\1s", kind.message).partition(":")[0].partition(";")[0]
        text = re.sub(r"\{\w+\}", "", DESCRIBED.get(code, text))
        rows.append((f"`{code}`", str(kind.severity), text.strip(), kind.fix))
    return table(["code", "severity", "fault", "`--fix`"], rows)


def datasets() -> str:
    """Return the public data sets of the catalogue."""
    rows = []
    for entry in catalogue().values():
        counts = ", ".join(f"{split} {number:,}" for split, number in entry.counts.items())
        rows.append((f"`{entry.name}`", entry.classes, counts, entry.licence, entry.hint.replace("*", "\\*")))
    return table(["`--data`", "classes", "images", "licence", "`--data.root`"], rows)


def json_key() -> str:
    """Return the help of the key for JSON, which all commands have."""
    return f"`--json FILE`: {fields_of(Command)['json'].about}"


def exit_codes() -> str:
    """Return the exit codes of all commands."""
    return table(["exit code", "meaning"], [(f"`{code.value}`", code.about) for code in ExitCode])


def backbones() -> str:
    """The rows of benchmarks/backbones.csv; a file of any size was not exported for one size too."""
    lines = ["| timm module | backbone | model | step, odd sizes | ONNX | reason |", "| --- " * 6 + "|"]
    with (ROOT / "benchmarks/backbones.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            trained = "yes" if row["step"] == row["odd_sizes"] == "yes" else "no"
            sizes = "any size" if row["any_size"] == "yes" else "one size" if row["one_size"] == "yes" else "no"
            reason = "no features at strides 4 to 32" if not row["model"] else row["any_size"] or row["step"]
            reason = "" if reason == "yes" else reason.replace("|", "&#124;")
            cells = row["module"], row["backbone"] and f"`{row['backbone']}`", row["model"], trained, sizes, reason
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def predict_speed() -> str:
    """The rows of benchmarks/predict_speed.csv, the last of each way; stages are percentages of the time."""
    stages = ("reading", "preparation", "network", "labels", "writing")
    columns = ("format", "threads", "way", "images", "per_second", "over_loop", "same_labels", *stages)
    lines = [f"| {' | '.join(columns).replace('_', ' ')} |", "| --- " * 3 + "| ---: " * (len(columns) - 3) + "|"]
    file = ROOT / "benchmarks/predict_speed.csv"
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines() if file.is_file() else [])
    last = {(row["format"], row["threads"], row["way"]): row for row in rows}
    for row in last.values():
        cells = [row[column] for column in columns]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def bounds() -> str:
    """The constants whose names begin with `MAX_`, each with its value and the comment next to it."""
    package, rows = ROOT / "src", ["| constant | bound | of |", "| --- | --- | --- |"]
    for path in sorted(package.rglob("*.py")):
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        for name, about in re.findall(r"^(MAX_\w+) = .*?  # (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            rows.append(f"| `{name}` | {getattr(importlib.import_module(module), name):,} | {about} |")
    return "\n".join(rows)


def of_interest(output: Mapping[str, Any]) -> bool:
    """Whether an output of a cell is neither a warning nor a progress bar."""
    data = output.get("data", {})
    empty = ({"text/html", "text/plain"} == {*data} and "ipywidgets" in str(data)) or data.get("text/plain") == ""
    return output.get("name") != "stderr" and "application/vnd.jupyter.widget-view+json" not in data and not empty


def command_of(command: type[Command], shown: dict[str, str]) -> str:
    """A heading, what the command does, and tables of its keys, but for groups of keys that another has `shown`."""
    about = (inspect.getdoc(command) or "").partition("\nArgs:")[0].strip()
    lines = [f"## {command.name}", "", "```", command.usage().removeprefix("usage: "), "```", "", about]
    keys = fields_of(command)
    words = {word.upper(): keys.pop(word) for word in command.words}
    for heading, group in {"Arguments": words, "Keys": keys, **command.more_keys({})}.items():
        if not group:
            continue
        title, _, rest = heading.partition("; ")
        table = "\n".join(key_table(group))
        first = shown.setdefault(table, command.name) if len(group) > 2 else command.name
        if first == command.name:
            lines += ["", f"**{title}**" + f" ({rest})" * bool(rest), "", table]
        else:
            lines += ["", f"**{title}**: as for [{first}](#{first.replace(' ', '-')})"]
    return "\n".join([*lines, ""])


def key_table(keys: Mapping[str, Field]) -> list[str]:
    rows = ["| key | value | default | |", "| --- | --- | --- | --- |"]
    for key, field in keys.items():
        name = key if key.isupper() else f"--{key}"
        default = (
            "required" if field.default is MISSING else "" if field.default is None else f"`{written(field.default)}`"
        )
        cells = (f"`{name}`", accepted(field.kind).removesuffix(" or null"), default, field.about)
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return rows


def rows_of(paper: str) -> str:
    """The rows of a paper's tables that are trained here, with its values and the counts of the models here."""
    head = ["| row | in the paper | model | mIoU | M parameters | G multiply-adds | |", "| --- " * 7 + "|"]
    return "\n".join(head + [line_of(row) for row in read_rows(paper) if row.row])


def line_of(row: PaperRow) -> str:
    """A row of that table; what the paper counts is followed by what is counted here."""
    counts = row.counts() if row.parameters or row.multiply_adds else None
    shown = ["" if row.miou is None else f"{row.miou:g}"]
    for at, paper in enumerate((row.parameters, row.multiply_adds)):
        shown.append(f"{paper:g}; {counts[at]:.2f}" if counts and paper else "")
    options = " ".join(f"{key}={value}".replace(" ", "") for key, value in row.model.items() if key != "name")
    return " | ".join([f"| `{row.name}`", row.label, f"`{row.model['name']}` `{options}`", *shown, f"{row.note} |"])


def options_of(name: str) -> str:
    """A heading, the builder's first line and a table of its options."""
    summary = (inspect.getdoc(models[name]) or "").partition("\n")[0]
    rows = [
        f"| `{key}` | `{option.default!r}` | {inspect.formatannotation(option.kind)} | {option.about} |"
        for key, option in model_options(name).items()
    ]
    rows = [row.replace(" | None |", " or None |").replace("typing.", "") for row in rows]
    head = [f"### `{name}`", "", summary, "", "| option | default | type | what it is |"]
    return "\n".join([*head, "| --- | --- | --- | --- |", *rows, ""])


if __name__ == "__main__":
    main()
