"""Browser page to upload an image and see how trained models segment it; needs Gradio."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import torch
from markupsafe import Markup

from crispseg.errors import CrispsegError
from crispseg.inference.device import FloatPrecision
from crispseg.inference.runtime import AnyModel
from crispseg.inspection import inspect_image
from crispseg.inspection.page import inspection_page
from crispseg.io.images import write_labels

FRAME = Markup(
    '<iframe title="segmentation" sandbox="allow-scripts" style="width: 100%; height: 90vh; border: 0" srcdoc="{}">'
    "</iframe>"
)
AS_HIGH_AS_ITS_PAGE = """<script>
addEventListener("message", (event) => {
  for (const frame of document.querySelectorAll("iframe[title=segmentation]"))
    if (frame.contentWindow === event.source) frame.style.height = `${Math.ceil(Number(event.data))}px`;
});
</script>"""
MAX_UPLOAD = 20_000_000  # bytes of a file that is uploaded to the demo
OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1,localhost"}


def segmented(
    model: AnyModel, image: Path, folder: Path, device: torch.device, *, precision: FloatPrecision = "fp32"
) -> tuple[str, str, Path]:
    """Inspect an image and write its mask to `folder`; return the HTML, the elapsed time and the mask file.

    Errors name the image without its folder.
    """
    start = perf_counter()
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            seen = inspect_image(model, image, device=device)
    except CrispsegError as error:
        raise CrispsegError(str(error).replace(str(image), image.name)) from None
    mask = Path(tempfile.mkdtemp(dir=folder)) / f"{image.stem}_mask.png"
    labels = cv2.resize(seen.labels, seen.original_size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    write_labels(mask, np.asarray(labels), seen.label_set.palette)
    return FRAME.format(inspection_page(seen)), f"{perf_counter() - start:.2f} s on {device}", mask


@contextmanager
def serve(
    models: Mapping[str, AnyModel],
    folder: Path,
    device: torch.device,
    host: str = "127.0.0.1",
    port: int = 7860,
    *,
    images: Sequence[Path] = (),
    precision: FloatPrecision = "fp32",
) -> Iterator[str]:
    """Serve the page while the block runs, and yield its address.

    The page shows the models by their names in `models`. `folder` contains masks, and uploads of at most
    `MAX_UPLOAD`. The page opens with the first of the `images` and offers the others. If Gradio is not installed, or
    cannot listen at this address, a `CrispsegError` is raised.
    """
    os.environ.update(OFFLINE, GRADIO_TEMP_DIR=str(folder))
    try:
        import gradio as gr
    except ImportError:
        raise CrispsegError("the demo needs Gradio; run: pip install gradio") from None

    def segment(upload: dict[str, str] | None, name: str) -> tuple[str, str, Any]:
        if upload is None:
            return "", "", gr.DownloadButton(interactive=False)
        try:
            html, seconds, mask = segmented(models[name], Path(upload["path"]), folder, device, precision=precision)
        except CrispsegError as error:  # Gradio shows messages as HTML
            raise gr.Error(escape(str(error), quote=False), print_exception=False) from None
        return html, seconds, gr.DownloadButton(value=mask, interactive=True)

    with gr.Blocks(title="crispseg demo", analytics_enabled=False, delete_cache=(60, 900)) as blocks:
        gr.Markdown("# crispseg")
        with gr.Row():
            first = str(images[0]) if images else None
            upload = gr.Image(first, label="Image", type="filepath", image_mode=None, height=220)
            with gr.Column():
                model = gr.Radio(list(models), value=next(iter(models)), label="Model")
                download = gr.DownloadButton("Download the mask", interactive=False)
        if images:
            gr.Examples([str(image) for image in images], upload)
        spent, shown = gr.Markdown(), gr.HTML(apply_default_css=False)
        options: dict[str, Any] = {"trigger_mode": "always_last", "api_name": "segment"}
        options["preprocess"] = False  # otherwise Gradio opens the file, and its errors do not name it
        events = [upload.change, model.input, *([blocks.load] if images else [])]
        gr.on(events, segment, [upload, model], [shown, spent, download], **options)
    try:
        socket.getaddrinfo(host, port)  # without the traceback of Gradio's thread
        _, url, _ = blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            max_file_size=MAX_UPLOAD,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            ssr_mode=False,
            head=AS_HIGH_AS_ITS_PAGE,
        )
        yield url
    except (OSError, UnicodeError) as error:
        raise CrispsegError(f"cannot listen on host {host:.200}, port {port} ({error}); choose others") from None
    finally:
        blocks.close(verbose=False)
