"""`crispseg label next|errors`"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pydantic import PositiveInt
from rich.console import Console

from crispseg.cli.command import WithData
from crispseg.cli.keys import WithDevice, show_page
from crispseg.config.files import real_path
from crispseg.config.settings import CONFIG
from crispseg.data.examination import pairs_of
from crispseg.data.named import build_data
from crispseg.errors import CrispsegError, command_line
from crispseg.evaluation.recorded import recorded_data
from crispseg.inference import Segmenter
from crispseg.inference.image_files import named_images
from crispseg.inference.protocols import Protocol
from crispseg.io.files import check_new_folder, writable_folder, write_file, write_table
from crispseg.io.images import image_channels, write_labels
from crispseg.io.parallel import spread
from crispseg.io.sampled_values import assumed_range
from crispseg.labelling.errors import Suspect, judges, label_errors
from crispseg.labelling.following import images_to_label
from crispseg.labelling.pages import errors_page, next_page
from crispseg.models import SegmentationModel

COMPARED = 500  # maximum number of labelled images, evenly spread, that a choice is compared with
PAGE = "index.html"


@dataclass(kw_only=True)
class LabelNext(WithDevice):
    """Choose images to label next: those in which a model is most uncertain and that are unlike others.

    It writes next.txt and next.csv with the images, the most useful first, the predicted masks in masks, to be
    corrected, and a page. For strokes, next.csv and the page have regions, and masks are not written.

    Args:
        run: a run's folder, a saved model's folder, a hub id, or the name of a bundled model.
        images: images, folders, patterns, or a text file of paths. Labelled images of the run are left out.
        out: new or empty folder to write to.
        count: number of images to choose.
        strokes: choose regions to draw strokes in instead, also in the run's training images.
    """

    name = "label next"
    words = ("run", "images")
    run: str
    images: list[str]
    out: Path
    count: PositiveInt = 20
    strokes: bool = False

    def __call__(self) -> None:
        check_new_folder(self.out)
        model, labelled = SegmentationModel.from_pretrained(self.run), _labelled(self.run, self.strokes)
        names = {path: name for path, name in named_images(self.images).items() if real_path(path) not in labelled}
        if not names:
            raise CrispsegError(f"{self.run} was trained on all images of {', '.join(self.images)}; give others")
        images = [*labelled.values()]
        known = [] if self.strokes else [images[index] for index in spread(len(images), COMPARED)]
        segmenter = Segmenter(model, self.device, protocol=Protocol(flip=True))
        if segmenter.value_range is None:
            segmenter.value_range = assumed_range([*names, *images], image_channels(model.info.in_chans))
        chosen = images_to_label(model, segmenter, names, known, self.count, Console(stderr=True), self.strokes)
        folder, results, listed = writable_folder(self.out), [], dict[Path, None]()
        box = ("left", "top", "width", "height") if self.strokes else ()
        rows: list[tuple[object, ...]] = [("rank", "image", "uncertainty", "distance", "novelty", *box)]
        for rank, image in enumerate(chosen, 1):
            result = segmenter(image.path)
            results.append((image, result))
            if not self.strokes:
                write_labels(folder / "masks" / f"{image.name}.png", result.labels, result.label_set.palette)
            scores = round(float(image.uncertainty), 4), round(float(image.distance), 3), result.novelty()
            rows.append((rank, image.path, *scores, *image.box))
            listed[real_path(image.path)] = None
        write_table(folder / "next.csv", rows)
        self.results |= {"out": folder, "images": records(rows)}
        write_file(folder / "next.txt", "".join(f"{path}\n" for path in listed))
        about = f"{len(chosen)}{' regions' * self.strokes} of {len(names)} images, chosen by {self.run}"
        show_page(folder / PAGE, next_page("Images to label next", about, results, model.info.label_set()))


@dataclass(kw_only=True)
class LabelErrors(WithDevice, WithData):
    """List the masks that a model finds least probable: classes swapped, objects missing, inexact borders.

    A model has learned the errors of its own training masks. A folder of folds, from 'crispseg train --folds 5', judges
    each mask by a model that was not trained on it.

    It writes errors.csv with all masks, the least probable first, errors.txt with the first ones, and a page of these.
    'crispseg train --data.exclude errors.txt' leaves the images in errors.txt out; remove those whose masks are right.

    Args:
        run: a run's folder, a folder of folds, a saved model's folder, a hub id, or the name of a bundled model.
        out: new or empty folder to write to.
        count: number of masks in errors.txt and on the page; the default is 20, or a fifth of all if that is less.
    """

    name = "label errors"
    words = ("run",)
    run: str
    out: Path
    count: PositiveInt | None = None

    def __call__(self) -> None:
        check_new_folder(self.out)
        console = Console(stderr=True)
        suspects: list[Suspect] = []
        for judge in judges(self.run, self.data, self.device):
            suspects += label_errors(judge, console)
        suspects.sort(key=lambda suspect: suspect.quality)
        folder, first = writable_folder(self.out), suspects[: self.count or min(20, max(1, len(suspects) // 5))]
        head = "image", "split", "quality", "kind", "labelled", "predicted", "left", "top", "width", "height", "pixels"
        rows = [head, *(suspect.row() for suspect in suspects)]
        write_table(folder / "errors.csv", rows)
        self.results |= {"out": folder, "masks": records(rows)}
        write_file(folder / "errors.txt", "".join(f"{suspect.name}\n" for suspect in first))
        about = f"{len(first)} of {len(suspects)} masks, judged by {self.run}"
        show_page(folder / PAGE, errors_page("Masks that are probably wrong", about, first))
        settings = Path(self.run) / CONFIG
        if settings.is_file():  # not of saved models
            changes = {"data.exclude": str(folder / "errors.txt"), "out": f"{settings.parent}_without_errors"}
            print("train without them:", command_line(["train", settings], changes), sep="\n  ")


def records(rows: Sequence[Sequence[object]]) -> list[dict[object, object]]:
    """Return the rows of a table, below its header, by the names of the columns."""
    head, *body = rows
    return [dict(zip(head, row, strict=True)) for row in body]


def _labelled(run: str, partly: bool) -> dict[Path, Path]:
    """Return the images with masks in the data of a run by resolved path; empty if there are no such files.

    If they are `partly` labelled, those of train are left out.
    """
    with suppress(CrispsegError):  # raised if the data no longer exist
        data = build_data(recorded_data(run))
        splits = (pairs for split, pairs in pairs_of(data).items() if not (partly and split == "train"))
        return {real_path(pair.image): pair.image for pair in chain(*splits)}
    return {}
