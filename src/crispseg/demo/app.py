"""The server that shows the page."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread

import torch

from crispseg.demo.examples import Examples
from crispseg.demo.uploads import MB, Limits, sweep
from crispseg.errors import CrispsegError
from crispseg.inference.runtime import AnyModel

TIDY = 30.0
"""Seconds between two looks for files that are too old."""

ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ALLOWED_PATHS": "",
    "GRADIO_BLOCKED_PATHS": "",
}

STYLE = """
.seen { width: 100%; height: max(40rem, 90vh); border: 0; }
.empty { padding: 5rem 1rem; text-align: center; border: 1px dashed var(--border-color-primary); border-radius: 6px; }
#examples .grid-wrap { height: auto; min-height: 0; max-height: none; padding-top: 2.25rem; }
#examples .grid-container { grid-template-columns: repeat(auto-fill, minmax(5.5rem, 9rem)); }
"""


def check(host: str, port: int) -> None:
    """See, before models are loaded, that Gradio is installed and a server can listen there.

    Raises:
        CrispsegError: it is not, or it cannot.
    """
    if find_spec("gradio") is None:
        raise CrispsegError("the demo needs Gradio, which is not installed; run: pip install 'crispseg[demo]'")
    if not 1 <= port <= 65535:
        raise CrispsegError(f"--port is {port}; give a number from 1 to 65535, such as 7860")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host.strip("[]"), port), family=family).close()
    except (OSError, UnicodeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        raise CrispsegError(
            f"cannot listen on --host {host}, --port {port} ({reason}); give another port, or a host such as "
            "127.0.0.1, or 0.0.0.0 for all networks"
        ) from None


@contextmanager
def served(
    models: Mapping[str, AnyModel],
    device: torch.device,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    limits: Limits | None = None,
    examples: Mapping[str, Examples] | None = None,
    bf16: bool = False,
    names: Sequence[str] = (),
) -> Iterator[str]:
    """Serve the page in threads while the block runs, with a private folder for uploads; yields its address.

    One at a time in a process: Gradio learns its folder from an environment variable.

    Args:
        models: by the names to choose them by.
        device: on which they compute.
        host: address to listen on.
        port: port to listen on.
        limits: of uploads.
        examples: images to try a model on, by its name.
        bf16: compute in bfloat16.
        names: further ones by which browsers may ask for the page, such as that of a proxy, see `Guard`.

    Raises:
        CrispsegError: no Gradio, nothing can listen there, or there is no place for temporary files.
    """
    check(host, port)
    limits, ended = limits or Limits(), Event()
    try:
        temporary = tempfile.TemporaryDirectory(prefix="crispseg-demo-", ignore_cleanup_errors=True)
    except OSError as error:
        raise CrispsegError(f"no folder for uploads can be made ({error}); set TMPDIR to one to write to") from None
    folder = Path(temporary.name).resolve()
    with temporary, _environment(folder, host):
        import gradio

        from crispseg.demo.guard import Guard
        from crispseg.demo.page import Demo

        def tidy() -> None:
            while not ended.wait(TIDY):
                sweep(folder, limits)

        blocks = Demo(models, device, folder, limits, examples=examples, bf16=bf16).blocks()
        try:
            blocks.launch(
                server_name=f"[{host}]" if ":" in host and "[" not in host else host,
                server_port=port,
                share=False,
                inbrowser=False,
                prevent_thread_lock=True,
                quiet=True,
                max_file_size=int(limits.megabytes * MB),
                allowed_paths=[],
                # In fonts that every machine has: none is fetched.
                theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=STYLE,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                num_workers=0,
            )
            # Around Gradio's own layers, of which the one for CORS answers before any that could be added inside.
            blocks.app.middleware_stack = Guard(blocks.app.middleware_stack, [host, *names])
            Thread(target=tidy, daemon=True).start()
            yield str(blocks.local_url)
        finally:
            ended.set()
            blocks.close(verbose=False)


@contextmanager
def _environment(folder: Path, host: str) -> Iterator[None]:
    """What Gradio reads of the environment. It asks its own server whether it runs: no proxy may be in between."""
    direct = [os.environ.get("no_proxy"), os.environ.get("NO_PROXY"), "127.0.0.1", "localhost", host]
    hosts, before = ",".join(filter(None, direct)), dict(os.environ)
    os.environ.update(ENVIRONMENT, GRADIO_TEMP_DIR=str(folder), NO_PROXY=hosts, no_proxy=hosts)
    try:
        yield
    finally:
        for key in os.environ.keys() - before.keys():
            del os.environ[key]
        os.environ.update(before)
