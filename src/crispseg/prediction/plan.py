"""The images of a prediction, the files of their results, and what exists of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from itertools import chain, compress
from pathlib import Path
from typing import NamedTuple

from crispseg.inference.image_files import check_outputs, named_images, unread_images, unused_folder
from crispseg.io.files import check_new_folder, user_path
from crispseg.io.results import check_text, foreign_file, made_of_result
from crispseg.io.tiff import TIFF_SUFFIXES
from crispseg.io.tiff_reading import stack_pages
from crispseg.prediction.job import PALETTE, PredictionJob, shard_slice
from crispseg.prediction.outputs import outputs_of


class Plan(NamedTuple):
    """Images to segment, and the files of their results."""

    out: Path  # folder of the results
    names: Mapping[Path, str]  # name of the results of each image
    files: Mapping[Path, Sequence[Path]]  # results of each image of the shard, sorted by name; the labels are first
    maps: Set[Path]  # images that are read in tiles
    unread: Sequence[Path]  # image files in formats that cannot be read
    existing: Mapping[Path, str]  # metadata of the results that exist

    def matches(self, image: Path, made_of: str) -> bool:
        """Return whether complete results are of this image, model and settings; polygons are newer than their map."""
        results = self.files[image]
        if image in self.maps and results[0].stat().st_mtime_ns > results[-1].stat().st_mtime_ns:
            return False
        return all(self.existing[result] == made_of for result in results)


def planned(job: PredictionJob, sources: Sequence[str | Path], out: str | Path | None) -> Plan:
    """Find the images and name the files of their results, by default in a new folder next to them.

    Options that conflict, results that would be next to an image, and files that would be overwritten raise a
    CrispsegError.
    """
    names: dict[Path, str] = {}
    for image, name in named_images(sources).items():
        pages = stack_pages(image) if job.format == PALETTE else 0  # other formats refer to files
        names |= named_pages(image, name, pages) or {image: name}
    maps = {image for image in names if job.tiles is not None and image.suffix.lower() in TIFF_SUFFIXES}
    job.check_conflicts(bool(maps))
    folder = unused_folder(sources, names) if out is None else user_path(out)
    files = result_files(job, names, maps, folder)
    check_outputs(folder, files)
    if job.writes_annotations:
        check_new_folder(folder / job.format)
    part = shard_slice(job.shard)
    files = {image: files[image] for image in sorted(names, key=names.__getitem__)[part]}
    for output in outputs_of(job):
        for file, start in output.starts:
            check_text(folder / file, start)
    return Plan(folder, names, files, maps, unread_images(sources, names)[part], existing_results(files))


def named_pages(image: Path, name: str, count: int) -> dict[Path, str]:
    """Return the pages of a z-stack with the names of their results, such as `stack.tif[3]` and `stack_page3`."""
    digits = len(str(count))
    return {image.with_name(f"{image.name}[{page}]"): f"{name}_page{page:0{digits}}" for page in range(1, count + 1)}


def result_files(job: PredictionJob, names: Mapping[Path, str], maps: Set[Path], out: Path) -> dict[Path, list[Path]]:
    """Return the files of the results of each image."""
    if job.server is not None:
        return {image: [out / job.server.file(image)] for image in names}
    of_map = [*compress((".tif", "_confidence.tif", ".geojson"), (True, job.confidence, job.polygons))]
    of_image = [*chain.from_iterable(output.endings for output in outputs_of(job))]
    return {
        image: [out / f"{name}{ending}" for ending in (of_map if image in maps else of_image)]
        for image, name in names.items()
    }


def existing_results(files: Mapping[Path, Sequence[Path]]) -> dict[Path, str]:
    """Return `made_of` of each file that exists; that of the labels for files without metadata.

    Files that are no results raise a CrispsegError.
    """
    existing = {}
    for results in files.values():
        for result in results:
            if result.exists():
                with_metadata = result if result.suffix in (".png", ".tif") else results[0]
                made_of = made_of_result(with_metadata)
                if made_of is None:
                    raise foreign_file(result)
                existing[result] = made_of
    return existing
