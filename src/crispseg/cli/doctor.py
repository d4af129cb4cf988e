"""`crispseg doctor DATA [--json FILE] [--fix OUT]`"""

from __future__ import annotations

import json
import shlex
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from pydantic import PositiveInt
from rich.console import Console

from crispseg.cli.command import STDOUT, WithData, say
from crispseg.config.settings import CONFIG
from crispseg.data import DATA_SOURCES, DataSource, Folder
from crispseg.data.mask_reading import Severity
from crispseg.data.named import build_data
from crispseg.doctor import KINDS, diagnose, subject_of
from crispseg.doctor.diagnosis import EXIT_STATUS, as_json, show
from crispseg.doctor.fix import check_out, fix
from crispseg.errors import CrispsegError
from crispseg.evaluation.evaluate import completed, named_data
from crispseg.io.files import atomic_path
from crispseg.io.images import image_channels
from crispseg.models.info import MIN_SIDE
from crispseg.models.saving import WEIGHTS_FILE
from crispseg.visualization.pages import check_page

LEFT_OUT = ("image-without-mask", "mask-without-image")
"""Errors that training leaves out, and goes on, where enough is left."""


@dataclass(kw_only=True)
class Doctor(WithData):
    """Read all data once and say what is wrong with them: files, pairs, mask values, classes, splits.

    The exit status is 0 if nothing is above information, 1 for warnings, 3 for errors, and 2 if the command itself is
    wrong.

    Args:
        target: a folder of data in a known layout, a run's or a saved model's folder, a YAML file of a training, or the
            name of a data source; without it, --data says what to examine.
        json: also write all findings to this file; - is the standard output.
        fix: write a corrected copy to this new folder; nothing is changed in place.
        in_chans: channels that the model takes, 1 to 16; by default what a run recorded, else 3.
        workers: threads; by default one a processor, at most 8.
    """

    name: ClassVar[str] = "doctor"
    words: ClassVar[tuple[str, ...]] = ("target",)
    target: str | None = None
    json: Path | None = None
    fix: Path | None = None
    in_chans: int | None = None
    workers: PositiveInt | None = None

    def __call__(self) -> int:
        found, in_chans = ({}, 3) if self.target is None else named_data(self.target)
        settings = completed({**found, **self.data})
        if not settings:
            raise CrispsegError("is missing; give a folder of data first, or its name", "data")
        data = build_data(settings)
        subject = subject_of(data, image_channels(in_chans if self.in_chans is None else self.in_chans))
        if self.fix is not None:
            check_out(self.fix, subject, *([Path(self.target)] if self.target and Path(self.target).is_dir() else []))

        # The file is opened now, so that a path that cannot be written is found before the work.
        to_file = None if self.json == STDOUT else self.json
        if to_file:
            check_page(to_file, ".json")
        with atomic_path(to_file) if to_file else nullcontext() as file:
            diagnosis = diagnose(subject, self.workers)
            text = json.dumps(as_json(diagnosis), indent=2) + "\n"
            if file is not None:
                file.write_text(text, encoding="utf-8")
        if self.json == STDOUT:
            print(text, end="")
        console = Console(stderr=self.json == STDOUT)
        show(diagnosis, console)
        if self.fix is not None:
            say(console, fix(diagnosis, self.fix))
            say(console, f"--data folder --data.root {self.fix}")
        elif any(KINDS[one.code].fix and one.severity > Severity.INFORMATION for one in diagnosis.findings):
            say(console, "--fix OUT writes a corrected copy")
        stopped = any(one.severity is Severity.ERROR and one.code not in LEFT_OUT for one in diagnosis.findings)
        stopped |= any(report.split == "val" and min(report.smallest) < MIN_SIDE for report in diagnosis.reports)
        if not stopped and _trainable(data) and not (self.target and (Path(self.target) / WEIGHTS_FILE).is_file()):
            say(console, f"train on them: {self._train_command()}")
        return EXIT_STATUS[diagnosis.severity]

    def _train_command(self) -> str:
        """The command that trains on what was examined, with the same keys of data."""
        words = ["crispseg", "train"]
        if self.target is not None:
            settings = Path(self.target) / CONFIG
            named = not Path(self.target).exists() and self.target in DATA_SOURCES
            words += ["--data", self.target] if named else [str(settings) if settings.is_file() else self.target]
        for key, value in self.data.items():
            words += ["--data" if key == "name" else f"--data.{key}", *([value] if isinstance(value, str) else value)]
        channels = [] if self.in_chans is None else ["--model.in_chans", str(self.in_chans)]
        return shlex.join([*words, *channels, "--out", "runs/first"])


def _trainable(data: DataSource) -> bool:
    """Whether training finds pairs to train and to validate on."""
    try:
        for split in ("train", "val"):
            # A new folder has not yet left out what does not pair, and raises where hardly anything does.
            _ = replace(data).pairs(split) if isinstance(data, Folder) else data.dataset(split)
    except CrispsegError:
        return False
    return True


run = Doctor.start
