"""Files of saved models for a runtime, written once to the user's cache folder."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

from filelock import FileLock
from rich.console import Console

from crispseg import __version__
from crispseg.config.files import real_path
from crispseg.export.formats import FILE_FORMATS, Format
from crispseg.export.pipeline import export_model
from crispseg.folders.cache import cache_folder
from crispseg.inference.device import FloatPrecision
from crispseg.inference.runtime import WRITERS, checksums
from crispseg.io.files import writable_folder
from crispseg.io.progress import print_lines
from crispseg.models import SegmentationModel
from crispseg.models.saving import fingerprint


def cached_file(format: Format, source: str | Path, precision: FloatPrecision) -> Path:
    """Return the file of a saved model in a format, with gathered rows; the first call writes it in about a minute.

    A changed model, another version of crispseg or a damaged file is exported again. Errors are those of
    `export_model`.
    """
    folder = writable_folder(cache_folder(), "set the environment variable CRISPSEG_CACHE to another folder")
    suffix = FILE_FORMATS[format].suffix
    path = folder / f"{real_path(source).name}-{fingerprint(source)}-{__version__}-{precision}{suffix}"
    with FileLock(path.with_suffix(".lock")):
        with suppress(FileNotFoundError):
            if len({*checksums(path)}) == 1:  # all files of the model are there and belong together
                return path
        model = SegmentationModel.from_pretrained(source)
        print_lines(Console(stderr=True), [f"writing {path}, once for {source} in {precision}"])
        export_model(model, path, format, precision=precision, sampling="gather")
    return path


for runtime, kind in ("onnxruntime", "onnx"), ("openvino", "openvino"):
    WRITERS.register(runtime)(partial(cached_file, kind))  # type: ignore[arg-type]
