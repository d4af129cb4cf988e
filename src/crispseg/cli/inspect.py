"""`crispseg inspect RUN IMAGE [--truth MASK] --out PAGE.html`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crispseg.cli.command import WithData
from crispseg.cli.keys import WithDevice, show_page
from crispseg.inspection import inspect_image
from crispseg.inspection.page import inspection_page
from crispseg.models import SegmentationModel
from crispseg.visualization.pages import check_page


@dataclass(kw_only=True)
class Inspect(WithDevice, WithData):
    """Write a page that shows how a model computes its labels. The page works offline.

    It shows probabilities, errors, and the flow, sampled points or boundaries behind each pixel. --other RUN adds the
    aligned features of a second model, such as one with deformable convolutions instead of flows.

    Args:
        run: a run's folder, a saved model's folder, a hub id, or the name of a bundled model.
        image: an image file.
        out: page to write, PAGE.html.
        truth: mask of the image; it is read like the training masks, unless classes, num_classes, palette or ignore
            are given.
        other: another run, whose aligned features are also shown.
    """

    name = "inspect"
    words = ("run", "image")
    run: str
    image: Path
    out: Path
    truth: Path | None = None
    other: str | None = None

    def __call__(self) -> None:
        check_page(self.out)
        model = SegmentationModel.from_pretrained(self.run)
        seen = inspect_image(model, self.image, self.truth, device=self.device, **self.data)
        other = None
        if self.other:
            other = inspect_image(SegmentationModel.from_pretrained(self.other), self.image, device=self.device)
        self.results |= {"page": self.out, "model": model.info.title, "image": self.image, "size": seen.original_size}
        show_page(self.out, inspection_page(seen, other))
