"""`crispseg doctor DATA [--json FILE] [--fix OUT]`"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt
from rich.console import Console

from crispseg.cli.command import WithData
from crispseg.cli.exit_codes import ExitCode
from crispseg.cli.results import STDOUT
from crispseg.config.files import real_path
from crispseg.config.settings import Tree
from crispseg.data import DataSource
from crispseg.data.examination import examine
from crispseg.data.named import build_data
from crispseg.data.picture import DATA_PICTURE, draw_examined
from crispseg.errors import CrispsegError, command_line, flags_of
from crispseg.evaluation.recorded import named_data
from crispseg.folders.cache import cache_file, forget
from crispseg.folders.checks import check
from crispseg.folders.checks.files import UNPAIRED
from crispseg.folders.diagnosis import as_json, count_line, finding_lines, overview, worst
from crispseg.folders.examined import Examined
from crispseg.folders.finding import Finding, Severity
from crispseg.folders.fix import worth_a_copy, write_copy
from crispseg.io.files import check_new_folder
from crispseg.io.images import image_channels, write_image
from crispseg.io.progress import print_lines

SHORT = {"images", "masks", "instances", "classes"}  # keys that all pages write without the group
STYLES = {Severity.INFORMATION: "cyan", Severity.WARNING: "yellow", Severity.ERROR: "bold red"}
EXIT_CODES = {
    Severity.INFORMATION: ExitCode.SUCCESS,
    Severity.WARNING: ExitCode.WARNINGS,
    Severity.ERROR: ExitCode.ERRORS,
}


@dataclass(kw_only=True)
class Doctor(WithData):
    """Read all data once and report problems of files, pairs, mask values, classes and splits.

    The exit status is 0 without warnings and errors, 1 for warnings, 3 for errors, and 2 if the command itself is
    wrong.

    Args:
        target: a folder of data in a known layout, a run, a saved model, a YAML file of settings, or the name of a
            data source. Without it, --data selects the data.
        fix: write a corrected copy to this new folder; nothing is changed in place.
        in_chans: channels of the model's input, 1 to 16; the default is the run's value, else 3.
        workers: number of threads; the default is one per processor, at most 8.
        refresh: read all files again; by default, facts of unchanged files come from the user's cache folder.
    """

    name = "doctor"
    words = ("target",)
    target: str | None = None
    fix: Path | None = None
    in_chans: int | None = None
    workers: PositiveInt | None = None
    refresh: bool = False

    def __call__(self) -> int:
        if self.refresh:
            forget()
        recorded, in_chans = ({}, 3) if self.target is None else named_data(self.target)
        source = build_data(self.chosen(recorded))
        if self.fix is not None:
            check_out(self.fix, source)
        data = examine(source, image_channels(in_chans if self.in_chans is None else self.in_chans), self.workers)
        findings = check(data)
        self.results |= as_json(source.name, data, findings)
        console = Console()
        print_lines(console, overview(source.name, data))
        for finding in findings:
            title, *details = finding_lines(finding)
            print_lines(console, ["", title], STYLES[finding.severity])
            print_lines(console, details)
        print_lines(console, ["", count_line(findings)])
        if worst(findings) < Severity.ERROR:
            print_lines(console, source.notes())
        picture = draw_examined(data)
        if picture is not None:
            print_lines(console, [f"images with their masks: {written_picture(picture, self.json)}"])
        own = recorded.get("root") == self.target
        print_lines(console, [*self.remedies(findings, own), *self.commands(data, findings, own)])
        return EXIT_CODES[worst(findings)]

    @property
    def same_data(self) -> list[str]:
        """Words of a command that choose the same data and channels."""
        settings = {key if key in SHORT else f"data.{key}": value for key, value in self.data.items()} | self.channels
        return [*filter(None, [self.target]), *flags_of(settings)]

    @property
    def channels(self) -> Tree:
        """Setting of the channels, if they were given."""
        return {} if self.in_chans is None else {"in_chans": self.in_chans}

    def remedies(self, findings: Sequence[Finding], own: bool) -> Iterator[str]:
        """Yield commands with the alternative settings of the only error; training leaves unpaired files out."""
        errors = [finding for finding in findings if finding.severity is Severity.ERROR]
        errors = [error for error in errors if error.code not in UNPAIRED]
        if len(errors) == 1 and (own or self.target is None or Path(self.target).is_file()):
            for settings in errors[0].settings:
                yield f"or train with: {command_line(['train', *self.same_data], settings)}"

    def commands(self, data: Examined, findings: list[Finding], own: bool) -> Iterator[str]:
        """Yield what was written, and commands to continue with; `own` if the target is the folder of the data."""
        if self.fix is not None:
            yield write_copy(data, findings, self.fix)
            yield f"train on them: {command_line(['train', self.fix], self.channels)}"
        elif data.files and worth_a_copy(data, findings):
            copy = f"{Path(self.target or 'data')}_fixed"
            yield f"write a corrected copy: {command_line(['doctor', *self.same_data], {'fix': copy})}"
        elif own and worst(findings) < Severity.ERROR:
            yield f"train on them: {command_line(['train', *self.same_data])}"


def check_out(out: Path, source: DataSource) -> None:
    """Raise a `CrispsegError` if a folder is not empty or is inside the data."""
    check_new_folder(out)
    for key in ("root", "images", "masks", "instances"):
        root = getattr(source, key, None)
        if root is not None and real_path(out).is_relative_to(real_path(root)):
            raise CrispsegError(f"{out} is inside the data, {root}, which are never changed; give another folder")


def written_picture(picture: NDArray[np.uint8], report: Path | None) -> Path:
    """Write the picture next to the report, or else to the user's cache folder, and return its path."""
    folder = cache_file().parent if report is None or report == STDOUT else report.parent
    folder.mkdir(parents=True, exist_ok=True)
    write_image(folder / DATA_PICTURE, picture)
    return folder / DATA_PICTURE
