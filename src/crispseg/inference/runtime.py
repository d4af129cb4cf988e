"""Models from files of `crispseg export`, run on the CPU by ONNX Runtime, OpenVINO or ExecuTorch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from crispseg.compat import openvino_core
from crispseg.config.registry import Registry
from crispseg.errors import CrispsegError, check_installed, one_line
from crispseg.inference.device import SPAWN, FloatPrecision, first_process
from crispseg.inference.ensemble import Ensemble
from crispseg.io.arrays import Normalize
from crispseg.io.files import regular_file, user_path
from crispseg.models import ModelInfo, SegmentationModel
from crispseg.models.base import Outputs
from crispseg.models.info import MIN_SIDE
from crispseg.models.saving import folds_of
from crispseg.nn import resize

METADATA = "crispseg"  # key of the metadata in an ONNX or OpenVINO file
NO_METADATA = "{}"  # metadata of a file from another tool

SMALLEST = torch.finfo(torch.float32).tiny  # probability

UNSEALED = 64 * "0"
CHECKSUM = re.compile(rb'sha256(?:"|&quot;): (?:"|&quot;)([0-9a-f]{64})')
"""Pattern of the SHA-256 in file metadata; it covers the file, with `UNSEALED` as its checksum, and its .bin."""

Run: TypeAlias = Callable[[Tensor], Tensor]
"""Function from the input of a file to its output, such as images `(N, C, H, W)` to logits, on the CPU."""

Backend: TypeAlias = Literal["auto", "torch", "onnxruntime", "openvino", "executorch"]

OPENVINO_CACHE = "64"
"""Compiled operations that OpenVINO keeps for earlier image sizes. With its 5,000, 500 sizes take half a gigabyte."""

WRITERS: Registry[Callable[[str | Path, FloatPrecision], Path]] = Registry(
    "backend", filled_by="crispseg.export.cached"
)
"""Functions that write a saved model as a cached file for a runtime, in a precision."""

RUNTIMES = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",), ".pte": ("executorch",)}


class ExportedModel(nn.Module):
    """Exported file with the interface of a `SegmentationModel` for inference, without weights.

    Its logits or labels have the size of the images, and are refined if the model has a refinement. The logits of a
    file of probabilities are their logarithms, multiplied by the temperature.

    Args:
        run: function that computes the output of the file.
        metadata: metadata of the file as JSON.
        path: path of the file.
        backend: runtime that opens the file again in another process, if the model is pickled.

    Raises:
        CrispsegError: the metadata are not from a crispseg model, or have a later format.
    """

    refiner = decoder = None
    align_corners = True

    def __init__(self, run: Run, metadata: str, path: Path, backend: str = "auto") -> None:
        super().__init__()
        self.run, self.path, self.backend, self.process = run, path, backend, os.getpid()
        record = json.loads(metadata)
        self.refines = bool(record.get("options", {}).get("refine"))
        self.takes_pixels = record.get("input") == "uint8"
        self.output: str = record.get("output", "logits")
        self.labels_only = self.output == "labels"
        self.precision = record.get("precision")
        self.bytes_per_pixel: float | None = record.get("bytes_per_pixel")
        self.size: tuple[int, int] | None = tuple(record["size"]) if record.get("size") else None
        """Height and width of the only image of each run; None for any number and size."""
        fields = {key: record[key] for key in ("format_version", *ModelInfo.__dataclass_fields__) if key in record}
        self.info = ModelInfo.parse(json.dumps(fields), path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_model, (self.path.absolute(), self.backend)

    def check_use(self, device: torch.device, precision: FloatPrecision, whole: bool) -> None:
        """Raise a CrispsegError if the file does not support these options.

        Files run on the CPU in their own precision. Files with a refinement process only whole images, once.
        """
        if device.type != "cpu" or precision not in ("fp32", self.precision):
            wrong = f"device is {device}, precision {precision}"
            raise CrispsegError(f"{self.path} runs on the CPU in its own precision, but {wrong}; give the run instead")
        if self.takes_pixels and self.info.value_range == "image":
            scales = f"{self.path} scales each image by its own values, and crispseg has scaled them already"
            raise CrispsegError(f"{scales}; give the run instead, or a file of input float")
        if (self.refines or self.labels_only) and not whole:
            raise CrispsegError(f"{self.path} has refined logits or labels; give protocol whole, or the run instead")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(N, num_classes, H, W)` float32 or labels `(N, H, W)` of images `(N, C, H, W)`."""
        output = self.of_input(pixels_of(images, self.info) if self.takes_pixels else images)
        return output.clamp_min(SMALLEST).log() * self.info.temperature if self.output == "probabilities" else output

    def of_input(self, images: Tensor) -> Tensor:
        """Return the output of the file for its input, normalised images or pixels."""
        if self.process != os.getpid():  # the threads of the runtime are missing in a forked process
            (self.run, _), self.process = OPENERS[self.backend](self.path), os.getpid()
        height, width = images.shape[1:3] if self.takes_pixels else images.shape[-2:]
        if self.size and self.size != (height, width):
            only = "×".join(map(str, self.size))
            line = f"{self.path} accepts only images of {only} pixels (height×width), but one has {height}×{width}"
            raise CrispsegError(f"{line}; resize it, or export the run with size {height} {width}")
        if self.size and len(images) > 1:
            return torch.cat([self.run(image[None]) for image in images])
        return self.run(images)

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits of a file that has them, at the images' size."""
        check_logits(self, self.path)
        return self.forward(images)

    def novelty_of(self, images: Tensor) -> None:
        """Return None, since files have no features."""

    def offsets(self, images: Tensor) -> None:
        """Return None, because the file refines internally."""

    def outputs(self, images: Tensor) -> Outputs:
        """Return only the logits."""
        return Outputs(self.logits(images))

    def resized(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Resize logits, which are unchanged at the images' size."""
        return resize(logits, size, align_corners=False)

    def padded(self, images: Tensor) -> Tensor:
        """Return the images unchanged, because the file includes padding."""
        return images


def pixels_of(images: Tensor, info: ModelInfo) -> Tensor:
    """Return normalised images `(N, in_chans, H, W)` as the pixels `(N, H, W, C)` of a file, uint8 or uint16.

    Values scaled to 8 bits from 16 return to 16, such that the file scales them to the same 8 bits.
    """
    values = Normalize(info.mean, info.std, info.in_chans).reversed(images).permute(0, 2, 3, 1)  # (N, H, W, in_chans)
    if info.in_chans == 1:
        values = ((3 * values).round() + torch.arange(3)).div(3, rounding_mode="floor")  # RGB of this mean
    values = values.round().clamp(0, 255)
    if isinstance(info.value_range, tuple):
        low, high = info.value_range
        values = (low + values * ((high - low) / 255)).round()
    return values.to(torch.uint16 if info.value_range else torch.uint8).contiguous()


AnyModel: TypeAlias = SegmentationModel | ExportedModel


def check_logits(model: AnyModel, source: str | Path) -> None:
    """Raise a CrispsegError if a model computes labels instead of logits."""
    if model.labels_only:
        raise CrispsegError(f"{source} has labels but no logits; export it with output logits")


def is_exported(source: str | Path) -> bool:
    """Return whether a source has the suffix of an exported file and is not a folder."""
    return Path(source).suffix.lower() in RUNTIMES and not Path(source).is_dir()


def open_model(source: str | Path, backend: Backend = "auto", precision: FloatPrecision = "fp32") -> AnyModel:
    """Open a source of `SegmentationModel.from_pretrained`, a folder of folds, or an exported file.

    Args:
        backend: by default ONNX Runtime for .onnx, OpenVINO for .xml, ExecuTorch for .pte, PyTorch for saved models.
            For ONNX Runtime and OpenVINO, a saved model is exported once, to a cached file.
        precision: precision of the cached file.

    Raises:
        CrispsegError: the source is missing or damaged, or the backend is unknown, is not installed or does not support
            such files.
    """
    suffix = Path(source).suffix.lower()
    if suffix == ".mlpackage":
        raise CrispsegError(f"{source} is for Core ML, which crispseg cannot run; give a saved model or another export")
    known = RUNTIMES[suffix] if is_exported(source) else ("torch", *WRITERS.names())
    runtime = known[0] if backend == "auto" else backend
    if runtime not in known:
        raise CrispsegError(f"backend is '{backend}', but {source} needs {' or '.join(known)}; leave out backend")
    if runtime == "torch":
        members = {str(fold): SegmentationModel.from_pretrained(fold) for fold in folds_of(source)}
        return Ensemble(members).eval() if members else SegmentationModel.from_pretrained(source)
    return open_exported(user_path(source) if is_exported(source) else WRITERS[runtime](source, precision), runtime)


def open_exported(path: Path, backend: str) -> ExportedModel:
    """Open an exported file in a runtime; errors are those of `open_model`."""
    check_installed(backend, str(path), backend)
    if not path.is_file():
        raise CrispsegError(f"{path} does not exist; give a file of crispseg export, or a run")
    try:
        declared, actual = checksums(path)
        if declared not in ("", actual):
            raise CrispsegError(f"{path} or its .bin is damaged or of another export (checksums differ); restore them")
        model = ExportedModel(*OPENERS[backend](path), path, backend)
        check_output(model)
        return model
    except CrispsegError:
        raise
    except Exception as error:  # runtimes raise almost anything for damaged or foreign files
        raise CrispsegError(f"{path} is not from crispseg export ({one_line(error):.200}); export it again") from None


def check_output(model: ExportedModel) -> None:
    """Raise a CrispsegError if the output of a file has another size than its metadata state."""
    sides = model.size or (MIN_SIDE, MIN_SIDE)
    size = tuple(model(torch.zeros(1, model.info.in_chans, *sides)).shape)
    expected = (1, *sides) if model.labels_only else (1, model.info.num_classes, *sides)
    if size != expected:
        raise CrispsegError(f"{model.path} has an output {size}, but its metadata state {expected}; export it again")


def checksums(path: Path) -> tuple[str, str]:
    """Return the `CHECKSUM` in an exported file, or an empty text, and the one of its content."""
    content = path.read_bytes()
    checksum = CHECKSUM.search(content)
    digest = hashlib.sha256(content.replace(checksum[1], UNSEALED.encode()) if checksum else content)
    if path.suffix.lower() == ".xml":
        digest.update(regular_file(path.with_suffix(".bin")).read_bytes())
    return checksum[1].decode() if checksum else "", digest.hexdigest()


def seal(path: Path) -> None:
    """Replace `UNSEALED` in the metadata of a file by its checksum."""
    digest = checksums(path)[1].encode()
    path.write_bytes(CHECKSUM.sub(lambda match: match[0][: -len(digest)] + digest, path.read_bytes()))


def open_onnx(path: Path) -> tuple[Run, str]:
    """Return a function that runs a file in ONNX Runtime, and its metadata as JSON."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised and need not be printed
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.contiguous().numpy()})[0])

    return run, session.get_modelmeta().custom_metadata_map.get(METADATA, NO_METADATA)


def open_openvino(path: Path) -> tuple[Run, str]:
    """Return a function that runs an OpenVINO or ONNX file in OpenVINO, and its metadata as JSON."""
    if first_process("openvino") != os.getpid():
        raise CrispsegError(f"{path} cannot run in a process that was forked after OpenVINO's first use; {SPAWN}")
    core = openvino_core()
    model = core.read_model(path)
    if path.suffix.lower() == ".onnx":
        import onnx

        props = onnx.load(path, load_external_data=False).metadata_props
        metadata = {prop.key: prop.value for prop in props}.get(METADATA, NO_METADATA)
    else:
        metadata = model.get_rt_info([METADATA]).value if model.has_rt_info([METADATA]) else NO_METADATA
    # Otherwise OpenVINO would use bfloat16 on processors that support it, whatever the file is certified for.
    in_bf16 = json.loads(metadata).get("precision") == "bf16"
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if in_bf16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "CPU_RUNTIME_CACHE_CAPACITY": OPENVINO_CACHE,
    }
    compiled = core.compile_model(model, "CPU", options)
    idle = deque[Any]()  # a request holds the output of one image, so that threads need one each

    def run(images: Tensor) -> Tensor:
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        output = torch.from_numpy(request.infer([images.contiguous().numpy()], share_inputs=True)[0])
        idle.append(request)
        return output

    return run, metadata


def open_executorch(path: Path) -> tuple[Run, str]:
    """Return a function that runs a file of one image in ExecuTorch, and its metadata as JSON."""
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    portable_lib._unsafe_reset_threadpool(torch.get_num_threads())
    program = Runtime.get().load_program(path)
    named = program.load_method(METADATA) if METADATA in program.method_names else None
    method = program.load_method("forward")

    def run(images: Tensor) -> Tensor:
        output: Tensor = method.execute([images.contiguous()])[0]
        return output.clone()  # the next call overwrites its memory

    return run, named.execute([])[0] if named else NO_METADATA


OPENERS = {"onnxruntime": open_onnx, "openvino": open_openvino, "executorch": open_executorch}
