"""A page in the browser: upload an image, see how trained models segment it. Needs `pip install 'crispseg[demo]'`."""

from __future__ import annotations

import os
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

from crispseg.data.catalogue import spread
from crispseg.data.dataset import SegmentationDataset
from crispseg.errors import CrispsegError
from crispseg.inference.runtime import AnyModel
from crispseg.inspection import inspect_image
from crispseg.inspection.page import inspection_page
from crispseg.io.images import as_picture, image_channels, read_image, write_image, write_labels

EXAMPLES = 6
WAITING = 64
"""Most requests in the queue."""
KEPT_SECONDS = 900
"""Age at which uploads and masks are deleted."""
WORKING_PIXELS = 2**21
"""Larger images are segmented as a reduced copy."""
EMPTY = '<p class="empty">The segmentation appears here. Upload an image.</p>'
FRAME = Markup('<iframe class="seen" title="segmentation" sandbox="allow-scripts" srcdoc="{}"></iframe>')
STYLE = """
.seen { width: 100%; height: max(40rem, 90vh); border: 0; }
.empty { padding: 5rem 1rem; text-align: center; border: 1px dashed gray; border-radius: 6px; }
"""
OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1,localhost"}


class Demo:
    """The functions behind the page.

    Args:
        models: networks on `device`, by the name that the page shows.
        device: device of the models.
        folder: folder of uploads and masks; no other file is read.
        bf16: compute in bfloat16.
    """

    def __init__(
        self, models: Mapping[str, AnyModel], device: torch.device, folder: Path, *, bf16: bool = False
    ) -> None:
        self.models, self.device, self.folder, self.bf16 = models, device, folder.resolve(), bf16

    def segment(self, upload: str | None, name: str) -> tuple[str, str, Path | None]:
        """Return the HTML of the inspection, the time it took and the file of the mask, of an uploaded image.

        Raises:
            CrispsegError: the file is no upload or broken, or there is no model of this name.
        """
        if upload is None:
            return EMPTY, "", None
        start, path = perf_counter(), Path(upload)
        if name not in self.models:
            raise CrispsegError(f"model is {name!r}; choose one of {', '.join(self.models)}")
        if not path.resolve().is_relative_to(self.folder):  # Gradio accepts any path from a program
            raise CrispsegError("the image is no uploaded file; upload it")
        info = self.models[name].info
        try:
            pixels = read_image(path, image_channels(info.in_chans), info.value_range)
        except CrispsegError as error:  # without the server's folders
            raise CrispsegError(str(error).replace(str(path), path.name)) from None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            seen = inspect_image(self.models[name], pixels, name=path.stem, device=self.device, pixels=WORKING_PIXELS)
        mask = Path(tempfile.mkdtemp(dir=self.folder)) / f"{path.stem}_mask.png"
        labels = cv2.resize(seen.labels, seen.original_size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        write_labels(mask, np.asarray(labels), seen.label_set.palette)
        seconds = f"network {seen.seconds:.2f} s, total {perf_counter() - start:.2f} s, on {self.device}"
        return FRAME.format(inspection_page(seen)), seconds, mask

    def blocks(self, examples: Sequence[Path] = ()) -> Any:
        """Return the page, as `gradio.Blocks`; `examples` are image files inside `folder`."""
        import gradio as gr

        def segment(upload: dict[str, Any] | None, name: str) -> tuple[str, str, Any]:
            try:
                html, seconds, mask = self.segment(str(upload.get("path")) if upload else None, name)
            except CrispsegError as error:  # Gradio shows messages as HTML
                raise gr.Error(escape(str(error), quote=False), print_exception=False) from None
            return html, seconds, gr.DownloadButton(value=mask, interactive=mask is not None)

        names = list(self.models)
        with gr.Blocks(title="crispseg demo", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as blocks:
            gr.Markdown("# crispseg")
            with gr.Row():
                sources = ["upload", "webcam", "clipboard"]
                upload = gr.Image(label="Image", type="filepath", image_mode=None, sources=sources, height=220)
                with gr.Column():
                    model = gr.Radio(names, value=names[0], label="Model")
                    download = gr.DownloadButton("Download the mask", interactive=False)
            if examples:
                gr.Examples([[str(path)] for path in examples], [upload], label="Validation images")
            spent, shown = gr.Markdown(), gr.HTML(EMPTY, apply_default_css=False)
            gr.on(
                [upload.change, model.input],
                segment,
                [upload, model],
                [shown, spent, download],
                preprocess=False,  # Gradio would open the file, and does not name a broken one
                trigger_mode="always_last",
                api_name="segment",
            )
        blocks.queue(max_size=WAITING)
        return blocks


def write_examples(dataset: SegmentationDataset, folder: Path) -> list[Path]:
    """Write some images of a split, evenly spaced, as PNG files, and return their paths."""
    paths = []
    for index in spread(len(dataset), EXAMPLES):
        paths.append(folder / f"{Path(dataset.name_of(index)).stem}.png")
        write_image(paths[-1], as_picture(dataset[index].image))
    return paths


@contextmanager
def serve(
    demo: Demo, host: str = "127.0.0.1", port: int = 7860, *, max_megabytes: float = 20, examples: Sequence[Path] = ()
) -> Iterator[str]:
    """Serve the page while the block runs; yields its address.

    Args:
        demo: the functions behind the page.
        host, port: address to listen on.
        max_megabytes: largest upload, in 10⁶ bytes.
        examples: image files inside the demo's folder.

    Raises:
        CrispsegError: Gradio is not installed, or cannot listen at this address.
    """
    os.environ.update(OFFLINE, GRADIO_TEMP_DIR=str(demo.folder))
    try:
        import gradio as gr
    except ImportError:
        raise CrispsegError("the demo needs Gradio; run: pip install 'crispseg[demo]'") from None
    blocks = demo.blocks(examples)
    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            max_file_size=int(max_megabytes * 10**6),
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=STYLE,
            footer_links=[],
            enable_monitoring=False,
            ssr_mode=False,
        )
        yield str(blocks.local_url)
    except OSError as error:
        raise CrispsegError(f"cannot listen on host {host}, port {port} ({error}); choose another port") from None
    finally:
        blocks.close(verbose=False)
