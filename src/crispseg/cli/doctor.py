"""`crispseg doctor DATA [--json FILE] [--fix OUT]`"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from rich.console import Console

from crispseg.cli.downloading import say
from crispseg.cli.parsing import Parser, Tree, parse_data
from crispseg.cli.target import found_data, take_target
from crispseg.config.plugins import load_plugins
from crispseg.data import DATA_SOURCES, DataSource, Folder
from crispseg.data.mask_reading import Severity
from crispseg.doctor import KINDS, diagnose, subject_of
from crispseg.doctor.fix import check_out, fix
from crispseg.doctor.report import EXIT_STATUS, as_json, show
from crispseg.errors import CrispsegError
from crispseg.io.files import atomic_path
from crispseg.io.images import image_channels
from crispseg.models.info import MIN_SIDE
from crispseg.models.saving import WEIGHTS_FILE
from crispseg.training.config import CONFIG
from crispseg.visualization.pages import check_json

STDOUT = Path("-")

LEFT_OUT = ("image-without-mask", "mask-without-image")
"""Errors that training leaves out, and goes on, where enough is left."""

DATA = (
    "a folder of data in a layout that is known, a run's or a saved model's folder, a YAML file of a training, or the "
    "name of a data source; without it, --data says what to examine"
)


def run(argv: Sequence[str]) -> None:
    """Run the command. It exits with 0, 1 or 3 by the worst finding."""
    parser = Parser(
        prog="crispseg doctor",
        description="Read all data once and say what is wrong with them: files, pairs, mask values, classes, splits. "
        "The exit status is 0 where nothing is above information, 1 for warnings, 3 for errors, and 2 if the command "
        "itself is wrong.",
    )
    parser.add_argument(
        "--json", type=Path | None, help="also write all findings to this file; - is the standard output"
    )
    parser.add_argument(
        "--fix",
        type=Path | None,
        metavar="OUT",
        help="write a corrected copy to this new folder; nothing is changed in place",
    )
    parser.add_argument(
        "--in_chans",
        type=int | None,
        help="channels that the model takes, 1 to 16; by default what a run recorded, else 3",
    )
    parser.add_argument("--workers", type=int | None, help="threads; by default one a processor, at most 8")
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")
    target = take_target(argv, parser, DATA)
    found, in_chans = (Tree(), 3) if target is None else found_data(target)
    parsed, data = parse_data(argv, {"data": found} if found else {}, parser)
    load_plugins(parsed.plugins)
    subject = subject_of(data, image_channels(in_chans if parsed.in_chans is None else parsed.in_chans))
    if parsed.fix is not None:
        check_out(parsed.fix, subject, *([Path(target)] if target is not None and Path(target).is_dir() else []))

    # The file is opened now, so that a path that cannot be written is found before the work.
    to_file = parsed.json is not None and parsed.json != STDOUT
    if to_file:
        check_json(parsed.json)
    with atomic_path(parsed.json) if to_file else nullcontext() as file:
        diagnosis = diagnose(subject, parsed.workers)
        text = json.dumps(as_json(diagnosis), indent=2) + "\n"
        if file is not None:
            file.write_text(text, encoding="utf-8")
    if parsed.json == STDOUT:
        print(text, end="")
    console = Console(stderr=parsed.json == STDOUT)
    show(diagnosis, console)
    if parsed.fix is not None:
        say(console, fix(diagnosis, parsed.fix, parsed.workers))
        say(console, f"--data folder --data.root {parsed.fix}")
    elif any(KINDS[one.code].fix and one.severity > Severity.INFORMATION for one in diagnosis.findings):
        say(console, "--fix OUT writes a corrected copy")
    stopped = any(one.severity is Severity.ERROR and one.code not in LEFT_OUT for one in diagnosis.findings)
    stopped |= any(report.split == "val" and min(report.smallest) < MIN_SIDE for report in diagnosis.reports)
    if not stopped and _trainable(data) and not (target and (Path(target) / WEIGHTS_FILE).is_file()):
        say(console, f"train on them: {_train_command(target, argv, parsed.in_chans)}")
    status = EXIT_STATUS[diagnosis.severity]
    if status:
        raise SystemExit(status)


def _trainable(data: DataSource) -> bool:
    """Whether training finds pairs to train and to validate on."""
    try:
        for split in ("train", "val"):
            # A new folder has not yet left out what does not pair, and raises where hardly anything does.
            _ = replace(data).pairs(split) if isinstance(data, Folder) else data.dataset(split)
    except CrispsegError:
        return False
    return True


def _train_command(target: str | None, argv: Sequence[str], in_chans: int | None) -> str:
    """The command that trains on what was examined, with the same keys of data."""
    words = ["crispseg", "train"]
    if target is not None:
        settings = Path(target) / CONFIG
        named = not Path(target).exists() and target in DATA_SOURCES
        words += ["--data", target] if named else [str(settings) if settings.is_file() else target]
    flags = [index for index, word in enumerate(argv) if word.startswith("--")]
    for start, end in pairwise([*flags, len(argv)]):
        words += argv[start:end] if re.match(r"--data\b", argv[start]) else []
    return shlex.join(
        [*words, *([] if in_chans is None else ["--model.in_chans", str(in_chans)]), "--out", "runs/first"]
    )
