"""The page, in Gradio; imported only where that is installed."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from crispseg.demo import view
from crispseg.demo.service import AT_ONCE, Service
from crispseg.errors import CrispsegError

WAITING = 64
"""Requests in the queue, over which new ones are refused."""

ASSETS = Path(__file__).parent / "assets"


def build(service: Service) -> Any:
    """The page, as `gradio.Blocks`. `GRADIO_TEMP_DIR` must be the service's folder already."""

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
    # Not `delete_cache`: with many users at once its task ends at "Set changed size during iteration".
    with gr.Blocks(title="crispseg demo", analytics_enabled=False) as blocks:
        gr.Markdown(f"# crispseg\n{escape(described, quote=False)}", elem_id="cs-title")
        token = gr.State(None, time_to_live=3600, delete_callback=service.store.drop)
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                upload = gr.Image(
                    label="Image",
                    show_label=False,
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "webcam", "clipboard"],
                    height=260,
                    buttons=[],
                    elem_id="cs-upload",
                )
                gr.HTML(view.limits(limits), js_on_load=None, apply_default_css=False)
                scene = gr.Button("Draw a street scene", elem_id="cs-scene")
                model = gr.Radio(names, value=names[0], label="Model", elem_id="cs-model")
                opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity of the classes", elem_id="cs-opacity")
                edges = gr.Checkbox(False, label="Draw boundaries", elem_id="cs-boundaries")
                download = gr.DownloadButton("Download the mask", interactive=False, elem_id="cs-download")
            with gr.Column(scale=3, min_width=300):
                picture = gr.HTML(
                    view.EMPTY, js_on_load=asset("picture.js"), apply_default_css=False, elem_id="cs-picture"
                )
                spent = gr.HTML("", js_on_load=None, apply_default_css=False, elem_id="cs-spent")
                about = gr.HTML("", js_on_load=asset("marks.js"), apply_default_css=False, elem_id="cs-about")
                legend = gr.HTML("", js_on_load=None, apply_default_css=False, elem_id="cs-legend")
        results = [picture, spent, legend, download, token, about]
        run: dict[str, Any] = {
            "fn": segment,
            "inputs": [upload, model, token],
            "outputs": results,
            "preprocess": False,  # Gradio would open the file, decode what a URL holds, and say less of mistakes
            "show_progress_on": [picture],
            "concurrency_id": "segment",
            "concurrency_limit": AT_ONCE,
        }
        # `change` comes twice where an image takes another's place; `input` comes once, also from the webcam.
        changed = gr.on([upload.input, model.input], **run, trigger_mode="always_last", api_name="segment")
        drawn = scene.click(service.sample, None, upload, api_name="sample", concurrency_limit=AT_ONCE)
        for event in (changed, drawn.success(**run, api_visibility="private")):
            event.failure(nothing, None, results, api_visibility="private")
        picture.select(
            look, token, about, api_visibility="private", show_progress="hidden", concurrency_limit=4, queue=True
        )
        # Changes of a CSS variable in the browser: the server hears nothing of them.
        style = "document.documentElement.style.setProperty"
        opacity.change(None, opacity, None, js=f"(value) => {{ {style}('--cs-opacity', value); }}")
        edges.change(None, edges, None, js=f"(on) => {{ {style}('--cs-edges', on ? 'block' : 'none'); }}")
    blocks.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)
    return blocks


def asset(name: str) -> str:
    """A file of the page's own style and scripts."""
    return (ASSETS / name).read_text(encoding="utf-8")


def theme() -> Any:
    """Gradio's default, in fonts that every machine has: none is fetched."""
    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
