"""Write the parts of the site that are read off the code: `make docs` runs this before it builds the site.

`.generated/` gets the tables of models, of the papers' rows, of bounds and of the command line, which pages include;
`docs/notebooks/` gets the notebooks with their outputs.
"""

from __future__ import annotations

import csv
import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import MarkdownExporter
from nbconvert.writers import FilesWriter

from crispseg.cli.command import Command, commands
from crispseg.cli.main import COMMANDS
from crispseg.config.settings import Field, accepted, fields_of, written
from crispseg.models import list_models, models
from crispseg.models.registry import model_options
from crispseg.recipes import PAPERS, PaperRow, read_rows

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parts = {f"rows_{paper}": rows_of(paper) for paper in PAPERS}
    parts["bounds"] = bounds()
    parts["backbones"] = backbones()
    parts["predict_speed"] = predict_speed()
    parts["options"] = "\n".join(map(options_of, list_models()))
    for name in COMMANDS:
        importlib.import_module(f"crispseg.cli.{name}")
    order = ["train", *COMMANDS]  # that of quickstart says which keys are those of train
    shown: dict[str, str] = {}
    names = sorted(commands.keys() - {"data"}, key=lambda name: (order.index(name.split()[0]), name))
    parts["commands"] = "\n".join(command_of(commands[name], shown) for name in names)
    generated = ROOT / ".generated"
    generated.mkdir(exist_ok=True)
    for name, text in parts.items():
        (generated / f"{name}.md").write_text(text, encoding="utf-8")
    writer = FilesWriter(build_directory=str(ROOT / "docs/notebooks"))
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        resources = {"output_files_dir": f"{notebook.stem}_files"}
        book = nbformat.read(notebook, as_version=4)
        for cell in book.cells:
            cell.outputs = [each for each in cell.get("outputs", ()) if of_interest(each)]
        text, found = MarkdownExporter().from_notebook_node(book, resources)
        writer.write(text, found, notebook_name=notebook.stem)


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
    for key, each in keys.items():
        name = key if key.isupper() else f"--{key}"
        default = (
            "required" if each.default is MISSING else "" if each.default is None else f"`{written(each.default)}`"
        )
        cells = (f"`{name}`", accepted(each.kind).removesuffix(" or null"), default, each.about)
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
