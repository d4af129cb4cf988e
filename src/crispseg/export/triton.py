"""Settings of Triton Inference Server for ONNX files."""

from __future__ import annotations

import json
from pathlib import Path

from crispseg.errors import CrispsegError
from crispseg.export.plan import ExportPlan
from crispseg.io.images import image_channels

SETTINGS = "config.pbtxt"


def check_settings(path: Path, settings: str) -> None:
    """Raise a CrispsegError if the folder of a file has other settings."""
    existing = path.with_name(SETTINGS)
    if existing.exists() and existing.read_bytes() != settings.encode():
        raise CrispsegError(f"{existing} has other settings; move it, or leave out triton")


def triton_settings(path: Path, plan: ExportPlan) -> str:
    """Return the settings for an ONNX file; batches of images of one size, and how clients prepare them."""
    info = plan.model.info
    images = f"TYPE_FP32 dims: [ {info.in_chans}, -1, -1 ]"
    if plan.input == "uint8":
        kind = "UINT16" if info.value_range else "UINT8"
        images = f"TYPE_{kind} dims: [ -1, -1, {image_channels(info.in_chans)} ]"
    result = f"TYPE_FP32 dims: [ {info.num_classes}, -1, -1 ]"
    if plan.output == "labels":
        result = "TYPE_UINT8 dims: [ -1, -1 ]"
    preparation = json.dumps({"mean": info.mean, "std": info.std, "value_range": info.value_range})
    return f"""\
backend: "onnxruntime"
default_model_filename: {json.dumps(path.name, ensure_ascii=False)}
max_batch_size: 8
input {{ name: "images" data_type: {images} }}
output {{ name: "{plan.output}" data_type: {result} }}
parameters {{ key: "crispseg" value {{ string_value: {json.dumps(preparation)} }} }}
dynamic_batching {{ max_queue_delay_microseconds: 5000 }}
"""
