"""Files of `crispseg export` as models: ONNX Runtime and OpenVINO run them on the CPU."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from crispseg.decoders import Decoded
from crispseg.errors import CrispsegError, one_line
from crispseg.inference.device import FloatPrecision
from crispseg.models import ModelInfo, SegmentationModel
from crispseg.models.base import Coarse, Outputs
from crispseg.models.info import MIN_SIDE

METADATA = "crispseg"
"""Key of the metadata in an ONNX or OpenVINO file."""
NO_METADATA = "{}"
"""Metadata of a file that another tool has made."""

UNSEALED = 64 * "0"
CHECKSUM = re.compile(rb'sha256(?:"|&quot;): (?:"|&quot;)([0-9a-f]{64})')
"""In the metadata of a file: the SHA-256 of its bytes, with `UNSEALED` instead of itself, and of its .bin."""

Run: TypeAlias = Callable[[Tensor], Tensor]
"""Images `(N, C, H, W)` → logits `(N, num_classes, H, W)`, on the CPU."""

Backend: TypeAlias = Literal["auto", "torch", "onnxruntime", "openvino"]

RUNTIMES = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}
"""Runtimes of the files of a suffix, the default first."""


class ExportedModel(nn.Module):
    """An exported file in the place of a `SegmentationModel`: it predicts, and has no weights.

    Its logits are those of the images' size, refined where the model refines.

    Args:
        run: computes the logits.
        metadata: of the file, as JSON.
        path: of the file.

    Raises:
        CrispsegError: the metadata are none of a crispseg model, or of a later format.
    """

    refiner = decoder = None
    align_corners = True

    def __init__(self, run: Run, metadata: str, path: Path) -> None:
        super().__init__()
        self.run, self.path = run, path
        record = json.loads(metadata)
        self.refines = bool(record.get("options", {}).get("refine"))
        self.bytes_per_pixel: float | None = record.get("bytes_per_pixel")
        fields = {key: record[key] for key in ("format_version", *ModelInfo.__dataclass_fields__) if key in record}
        self.info = ModelInfo.parse(json.dumps(fields), path)

    def check_use(self, device: torch.device, precision: FloatPrecision, whole: bool) -> None:
        """Raise a CrispsegError if the file cannot be used so.

        It runs on the CPU, in its own precision; one that refines needs images that are processed whole and once.
        """
        if device.type != "cpu" or precision != "fp32":
            wrong = "bf16 is a choice of the export" if precision != "fp32" else f"device is {device}"
            raise CrispsegError(f"{self.path} runs on the CPU in its own precision, and {wrong}; give the run itself")
        if self.refines and not whole:
            raise CrispsegError(f"{self.path} refines its logits; give protocol whole, or the run itself")

    def forward(self, images: Tensor) -> Tensor:
        """Images `(N, C, H, W)` → logits `(N, num_classes, H, W)` float32."""
        return self.run(images)

    coarse_logits = forward

    def coarse(self, images: Tensor) -> Coarse:
        """Return the logits in the form of `SegmentationModel.coarse`."""
        logits = self.run(images)
        return Coarse(logits, Decoded(logits, (), None))

    def outputs(self, images: Tensor) -> Outputs:
        """Return the logits, and nothing else."""
        return Outputs(self.run(images))

    def padded(self, images: Tensor) -> Tensor:
        """Return the images as they are; padding is in the file."""
        return images


AnyModel: TypeAlias = SegmentationModel | ExportedModel


def is_exported(source: str | Path) -> bool:
    """Whether a source is named as an exported file; a folder never is."""
    return Path(source).suffix.lower() in RUNTIMES and not Path(source).is_dir()


def open_model(source: str | Path, backend: Backend = "auto") -> AnyModel:
    """Open what `SegmentationModel.from_pretrained` takes, or an exported file.

    Args:
        source: path or name.
        backend: by default ONNX Runtime for .onnx, OpenVINO for .xml, and PyTorch for saved models.

    Raises:
        CrispsegError: there is nothing of that name, it is damaged, or the backend is unknown, is not installed or does
            not run such files.
    """
    path = Path(source)
    known = RUNTIMES[path.suffix.lower()] if is_exported(source) else ("torch",)
    if backend not in ("auto", *known):
        raise CrispsegError(f"backend is '{backend}', but {source} runs in {' or '.join(known)}; leave out backend")
    if not is_exported(source):
        return SegmentationModel.from_pretrained(source)
    runtime = known[0] if backend == "auto" else backend
    if importlib.util.find_spec(runtime) is None:
        raise CrispsegError(f"{source} needs {runtime}; pip install {runtime}")
    if not path.is_file():
        raise CrispsegError(f"{source} does not exist; give a file of crispseg export, or a run")
    try:
        said, found = checksums(path)
        if said not in ("", found):
            raise CrispsegError(
                f"{path} or its .bin is damaged, or of another export: the checksums differ; restore them"
            )
        model = ExportedModel(*(open_onnx if runtime == "onnxruntime" else open_openvino)(path), path)
        size = tuple(model(torch.zeros(1, model.info.in_chans, MIN_SIDE, MIN_SIDE)).shape)
        if size != (expected := (1, model.info.num_classes, MIN_SIDE, MIN_SIDE)):
            raise CrispsegError(f"{path} gives logits {size}, by its metadata {expected}; export it again")
        return model
    except CrispsegError:
        raise
    except Exception as error:  # runtimes raise almost anything for a file that is damaged or not of crispseg
        raise CrispsegError(f"{path} is no file of crispseg export ({one_line(error):.200}); export it again") from None


def checksums(path: Path) -> tuple[str, str]:
    """Return the `CHECKSUM` that an exported file has, empty if it has none, and the one that it should have."""
    content = path.read_bytes()
    found = CHECKSUM.search(content)
    digest = hashlib.sha256(content.replace(found[1], UNSEALED.encode()) if found else content)
    if path.suffix.lower() == ".xml":
        digest.update(path.with_suffix(".bin").read_bytes())
    return found[1].decode() if found else "", digest.hexdigest()


def seal(path: Path) -> None:
    """Put the checksum of a file into its metadata, which have `UNSEALED` instead."""
    digest = checksums(path)[1].encode()
    path.write_bytes(CHECKSUM.sub(lambda found: found[0][: -len(digest)] + digest, path.read_bytes()))


def open_onnx(path: Path) -> tuple[Run, str]:
    """Return what runs a file in ONNX Runtime, and its metadata as JSON."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised; do not print them too
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.contiguous().numpy()})[0])

    return run, session.get_modelmeta().custom_metadata_map.get(METADATA, NO_METADATA)


@functools.cache
def openvino_core() -> Any:
    """Return the one `openvino.Core` of the process.

    Each Core gives the thread another stack for signals and takes it away when it ends. If two do not end in the
    opposite order, the thread keeps a stack that is freed, and the next signal ends the process.
    """
    import openvino

    return openvino.Core()


def open_openvino(path: Path) -> tuple[Run, str]:
    """Return what runs a file, OpenVINO's or ONNX, in OpenVINO, and its metadata as JSON."""
    core = openvino_core()
    model = core.read_model(path)
    if path.suffix.lower() == ".onnx":
        import onnx

        props = onnx.load(path, load_external_data=False).metadata_props
        metadata = next((each.value for each in props if each.key == METADATA), NO_METADATA)
    else:
        metadata = model.get_rt_info([METADATA]).value if model.has_rt_info([METADATA]) else NO_METADATA
    # On a processor with bfloat16, OpenVINO would otherwise compute in it whatever the file is certified for.
    in_bf16 = json.loads(metadata).get("precision") == "bf16"
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if in_bf16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }
    compiled = core.compile_model(model, "CPU", options)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(compiled([images.contiguous().numpy()])[0])

    return run, metadata
