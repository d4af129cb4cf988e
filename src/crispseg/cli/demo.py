"""`crispseg demo RUN [RUN ...] [--host H] [--port P]`"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from crispseg.cli.compare import short_names
from crispseg.cli.parsing import MODEL, Parser, parse_data
from crispseg.cli.scoring import recorded_data
from crispseg.config.plugins import load_plugins
from crispseg.errors import CrispsegError
from crispseg.inference.device import usable_device
from crispseg.inference.runtime import ExportedModel, open_model
from crispseg.inspection.demo import Demo, serve, write_examples
from crispseg.models.info import ModelInfo
from crispseg.models.saving import shipped_folder
from crispseg.training.config import CONFIG


def run(argv: Sequence[str]) -> None:
    """Run the command, until it is interrupted."""
    parser = Parser(
        prog="crispseg demo",
        description="Show trained models in the browser: upload an image, use an example or the webcam, and see its "
        "classes, their boundaries and where the model looked for a pixel. Nothing leaves this machine.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help=MODEL)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 opens it to the network")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on")
    parser.add_argument("--device", type=str | None, default=None, help="cpu or cuda; by default CUDA if available")
    parser.add_argument("--bf16", type=bool, default=False, help="compute in bfloat16: faster, slightly less exact")
    parser.add_argument("--max-pixels", type=int, default=20_000_000, help="largest image, in pixels")
    parser.add_argument("--max-megabytes", type=float, default=20.0, help="largest upload, in 10⁶ bytes")
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")
    parsed = parser.parse(list(argv))

    load_plugins(parsed.plugins)
    device = usable_device(parsed.device)
    names = short_names(parsed.runs)
    models = {name: open_model(run) for name, run in zip(names, parsed.runs, strict=True)}
    for model in models.values():
        if isinstance(model, ExportedModel):
            model.check_use(device, parsed.bf16, whole=True)
        model.to(device).eval()
    with tempfile.TemporaryDirectory(prefix="crispseg-demo-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        examples = _examples(parsed.runs[0], next(iter(models.values())).info, folder)
        demo = Demo(models, device, folder, max_pixels=parsed.max_pixels, bf16=parsed.bf16)
        options = {"host": parsed.host, "port": parsed.port, "max_megabytes": parsed.max_megabytes}
        with serve(demo, examples=examples, **options) as url:
            print(f"{', '.join(models)} at {url} (Ctrl+C ends it)", flush=True)
            Event().wait()


def _examples(run: str, info: ModelInfo, folder: Path) -> list[Path]:
    """Validation images of a run, or of a bundled model; a downloaded model cannot name folders of this machine."""
    tree = recorded_data(run)
    if "data" not in tree or not (shipped_folder(run) or (Path(run) / CONFIG).is_file()):
        return []
    try:
        _, data = parse_data([], tree, Parser(prog="crispseg demo"))
        return write_examples(data.dataset("val").with_channels(info.in_chans, info.value_range), folder)
    except CrispsegError as error:
        print(f"no examples: {error}")
        return []
