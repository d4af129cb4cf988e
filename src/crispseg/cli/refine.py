"""`crispseg refine RUN IMAGE_OR_DIR... --labels DIR --out DIR`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.console import Console

from crispseg.cli.keys import WithDevice
from crispseg.inference.refiner import refine_files


@dataclass(kw_only=True)
class Refine(WithDevice):
    """Move the labels that any model has saved along boundaries, by the boundary refinement of a model.

    The model is one that was trained with --model.refine boundary. NAME.png is read from --labels and written to --out.

    Args:
        run: a run's folder, a saved model's folder or a hub id, of a model that refines.
        images: files, folders (with their sub-folders), patterns such as 'in/*.jpg' and lists of paths, LIST.txt.
        labels: folder of the label PNGs, named as 'crispseg predict' names them.
        out: folder to write to.
    """

    name: ClassVar[str] = "refine"
    words: ClassVar[tuple[str, ...]] = ("run", "images")
    run: str
    images: list[str]
    labels: Path
    out: Path

    def __call__(self) -> None:
        """The first file that does not fit ends it."""
        done, changed = refine_files(
            self.run, self.images, self.labels, self.out, device=self.device, console=Console(stderr=True)
        )
        print(f"{done} label maps refined into {self.out}; {100 * changed:.2f} % of the labels changed")


run = Refine.start
