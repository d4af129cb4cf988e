"""The page, in Gradio; imported only where that is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import gradio as gr
import numpy as np
import torch
from markupsafe import Markup

from crispseg.demo.examples import Examples
from crispseg.demo.uploads import Limits, read_upload, sweep
from crispseg.errors import CrispsegError
from crispseg.inference.memory import enough_memory
from crispseg.inference.runtime import AnyModel
from crispseg.inspection import Inspection, inspect_image
from crispseg.inspection.page import inspection_page
from crispseg.io.images import image_channels, write_image, write_labels

WAITING = 64
"""Requests in the queue, over which new ones are refused."""
EMPTY = '<p class="empty">The segmentation will be here: give an image.</p>'
FRAME = Markup('<iframe class="seen" title="the segmentation" sandbox="allow-scripts" srcdoc="{}"></iframe>')


class Demo:
    """What the page asks for.

    Args:
        models: by the names to choose them by, on the device.
        device: on which they compute.
        folder: private, for masks.
        limits: of uploads.
        examples: images to try a model on, by its name; of some models there may be none.
        bf16: compute in bfloat16.
    """

    def __init__(
        self,
        models: Mapping[str, AnyModel],
        device: torch.device,
        folder: Path,
        limits: Limits,
        *,
        examples: Mapping[str, Examples] | None = None,
        bf16: bool = False,
    ) -> None:
        self.models, self.device, self.folder, self.limits, self.bf16 = models, device, folder, limits, bf16
        self.examples = examples or {}

    def segment(self, upload: Any, name: Any) -> tuple[str, str, Any]:
        """Segment an uploaded image by a model.

        Args:
            upload: what the browser tells about the image, a mapping with its `path` on the server; None for no image.
            name: of the model.

        Returns:
            HTML of the result, how long it took, and the button that downloads the mask.
        """
        if upload is None:
            return nothing()
        start = perf_counter()
        with _told():
            seen = self.inspect(upload, name)
        mask = Path(tempfile.mkdtemp(dir=self.folder)) / f"{seen.name}_mask.png"
        labels = cv2.resize(seen.labels, seen.original_size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        write_labels(mask, np.asarray(labels), seen.label_set.palette)
        sweep(self.folder, self.limits)
        html = FRAME.format(inspection_page(seen))
        seconds = f"network {1000 * seen.seconds:.0f} ms, in all {1000 * (perf_counter() - start):.0f} ms"
        return html, f"{seconds}, on {self.device}", gr.DownloadButton(value=mask, interactive=True)

    def inspect(self, upload: Any, name: Any) -> Inspection:
        """Run a model on an uploaded file; arguments as for `segment`.

        Raises:
            CrispsegError: no uploaded file, one that is broken or too large, no such model, or it needs more memory
                than there is.
        """
        model = self.models.get(str(name))
        if model is None:
            raise CrispsegError("there is no such model here; choose one of the list")
        path = Path(str(upload.get("path") if isinstance(upload, dict) else upload))
        if not path.resolve().is_relative_to(self.folder):  # Gradio checks only what says of itself that it is a file
            raise CrispsegError("this is no uploaded image; upload one first")
        pixels = read_upload(path, image_channels(model.info.in_chans), self.limits, model.info.value_range)
        with (
            enough_memory(f"{path.name} needs", "cut or shrink it"),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16),
        ):
            return inspect_image(model, pixels, name=path.stem, device=self.device, pixels=self.limits.working_pixels)

    def offer(self, name: Any) -> Any:
        """The examples of a model, small; hidden where there are none."""
        own = self.examples.get(str(name))
        return gr.Gallery(value=[*own.thumbnails] if own else None, visible=own is not None)

    def example(self, name: Any, chosen: gr.SelectData) -> str:
        """The image that was chosen among the examples of a model, as a file that is kept as uploads are."""
        own, at = self.examples.get(str(name)), chosen.index
        with _told():
            if own is None or not isinstance(at, int) or not 0 <= at < len(own):
                raise CrispsegError("there is no such example; choose one that is shown")
            path = Path(tempfile.mkdtemp(dir=self.folder)) / f"{own.name(at)}.png"
            write_image(path, own.image(at))
            return str(path)

    def blocks(self) -> Any:
        """The page, as `gradio.Blocks`."""
        described = "; ".join(
            f"**{name}**: {model.info.name} on {model.info.backbone}, {model.info.num_classes} classes"
            for name, model in self.models.items()
        )
        taken = f"at most {self.limits.megabytes:g} MB and {self.limits.pixels / 1e6:g} million pixels"
        with gr.Blocks(title="crispseg demo", analytics_enabled=False) as blocks:
            gr.Markdown(f"# crispseg\n{escape(described, quote=False)}")
            with gr.Row():
                upload = gr.Image(
                    label="Image",
                    show_label=False,
                    type="filepath",
                    format="png",
                    image_mode=None,
                    sources=["upload", "webcam", "clipboard"],
                    height=220,
                    buttons=[],
                    elem_id="upload",
                )
                with gr.Column():
                    names = list(self.models)
                    model = gr.Radio(names, value=names[0], label="Model", elem_id="model")
                    download = gr.DownloadButton("Download the mask", interactive=False, elem_id="download")
                    gr.Markdown(f"PNG, JPEG, WebP, TIFF, BMP, GIF or PPM, {taken}.")
            gallery = gr.Gallery(
                label="Images that this model was validated on",
                allow_preview=False,
                interactive=False,
                buttons=[],
                visible=names[0] in self.examples,
                elem_id="examples",
            )
            spent = gr.Markdown(elem_id="spent")
            shown = gr.HTML(EMPTY, js_on_load=None, apply_default_css=False, elem_id="shown")
            results = [shown, spent, download]
            run: dict[str, Any] = {
                "fn": self.segment,
                "inputs": [upload, model],
                "outputs": results,
                "preprocess": False,  # Gradio would open the file, and say less of mistakes
                "show_progress_on": [shown],
                "concurrency_id": "segment",
                "concurrency_limit": 1,
            }
            # `change` comes twice where an image takes another's place; `input` comes once, also from the webcam.
            changed = gr.on([upload.input, model.input], **run, trigger_mode="always_last", api_name="segment")
            gr.on([blocks.load, model.input], self.offer, model, gallery, api_visibility="private")
            taken_one = gallery.select(self.example, model, upload, api_visibility="private")
            for event in (changed, taken_one.success(**run, api_visibility="private")):
                event.failure(nothing, None, results, api_visibility="private")
        blocks.queue(max_size=WAITING)
        return blocks


def nothing() -> tuple[str, str, Any]:
    """What is shown of no image."""
    return EMPTY, "", gr.DownloadButton(value=None, interactive=False)


@contextmanager
def _told() -> Iterator[None]:
    """Errors of the block as Gradio's. It shows messages as HTML, and a file's name may be part of one."""
    try:
        yield
    except CrispsegError as error:
        raise gr.Error(escape(str(error), quote=False), print_exception=False) from None
