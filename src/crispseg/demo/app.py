"""The page, and the server that shows it."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from html import escape
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any

import numpy as np

from crispseg.data.base import image_channels
from crispseg.data.scenes import render_scene
from crispseg.demo import view
from crispseg.demo.engine import Engine, Seen
from crispseg.demo.guard import Guard
from crispseg.demo.session import Kept, Store
from crispseg.demo.uploads import Limits, Picture, enlarged, read_upload, shown_name, trim, uploaded_path
from crispseg.errors import CrispsegError
from crispseg.imaging import write_image, write_labels

SCENE_SIZE = (384, 512)
"""Height and width of the built-in street scenes that are drawn as samples."""
AT_ONCE = 2
"""Images that are worked on at the same time; their networks take turns."""
WAITING = 64
"""Requests in the queue, over which new ones are refused."""
SESSIONS = 200
"""Pages whose state is kept; the one longest unused is forgotten first."""

ASSETS = Path(__file__).parent / "assets"
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


class Service:
    """What the page asks for, without Gradio. One for all users: what belongs to a page is passed in and out.

    Args:
        engines: models by the name to choose them by.
        folder: for uploads and masks; only what is in it is read.
        limits: of uploads.
    """

    def __init__(self, engines: Mapping[str, Engine], folder: Path, limits: Limits) -> None:
        self.engines, self.folder, self.limits = dict(engines), folder, limits
        self.store = Store()

    def segment(self, upload: object, model: object, token: str | None) -> tuple[str, str, str, str, str]:
        """Segment an uploaded image.

        Args:
            upload: what the browser tells about it: `path` on the server and `orig_name`.
            model: name of one.
            token: of the page's result before, which this one replaces.

        Returns:
            HTML of the picture, the times and the legend; the path of the mask; the token of the result.

        Raises:
            CrispsegError: no uploaded image, one over the limits or broken, or no such model.
        """
        self.store.drop(token)
        engine = self.engines.get(model) if isinstance(model, str) else None
        if engine is None:
            raise CrispsegError("there is no such model here; choose one of the list")
        start = perf_counter()
        path = uploaded_path(upload, self.folder)
        name = shown_name(upload.get("orig_name") or path.name) if isinstance(upload, dict) else path.name
        picture = read_upload(path, name, image_channels(engine.info.in_chans), self.limits)
        read = perf_counter()
        seen = engine.see(picture)
        segmentation = seen.segmentation
        mask = self.save_mask(seen, picture)
        picture_html = view.stage(segmentation)
        legend = view.legend(segmentation.shares(), segmentation.label_set)
        token = self.store.put(Kept(segmentation.labels, segmentation.label_set, seen.steps))
        seconds = {"network": seen.network, "reading": read - start, "the rest": perf_counter() - read - seen.network}
        size = segmentation.labels.shape[0], segmentation.labels.shape[1]
        return picture_html, view.times(seconds, size, picture.size, str(engine.device)), legend, str(mask), token

    def save_mask(self, seen: Seen, picture: Picture) -> Path:
        """Write the labels at the image's own size as a palette PNG of class ids, under a name nobody can guess."""
        path = self.folder / secrets.token_hex(16) / f"{picture.stem}_mask.png"
        labels = enlarged(seen.segmentation.labels, picture.size)
        write_labels(path, labels, seen.segmentation.label_set.palette)
        trim(self.folder, self.limits)
        return path

    def pixel(self, token: str | None, place: object) -> str:
        """HTML about the pixel at `place`, x and y in the picture, of the result of this token.

        Raises:
            CrispsegError: no such result any more, or no place.
        """
        kept = self.store.get(token)
        if kept is None:
            raise CrispsegError("this result is no longer kept; segment the image again")
        if not (
            isinstance(place, list | tuple)
            and len(place) == 2
            and all(isinstance(value, int | float) and np.isfinite(value) for value in place)
        ):
            raise CrispsegError("this is no place in the picture; click on the picture")
        return view.pixel(kept, float(place[0]), float(place[1]))

    def sample(self) -> Path:
        """A new built-in street scene, as a PNG in the folder."""
        image, _ = render_scene(secrets.randbelow(2**31), SCENE_SIZE)
        path = self.folder / secrets.token_hex(16) / "scene.png"
        write_image(path, image)
        return path


def build(service: Service) -> Any:
    """The page, as `gradio.Blocks`. `GRADIO_TEMP_DIR` must be the service's folder already."""
    import gradio as gr

    def problem(error: CrispsegError) -> Exception:
        # Gradio shows messages as HTML, and a file's name may be part of one.
        return gr.Error(escape(str(error), quote=False), print_exception=False)  # type: ignore[no-any-return]

    def segment(upload: Any, model: Any, token: str | None) -> tuple[Any, ...]:
        if upload is None:
            service.store.drop(token)
            return nothing()
        try:
            *shown, mask, token = service.segment(upload, model, token)
        except CrispsegError as error:
            raise problem(error) from None
        return (*shown, gr.DownloadButton(value=mask, interactive=True), token, view.HINT)

    def nothing() -> tuple[Any, ...]:
        return (view.EMPTY, "", "", gr.DownloadButton(value=None, interactive=False), None, "")

    def look(token: str | None, event: gr.SelectData) -> str:
        try:
            return service.pixel(token, event.index)
        except CrispsegError as error:
            raise problem(error) from None

    limits = service.limits
    names = list(service.engines)
    described = "; ".join(f"**{name}**: {engine.describe()}" for name, engine in service.engines.items())
    with gr.Blocks(
        title="crispseg demo", analytics_enabled=False, delete_cache=(60, limits.cache_seconds), fill_width=False
    ) as blocks:
        gr.Markdown(f"# crispseg\n{escape(described, quote=False)}", elem_id="cs-title")
        token = gr.State(None, time_to_live=3600, delete_callback=service.store.drop)
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                upload = gr.Image(
                    label=f"Image, at most {limits.megabytes:g} MB and {limits.pixels / 1e6:g} million pixels",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "webcam", "clipboard"],
                    height=260,
                    buttons=[],
                    elem_id="cs-upload",
                )
                scene = gr.Button("Draw a street scene", elem_id="cs-scene")
                model = gr.Radio(names, value=names[0], label="Model", elem_id="cs-model")
                opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity of the classes", elem_id="cs-opacity")
                edges = gr.Checkbox(False, label="Draw boundaries", elem_id="cs-boundaries")
                download = gr.DownloadButton("Download the mask", interactive=False, elem_id="cs-download")
            with gr.Column(scale=3, min_width=300):
                picture = gr.HTML(
                    view.EMPTY, js_on_load=_script("picture.js"), apply_default_css=False, elem_id="cs-picture"
                )
                spent = gr.HTML("", js_on_load=None, apply_default_css=False, elem_id="cs-spent")
                about = gr.HTML("", js_on_load=_script("marks.js"), apply_default_css=False, elem_id="cs-about")
                legend = gr.HTML("", js_on_load=None, apply_default_css=False, elem_id="cs-legend")
        results = [picture, spent, legend, download, token, about]
        options: dict[str, Any] = {"concurrency_limit": AT_ONCE, "concurrency_id": "segment", "preprocess": False}
        gr.on(
            [upload.change, model.change],
            segment,
            [upload, model, token],
            results,
            api_name="segment",
            trigger_mode="always_last",
            show_progress_on=[picture],
            **options,
        ).failure(nothing, None, results, api_visibility="private")
        scene.click(service.sample, None, upload, api_name="sample", concurrency_limit=AT_ONCE)
        picture.select(
            look, token, about, api_visibility="private", show_progress="hidden", concurrency_limit=4, queue=True
        )
        # Changes of a CSS variable in the browser: the server hears nothing of them.
        style = "document.documentElement.style.setProperty"
        opacity.change(None, opacity, None, js=f"(value) => {{ {style}('--cs-opacity', value); }}")
        edges.change(None, edges, None, js=f"(on) => {{ {style}('--cs-edges', on ? 'block' : 'none'); }}")
    blocks.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)
    return blocks


def _script(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


class Demo:
    """A server of the page, in threads of its own, with a private folder for uploads; a context manager.

    One at a time in a process: Gradio learns its folder from an environment variable.

    Args:
        engines: models by the name to choose them by.
        host, port: where to listen.
        limits: of uploads.

    Raises:
        CrispsegError: no Gradio, or nothing can listen there.
    """

    def __init__(
        self, engines: Mapping[str, Engine], host: str = "127.0.0.1", port: int = 7860, limits: Limits | None = None
    ) -> None:
        check_gradio()
        check_address(host, port)
        limits = limits or Limits()
        with ExitStack() as cleanup:
            self.folder = Path(tempfile.mkdtemp(prefix="crispseg-demo-")).resolve()  # for this user only
            cleanup.callback(shutil.rmtree, self.folder, ignore_errors=True)
            cleanup.callback(_restore, dict(os.environ))
            os.environ.update(ENVIRONMENT, GRADIO_TEMP_DIR=str(self.folder))
            _pass_proxies_by(host)
            import gradio as gr
            from starlette.middleware import Middleware

            self.service = Service(engines, self.folder, limits)
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
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=_script("page.css"),
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
            self._cleanup = cleanup.pop_all()

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        with suppress(KeyboardInterrupt):
            Event().wait()

    def close(self) -> None:
        """Stop serving and remove the folder."""
        self._cleanup.close()

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _restore(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _pass_proxies_by(host: str) -> None:
    """Gradio asks its own server whether it runs; no proxy of the environment may be in between."""
    for key in ("NO_PROXY", "no_proxy"):
        known = [entry for entry in os.environ.get(key, "").split(",") if entry]
        os.environ[key] = ",".join([*known, "127.0.0.1", "localhost", host])
