"""`crispseg predict RUN IMAGES_OR_VIDEO... [--out DIR] [--resume] [--shard I/N] [--format FORMAT] [--objects CLASS]`"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from crispseg.cli.exit_codes import ExitCode
from crispseg.cli.keys import WithProtocol
from crispseg.config.settings import options_of, plural
from crispseg.errors import CrispsegError, few
from crispseg.inference.segmenter import Segmenter
from crispseg.inference.video import is_video, predict_video
from crispseg.prediction import predict_files
from crispseg.prediction.job import VECTOR_FORMATS, PredictionJob
from crispseg.prediction.predictions import Predictions
from crispseg.prediction.report import OBJECT_REPORT


@dataclass(kw_only=True)
class Predict(WithProtocol):
    """Segment images: NAME.png contains the class ids (with colours), NAME_overlay.png shows them. Or segment a video.

    --format writes files for a benchmark's server or a labelling tool; --tiles writes NAME.tif for a TIFF. --objects
    also writes NAME_objects.png (numbers), NAME_objects.csv (a table) and objects.json (outlines in COCO's format).

    Args:
        run: folder of a run, of folds (their probabilities are averaged) or of a saved model, a hub id, the name of a
            bundled model, or an exported file.
        images: files, folders (with sub-folders), patterns such as 'in/*.jpg', lists of paths, LIST.txt, or a video.
        out: folder to write to, or the file of a video; by default a new folder next to the images.
        profile: at the end, print the processor time of reading, the network and writing.
        frame_masks: for a video, also write a palette PNG of each frame to the folder NAME_masks.
    """

    name = "predict"
    words = ("run", "images")
    function = PredictionJob
    run: str
    images: list[str]
    out: Path | None = None
    profile: bool = False
    frame_masks: bool = False

    def __call__(self) -> ExitCode:
        """Segment the images. If some are unreadable, the exit status is 2, else if some are refused, 4."""
        if any(map(is_video, self.images)):
            self.predict_video()
            return ExitCode.SUCCESS
        if self.frame_masks:
            raise CrispsegError(f"is for a video, not for {self.images[0]}; leave it out", "frame_masks")
        console, shard = Console(stderr=True), self.options.get("shard")
        done = predict_files(self.run, self.images, self.out, console=console, **self.options)
        self.results |= asdict(done)
        of = plural(done.total, "image") + (f" of shard {shard}" if shard else "")
        skipped = f", {done.skipped} of them earlier" if done.skipped else ""
        print(f"{done.done} of {of} segmented into {done.out}{skipped}")
        self.print_files(done)
        if self.profile:
            print_profile(done.seconds, done.done - done.skipped)
        refuses = self.options.get("refuse", False)
        if unlike := done.unlike:
            left_out = " and left out" if refuses else ""
            print(f"{len(unlike)} of {of} are unlike the training images{left_out}: {few(unlike)}")
        if failed := done.failed:
            raise CrispsegError(f"{len(failed)} of {of} could not be read, first {failed[0]}; see the list above")
        return ExitCode.REFUSED if unlike and refuses else ExitCode.SUCCESS

    def print_files(self, done: Predictions) -> None:
        """Print a line for each file or folder about all images."""
        if done.objects is not None:
            classes = ", ".join(np.ravel(self.options["objects"]))
            page = done.out / OBJECT_REPORT
            print(f"{done.objects} objects of class {classes}: open {page} in a browser; tables are next to it")
        if done.annotations is not None:
            for_tool = done.annotations.name not in VECTOR_FORMATS
            remedy = "; 'crispseg data import' reads them when they are corrected" if for_tool else ""
            print(f"annotations in {done.annotations}{remedy}")
        if done.outlines is not None:
            print(done.outlines)

    def predict_video(self) -> None:
        """Segment a video."""
        if len(self.images) > 1:
            raise CrispsegError(f"{' and '.join(self.images[:2])} are not segmented together; give one video alone")
        shown = {"outlines": self.options.pop("outlines", False), "frame_masks": self.frame_masks}
        if self.profile:
            raise CrispsegError("is for images; leave it out for a video", "profile")
        options = {"tile" if key == "tiles" else key: value for key, value in self.options.items()}
        if images_only := options.keys() - {"device", *options_of(Segmenter)}:
            raise CrispsegError("is for images; leave it out for a video", min(images_only))
        segmenter = Segmenter(self.run, **options)
        overlay, frames = predict_video(segmenter, self.images[0], self.out, console=Console(stderr=True), **shown)
        self.results |= {"out": overlay, "frames": frames}
        print(f"{frames} frames of {self.images[0]} segmented into {overlay}")


def print_profile(seconds: Mapping[str, float], images: int) -> None:
    """Print a table of the processor time of each stage."""
    total = sum(seconds.values()) or 1.0
    for name, duration in seconds.items():
        print(f"{name:<8} {1000 * duration / max(images, 1):9.2f} ms per image {duration / total:5.0%}")
