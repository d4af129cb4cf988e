"""`crispseg distill TEACHER [FOLDER] --unlabelled FOLDER [--key value ...]`"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from crispseg.cli.train import Train
from crispseg.config.settings import Tree
from crispseg.evaluation.recorded import recorded_data


@dataclass(kw_only=True)
class Distill(Train):
    """Train a small model on labelled images, and on images without masks that a teacher labels.

    The model learns the teacher's probabilities. By default, the labelled images are those of the teacher's run, and
    the model is crisp_s. All settings of 'crispseg train' work too.

    Args:
        teacher: run, saved model, exported file, hub id, or name of a bundled model, with the same classes.
    """

    name = "distill"
    words: ClassVar[tuple[str, ...]] = ("teacher", "source")
    teacher: str

    def first_settings(self) -> list[Tree]:
        data = recorded_data(self.teacher) if self.source is None else {}
        own = {"teacher": self.teacher, "model": {"name": "crisp_s"}} | ({"data": data} if data else {})
        return [own, *super().first_settings()]
