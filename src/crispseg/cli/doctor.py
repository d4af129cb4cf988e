"""`crispseg doctor DATA [--json FILE] [--fix OUT]`"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from pydantic import PositiveInt
from rich.console import Console

from crispseg.cli.command import STDOUT, WithData
from crispseg.cli.keys import check_json, write_json
from crispseg.data.finding import Severity
from crispseg.data.folder import Folder
from crispseg.data.named import build_data
from crispseg.doctor import diagnose, subject_of
from crispseg.doctor.diagnosis import EXIT_STATUS, as_json, show
from crispseg.doctor.fix import check_out, fix, worth_a_copy
from crispseg.errors import flags_of
from crispseg.evaluation.evaluate import named_data
from crispseg.io.images import image_channels
from crispseg.io.progress import print_lines


@dataclass(kw_only=True)
class Doctor(WithData):
    """Read all data once and report problems of files, pairs, mask values, classes and splits.

    The exit status is 0 without warnings and errors, 1 for warnings, 3 for errors, and 2 if the command itself is
    wrong.

    Args:
        target: a folder of data in a known layout, a run, a saved model, a YAML file of settings, or the name of a
            data source. Without it, --data selects the data.
        json: also write all findings to this file; - is the standard output.
        fix: write a corrected copy to this new folder; nothing is changed in place.
        in_chans: channels of the model's input, 1 to 16; the default is the run's value, else 3.
        workers: number of threads; the default is one per processor, at most 8.
    """

    name = "doctor"
    words = ("target",)
    target: str | None = None
    json: Path | None = None
    fix: Path | None = None
    in_chans: int | None = None
    workers: PositiveInt | None = None

    def __call__(self) -> int:
        found, in_chans = ({}, 3) if self.target is None else named_data(self.target, self.data)
        data = build_data(self.chosen(found))
        subject = subject_of(data, image_channels(in_chans if self.in_chans is None else self.in_chans))
        if self.fix is not None:
            check_out(self.fix, subject)
        check_json(self.json)
        diagnosis = diagnose(subject, self.workers)
        if self.json:
            write_json(self.json, as_json(diagnosis))
        console = Console(stderr=self.json == STDOUT)
        show(diagnosis, console)
        if isinstance(subject.source, Folder):
            known, source = {one.line for one in diagnosis.findings}, subject.source
            notes = source.notes() if diagnosis.severity < Severity.ERROR else source.layout.unused
            print_lines(console, [line for line in notes if line not in known])
        target, said = [self.target] if self.target else [], {f"data.{key}": each for key, each in self.data.items()}
        model = flags_of({"model.in_chans": self.in_chans} if self.in_chans else {})
        train = ["crispseg", "train"]
        own = self.target is None or found.get("root") == self.target or Path(self.target).is_file()
        unpaired = ("image-without-mask", "mask-without-image")
        errors = [one for one in diagnosis.findings if one.severity is Severity.ERROR and one.code not in unpaired]
        refused = errors or [one for one in diagnosis.findings if one.code == "parts-in-two-splits"]
        choices = refused[0].details.get("settings", ()) if own and len(refused) == 1 else ()
        commands = (shlex.join([*train, *target, *flags_of({**said, **tree}), *model]) for tree in choices)
        print_lines(console, [f"or train with: {command}" for command in commands])
        lines = []
        if self.fix is not None:
            lines += [fix(diagnosis, self.fix), f"train on them: {shlex.join([*train, str(self.fix), *model])}"]
        elif worth_a_copy(diagnosis):
            copy = f"{Path(self.target or 'data')}_fixed"
            given = ["crispseg", "doctor", *target, *flags_of(said), *(each.replace("model.", "") for each in model)]
            lines.append(f"write a corrected copy: {shlex.join([*given, '--fix', copy])}")
        elif found.get("root") == self.target and not self.data and diagnosis.severity < Severity.ERROR:
            lines.append(f"train on them: {shlex.join([*train, *target, *model])}")
        print_lines(console, lines)
        return EXIT_STATUS[diagnosis.severity]
