"""The server that shows the page."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread

from crispseg.demo.engine import Engine
from crispseg.demo.guard import Guard
from crispseg.demo.service import Service
from crispseg.demo.uploads import Limits, trim
from crispseg.errors import CrispsegError

SESSIONS = 100
"""Pages whose state is kept; the one longest unused is forgotten first."""

TIDY = 30.0
"""Seconds between two looks for files that are too old."""

ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ALLOWED_PATHS": "",
    "GRADIO_BLOCKED_PATHS": "",
}


def check_gradio() -> None:
    """Raise a CrispsegError where Gradio is not installed."""
    if find_spec("gradio") is None:
        raise CrispsegError("the demo needs Gradio, which is not installed; run: pip install 'crispseg[demo]'")


def check_address(host: str, port: int) -> None:
    """See that a server can listen there.

    Raises:
        CrispsegError: no port number, a host that is not this machine, or a port that is taken or reserved.
    """
    if not 1 <= port <= 65535:
        raise CrispsegError(f"--port is {port}; give a number from 1 to 65535, such as 7860")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise CrispsegError(f"--host {host} is not known; give 127.0.0.1, or 0.0.0.0 for all networks") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            reason = error.strerror or str(error)
            raise CrispsegError(f"cannot listen on {host}, port {port} ({reason}); give another --port") from None


class Demo:
    """A server of the page, in threads of its own, with a private folder for uploads; a context manager.

    One at a time in a process: Gradio learns its folder from an environment variable.

    Args:
        engines: models by the name to choose them by.
        host, port: where to listen.
        limits: of uploads.

    Raises:
        CrispsegError: no Gradio, nothing can listen there, or there is no place for temporary files.
    """

    def __init__(
        self, engines: Mapping[str, Engine], host: str = "127.0.0.1", port: int = 7860, limits: Limits | None = None
    ) -> None:
        check_gradio()
        check_address(host, port)
        limits = limits or Limits()
        with ExitStack() as cleanup:
            self.folder = _private_folder()
            cleanup.callback(shutil.rmtree, self.folder, ignore_errors=True)
            cleanup.callback(_restore, dict(os.environ))
            os.environ.update(ENVIRONMENT, GRADIO_TEMP_DIR=str(self.folder))
            _pass_proxies_by(host)
            from starlette.middleware import Middleware

            from crispseg.demo.page import asset, build, theme

            self.service = Service(engines, self.folder, limits)
            cleanup.callback(self.service.close)
            self.blocks = build(self.service)
            cleanup.callback(self.blocks.close, verbose=False)
            self.blocks.launch(
                server_name=f"[{host}]" if ":" in host.strip("[]") and "[" not in host else host,
                server_port=port,
                share=False,
                inbrowser=False,
                inline=False,
                prevent_thread_lock=True,
                quiet=True,
                show_error=False,
                max_file_size=limits.bytes,
                allowed_paths=[],
                state_session_capacity=SESSIONS,
                theme=theme(),
                css=asset("page.css"),
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                pwa=False,
                mcp_server=False,
                ssr_mode=False,
                num_workers=0,
                app_kwargs={"middleware": [Middleware(Guard, folder=self.folder, limits=limits)]},
            )
            self.url = str(self.blocks.local_url)
            ended = Event()
            cleanup.callback(ended.set)
            Thread(target=self._tidy, args=(ended,), daemon=True).start()
            self._cleanup = cleanup.pop_all()

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        with suppress(KeyboardInterrupt):
            Event().wait()

    def close(self) -> None:
        """Stop serving and remove the folder."""
        self._cleanup.close()

    def _tidy(self, ended: Event) -> None:
        """Remove what is too old; Gradio's lists of files only serve a removal of its own, which is not used."""
        while not ended.wait(TIDY):
            trim(self.folder, self.service.limits)
            for names in self.blocks.temp_file_sets:
                names.clear()

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _private_folder() -> Path:
    """A new folder for temporary files, which only this user can open."""
    try:
        return Path(tempfile.mkdtemp(prefix="crispseg-demo-")).resolve()
    except OSError as error:
        reason = error.strerror or str(error)
        raise CrispsegError(f"no folder for uploads can be made ({reason}); set TMPDIR to one to write to") from None


def _restore(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _pass_proxies_by(host: str) -> None:
    """Gradio asks its own server whether it runs; no proxy of the environment may be in between."""
    for key in ("NO_PROXY", "no_proxy"):
        known = [entry for entry in os.environ.get(key, "").split(",") if entry]
        os.environ[key] = ",".join([*known, "127.0.0.1", "localhost", host])
