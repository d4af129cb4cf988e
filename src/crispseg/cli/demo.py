"""`crispseg demo RUN [RUN ...] [--host H] [--port P]`"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Annotated

from pydantic import Field

from crispseg.cli.keys import WithDevice, short_names
from crispseg.data import FileDataset
from crispseg.data.named import build_data
from crispseg.errors import CrispsegError
from crispseg.evaluation.recorded import recorded_data
from crispseg.inference.device import FloatPrecision, usable_device
from crispseg.inference.image_files import named_images
from crispseg.inference.runtime import ExportedModel, open_model
from crispseg.inspection.demo import serve
from crispseg.io.images import read_image
from crispseg.io.parallel import spread


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
    """

    name = "demo"
    words = ("runs",)
    runs: list[str]
    images: list[str] | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 7860
    precision: FloatPrecision = "fp32"

    def __call__(self) -> None:
        device = usable_device(self.device)
        images = val_images(self.runs[0]) if self.images is None else [*named_images(self.images)]
        models = {name: open_model(run) for name, run in zip(short_names(self.runs), self.runs, strict=True)}
        for model in models.values():
            if isinstance(model, ExportedModel):
                model.check_use(device, self.precision, whole=True)
                model.check_logits()
            model.to(device).eval()
        with (
            tempfile.TemporaryDirectory(prefix="crispseg-demo-", ignore_cleanup_errors=True) as temporary,
            serve(
                models, Path(temporary), device, self.host, self.port, images=images, precision=self.precision
            ) as url,
        ):
            print(f"{', '.join(models)} at {url} (Ctrl+C ends it)", flush=True)
            with suppress(KeyboardInterrupt):
                Event().wait()


def val_images(run: str, most: int = 8) -> list[Path]:
    """Return val images of a run's data, high contrast first; empty if the data are missing."""
    with suppress(CrispsegError):
        dataset = build_data(recorded_data(run)[0]).dataset("val")
        if isinstance(dataset, FileDataset):
            files = [dataset.pairs[index].image for index in spread(len(dataset), most)]
            return sorted(files, key=lambda file: -float(read_image(file, dataset.channels).std()))
    return []
