"""Page that segments images in the browser: static files, a model as an ONNX file, and onnxruntime-web."""

from __future__ import annotations

import shutil
from pathlib import Path

from crispseg.errors import CrispsegError
from crispseg.export.certificate import Certificate
from crispseg.export.pipeline import export_model
from crispseg.io.files import check_new_folder, user_path, writable_folder
from crispseg.models import SegmentationModel

PAGE_FOLDER = Path(__file__).parents[1] / "visualization/templates/browser"
NPM_PACKAGE = "onnxruntime-web"
DIST = ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")


def write_browser_page(model: SegmentationModel, folder: str | Path, onnxruntime_web: str | Path) -> Certificate:
    """Write a folder for any web server, whose page segments images without sending them anywhere.

    Args:
        model: model of RGB or grey images of 8 bits.
        folder: new folder for the page.
        onnxruntime_web: folder of the npm package, `node_modules/onnxruntime-web`.

    Raises:
        CrispsegError: a file of the npm package is missing, the folder is not new or cannot be written, or the model
            takes other images or cannot be exported.
    """
    dist = user_path(onnxruntime_web) / "dist"
    for name in DIST:
        if not (dist / name).is_file():
            remedy = f"npm install {NPM_PACKAGE}, and give the folder node_modules/{NPM_PACKAGE}"
            raise CrispsegError(f"{dist / name} is missing; run: {remedy}")
    info = model.info
    if info.in_chans not in (1, 3) or info.value_range:
        takes = f"{info.title} takes images of {info.in_chans} channels, value range {info.value_range or '8 bits'}"
        raise CrispsegError(f"{takes}, but browsers read RGB of 8 bits; use another model")
    folder = writable_folder(check_new_folder(folder))
    certificate = export_model(model, folder / "model.onnx", "onnx", input="uint8", output="labels")
    runtime = writable_folder(folder / NPM_PACKAGE)
    for file in PAGE_FOLDER.iterdir():
        shutil.copyfile(file, folder / file.name)
    for name in DIST:
        shutil.copyfile(dist / name, runtime / name)
    return certificate
