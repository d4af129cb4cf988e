"""`crispseg demo RUN [RUN ...] [--host H] [--port P] [--max-megabytes M] [--max-pixels N]`"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

from crispseg.cli.compare import short_names
from crispseg.cli.parsing import MODEL, Parser, parse_data
from crispseg.cli.scoring import recorded_data
from crispseg.config.plugins import load_plugins
from crispseg.demo import app
from crispseg.demo.examples import Examples
from crispseg.demo.uploads import Limits
from crispseg.errors import CrispsegError
from crispseg.inference.device import usable_device
from crispseg.inference.runtime import ExportedModel, open_model
from crispseg.models.info import ModelInfo
from crispseg.models.saving import shipped_folder
from crispseg.training.config import CONFIG

LOCAL = ("127.0.0.1", "localhost", "::1")


def run(argv: Sequence[str]) -> None:
    """Run the command, until it is interrupted."""
    parser = Parser(
        prog="crispseg demo",
        description="Show trained models in the browser: drop an image, take an example or the webcam, and see its "
        "classes, their boundaries and where the model looked for a pixel. Nothing leaves this machine.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help=MODEL)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets the network in")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on")
    parser.add_argument(
        "--device", type=str | None, default=None, help="cpu or cuda; by default CUDA where there is one"
    )
    parser.add_argument("--bf16", type=bool, default=False, help="compute in bfloat16: faster, a little less exact")
    parser.add_argument("--max-pixels", type=int, default=Limits.pixels, help="of an image; larger ones are refused")
    parser.add_argument("--max-megabytes", type=float, default=Limits.megabytes, help="of an upload, 10⁶ bytes each")
    parser.add_argument(
        "--names", type=list[str], default=[], help="further names of this machine in browsers, such as a proxy's"
    )
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")
    parsed = parser.parse(list(argv))

    # Before the models are loaded, which may take long.
    limits = Limits(parsed.max_megabytes, parsed.max_pixels)
    app.check(parsed.host, parsed.port)
    if twice := next((name for name in parsed.runs if parsed.runs.count(name) > 1), None):
        raise CrispsegError(f"{twice} is given more than once; give each model once")
    load_plugins(parsed.plugins)
    device = usable_device(parsed.device)
    names = short_names(parsed.runs)
    models = {name: open_model(run) for name, run in zip(names, parsed.runs, strict=True)}
    for model in models.values():
        if isinstance(model, ExportedModel):
            model.check_use(device, parsed.bf16, whole=True)
        model.to(device).eval()
    runs = zip(names, parsed.runs, strict=True)
    examples = {name: found for name, run in runs if (found := examples_of(run, models[name].info))}
    _end_cleanly_by("SIGTERM", "SIGHUP")
    options: dict[str, Any] = {"limits": limits, "examples": examples, "bf16": parsed.bf16, "names": parsed.names}
    with app.served(models, device, host=parsed.host, port=parsed.port, **options) as url:
        if parsed.host not in LOCAL:
            print("Everyone who reaches this address can use the models; nobody is asked for a password.")
        print(f"{', '.join(names)} at {url} (Ctrl+C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            Event().wait()


def examples_of(run: str, info: ModelInfo) -> Examples | None:
    """Images of the split val that the run's `config.yaml` names; none says why, if known.

    What another model without that file says of its data is not followed, as others may have made it: it could name
    any folder of this machine.
    """
    tree = recorded_data(run)
    ours = shipped_folder(run) or (Path(run) / CONFIG).is_file()
    if "data" not in tree or not ours:
        return None
    try:
        _, data = parse_data([], tree, Parser(prog="crispseg demo"))
        return Examples(data.dataset("val").with_channels(info.in_chans, info.value_range))
    except CrispsegError as error:
        print(f"no examples for {run}: {error}", file=sys.stderr)
        return None


def _end_cleanly_by(*names: str) -> None:
    """Let signals end the program as Ctrl+C does, so that the folder of uploads is removed."""
    for name in names:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it on purpose
            signal.signal(number, lambda *_: sys.exit(0))
