"""`crispseg demo RUN [RUN ...] [--host H] [--port P]`, `crispseg demo --static DIR --model RUN`"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Annotated

from pydantic import Field

from crispseg.cli.keys import WithDevice, short_names
from crispseg.data import FileDataset
from crispseg.data.named import build_data
from crispseg.errors import CrispsegError
from crispseg.evaluation.recorded import recorded_data
from crispseg.export.browser import write_browser_page
from crispseg.inference.device import FloatPrecision, usable_device
from crispseg.inference.image_files import named_images
from crispseg.inference.runtime import ExportedModel, check_logits, open_model
from crispseg.inspection.demo import serve
from crispseg.io.files import regular_file
from crispseg.io.images import read_image
from crispseg.io.parallel import spread
from crispseg.models import SegmentationModel


@dataclass(kw_only=True)
class RunDemo(WithDevice):
    """Show trained models in the browser until the command is interrupted. No data leave this machine.

    Upload an image or use the webcam. The page shows its classes, their boundaries and the model's sampled points.

    Args:
        runs: runs' folders, saved models' folders, hub ids, names of bundled models, or exported files.
        images: files, folders or patterns of example images; by default val images of the first run's data.
        host: address to listen on; 0.0.0.0 opens it to the network.
        port: port to listen on.
        precision: fp32, or bf16, which is faster and slightly less exact.
        static: new folder for a page that runs the model in the browser, without this server.
        model: one more run.
        onnxruntime_web: folder of the npm package for the page, node_modules/onnxruntime-web.
    """

    name = "demo"
    words = ("runs",)
    runs: list[str] = field(default_factory=list)
    images: list[str] | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 7860
    precision: FloatPrecision = "fp32"
    static: Path | None = None
    model: str | None = None
    onnxruntime_web: Path | None = None

    def __call__(self) -> None:
        runs = self.runs if self.model is None else [*self.runs, self.model]
        if not runs:
            raise CrispsegError(f"RUNS is missing; {self.usage()}")
        if self.static is not None:
            self.write(runs, self.static)
        else:
            self.serve(runs)

    def write(self, runs: list[str], folder: Path) -> None:
        """Write the page of one run."""
        if len(runs) > 1:
            raise CrispsegError(f"accepts one run, not {', '.join(runs)}", "static")
        if self.onnxruntime_web is None:
            raise CrispsegError("is missing; npm install onnxruntime-web, and give its folder", "onnxruntime_web")
        write_browser_page(SegmentationModel.from_pretrained(runs[0]), folder, self.onnxruntime_web)
        self.results |= {"page": folder, "model": runs[0]}
        print(f"{folder} written; run: python -m http.server -d {folder}, and open http://localhost:8000")

    def serve(self, runs: list[str]) -> None:
        """Serve the page of runs until the command is interrupted."""
        device = usable_device(self.device)
        images = val_images(runs[0]) if self.images is None else [*map(regular_file, named_images(self.images))]
        models = {name: open_model(run) for name, run in zip(short_names(runs), runs, strict=True)}
        for name, model in models.items():
            if isinstance(model, ExportedModel):
                model.check_use(device, self.precision, whole=True)
            check_logits(model, name)
            model.to(device).eval()
        with (
            tempfile.TemporaryDirectory(prefix="crispseg-demo-", ignore_cleanup_errors=True) as temporary,
            serve(
                models, Path(temporary), device, self.host, self.port, images=images, precision=self.precision
            ) as url,
        ):
            self.results |= {"url": url, "models": [*models]}
            print(f"{', '.join(models)} at {url} (Ctrl+C ends it)", flush=True)
            with suppress(KeyboardInterrupt):
                Event().wait()


def val_images(run: str) -> list[Path]:
    """Return up to eight val images of a run's data, high contrast first; empty if the data are missing."""
    with suppress(CrispsegError):
        dataset = build_data(recorded_data(run)).dataset("val")
        if isinstance(dataset, FileDataset):
            files = [dataset.pairs[index].image for index in spread(len(dataset), 8)]
            return sorted(files, key=lambda file: -float(read_image(file, dataset.channels).std()))
    return []
