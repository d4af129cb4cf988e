"""`crispseg demo RUN [RUN ...] [--host H] [--port P]`"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import ClassVar

from crispseg.cli.keys import WithDevice
from crispseg.cli.score_keys import short_names
from crispseg.config.settings import CONFIG
from crispseg.data.named import build_data
from crispseg.errors import CrispsegError
from crispseg.evaluation.evaluate import recorded_data
from crispseg.inference.device import usable_device
from crispseg.inference.runtime import ExportedModel, open_model
from crispseg.inspection.demo import Demo, serve, write_examples
from crispseg.models.info import ModelInfo
from crispseg.models.saving import shipped_folder


@dataclass(kw_only=True)
class RunDemo(WithDevice):
    """Show trained models in the browser, until it is interrupted. Nothing leaves this machine.

    Upload an image, use an example or the webcam, and see its classes, their boundaries and where the model looked for
    a pixel.

    Args:
        runs: runs' folders, saved models' folders, hub ids, names of bundled models, or exported files.
        host: address to listen on; 0.0.0.0 opens it to the network.
        port: port to listen on.
        bf16: compute in bfloat16: faster, slightly less exact.
        max_megabytes: largest upload, in 10⁶ bytes.
    """

    name: ClassVar[str] = "demo"
    words: ClassVar[tuple[str, ...]] = ("runs",)
    runs: list[str]
    host: str = "127.0.0.1"
    port: int = 7860
    bf16: bool = False
    max_megabytes: float = 20.0

    def __call__(self) -> None:
        device = usable_device(self.device)
        names = short_names(self.runs)
        models = {name: open_model(run) for name, run in zip(names, self.runs, strict=True)}
        for model in models.values():
            if isinstance(model, ExportedModel):
                model.check_use(device, self.bf16, whole=True)
            model.to(device).eval()
        with tempfile.TemporaryDirectory(prefix="crispseg-demo-", ignore_cleanup_errors=True) as temporary:
            folder = Path(temporary)
            examples = _examples(self.runs[0], next(iter(models.values())).info, folder)
            demo = Demo(models, device, folder, bf16=self.bf16)
            with serve(demo, self.host, self.port, max_megabytes=self.max_megabytes, examples=examples) as url:
                print(f"{', '.join(models)} at {url} (Ctrl+C ends it)", flush=True)
                Event().wait()


def _examples(run: str, info: ModelInfo, folder: Path) -> list[Path]:
    """Validation images of a run, or of a bundled model; a downloaded model cannot name folders of this machine."""
    tree = recorded_data(run)
    if not tree or not (shipped_folder(run) or (Path(run) / CONFIG).is_file()):
        return []
    try:
        return write_examples(build_data(tree).dataset("val").with_channels(info.in_chans, info.value_range), folder)
    except CrispsegError as error:
        print(f"no examples: {error}")
        return []


run = RunDemo.start
