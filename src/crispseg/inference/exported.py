"""Files that `crispseg export` wrote, run as models on the CPU."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from crispseg.decoders import Decoded
from crispseg.errors import CrispsegError, did_you_mean, one_line
from crispseg.inference.programs import check_program
from crispseg.models import ModelInfo, SegmentationModel
from crispseg.models.base import Coarse, Outputs

METADATA = "crispseg"
"""Key of the metadata in an ONNX or OpenVINO file; with `.json`, name of the extra file in a torch.export file."""
NO_METADATA = "null"
"""Of a file that another tool has made."""

Run: TypeAlias = Callable[[Tensor], Tensor]
"""Images `(N, C, H, W)` → logits `(N, num_classes, H, W)`, on the CPU."""
Precision: TypeAlias = Literal["fp32", "bf16", "int8"]
Backend: TypeAlias = Literal["auto", "torch", "onnxruntime", "openvino"]

RUNS = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",), ".pt2": ("torch",)}
"""What runs the files of a suffix, the usual one first."""
_TENSORS_ALONE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
EXTRAS = {"onnxruntime": "export", "openvino": "openvino"}


class ExportedModel(nn.Module):
    """A file of `crispseg export` in the place of a `SegmentationModel`: it predicts, and holds no weights to change.

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
        record = _record(metadata, path)
        self.refines = bool(record.get("options", {}).get("refine"))
        self.bytes_per_pixel: float | None = record.get("bytes_per_pixel")
        fields = {key: record[key] for key in ("format_version", *ModelInfo.__dataclass_fields__) if key in record}
        self.info = ModelInfo.parse(json.dumps(fields), path)

    def check_use(self, device: torch.device, bf16: bool, whole: bool) -> None:
        """Make sure that the file can be used in this way.

        Args:
            device: where.
            bf16: whether to compute in bfloat16.
            whole: whether images are seen whole and once.

        Raises:
            CrispsegError: another device than the CPU; bfloat16, which is a choice of the export; or logits that are to
                be averaged before they are refined, which the file does not give.
        """
        if device.type != "cpu":
            raise CrispsegError(f"{self.path} runs on the CPU, not on '{device}'; give the run itself, or device cpu")
        if bf16:
            raise CrispsegError(f"{self.path} has its own precision; leave bf16 out, or export with --precision bf16")
        if self.refines and not whole:
            raise CrispsegError(f"{self.path} refines its logits, and has protocol whole only; give the run itself")

    def forward(self, images: Tensor) -> Tensor:
        """Images `(N, C, H, W)` → logits `(N, num_classes, H, W)` float32."""
        return self.run(images)

    def coarse_logits(self, images: Tensor) -> Tensor:
        """The same: files hold the whole way to the images' size."""
        return self.run(images)

    def coarse(self, images: Tensor) -> Coarse:
        """The same, in the form of `SegmentationModel.coarse`."""
        logits = self.run(images)
        return Coarse(logits, Decoded(logits, (), None))

    def outputs(self, images: Tensor) -> Outputs:
        """The logits, and nothing else."""
        return Outputs(self.run(images))

    def padded(self, images: Tensor) -> Tensor:
        """The images as they are; what pads is in the file."""
        return images


Network: TypeAlias = SegmentationModel | ExportedModel


def open_network(source: str | Path, backend: Backend = "auto") -> Network:
    """A file of `crispseg export`, or what `SegmentationModel.from_pretrained` takes.

    Args:
        source: path or name.
        backend: what runs it; by default ONNX Runtime for .onnx, OpenVINO for .xml, and PyTorch for all else.

    Raises:
        CrispsegError: there is nothing of that name, it is damaged, or the backend is unknown, is not installed or does
            not run such files.
    """
    path, exported = Path(source), is_exported(source)
    known = RUNS[path.suffix.lower()] if exported else ("torch",)
    chosen = known[0] if backend == "auto" else backend
    if backend not in ("auto", "torch", *EXTRAS):
        raise CrispsegError(f"unknown backend '{backend}'{did_you_mean(backend, ['auto', 'torch', *EXTRAS])}")
    if chosen not in known:
        remedy = f"leave backend out, or give a file of crispseg export --format {chosen.removesuffix('runtime')}"
        raise CrispsegError(f"{source} is run by {' or '.join(known)}, not by {chosen}; {remedy}")
    if not exported:
        return SegmentationModel.from_pretrained(source)
    if chosen in EXTRAS and importlib.util.find_spec(chosen) is None:
        raise CrispsegError(f"{source} needs {chosen}; pip install 'crispseg[{EXTRAS[chosen]}]'")
    if not path.is_file():
        raise CrispsegError(f"{source} does not exist; give a file of crispseg export, or a run")
    try:
        run, metadata = OPENERS[chosen](path)
        return ExportedModel(run, metadata, path)
    except CrispsegError:
        raise
    except Exception as error:  # what runs files raises almost anything for one that is damaged or not of crispseg
        raise CrispsegError(f"{path} is no file of crispseg export ({one_line(error):.200}); export it again") from None


def _record(metadata: str, path: Path) -> dict[str, Any]:
    """What a file says of its model.

    Raises:
        CrispsegError: nothing, as another tool made it.
    """
    record = json.loads(metadata)
    if not isinstance(record, dict):
        raise CrispsegError(f"{path} says nothing of a model; give a file that crispseg export made")
    return record


def is_exported(source: str | Path) -> bool:
    """Whether a source is named as a file of `crispseg export`; a folder never is."""
    return Path(source).suffix.lower() in RUNS and not Path(source).is_dir()


def open_onnx(path: Path) -> tuple[Run, str]:
    """Run an exported file in ONNX Runtime on the CPU; also its metadata, as JSON."""
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
    """OpenVINO, once for the process and for ever.

    Each `openvino.Core` gives the thread another stack for signals and takes it away when it ends. Of two that do not
    end in the opposite order, a stack stays that is freed, and the next signal, such as the end of a child, ends the
    process.
    """
    import openvino

    return openvino.Core()


def open_openvino(path: Path) -> tuple[Run, str]:
    """Run an exported file, OpenVINO's or ONNX, in OpenVINO on the CPU; also its metadata, as JSON."""
    core = openvino_core()
    model = core.read_model(path)
    if path.suffix.lower() == ".onnx":
        import onnx

        props = onnx.load(path, load_external_data=False).metadata_props
        metadata = next((each.value for each in props if each.key == METADATA), NO_METADATA)
    else:
        metadata = model.get_rt_info([METADATA]).value if model.has_rt_info([METADATA]) else NO_METADATA
    # Where the processor has bfloat16, OpenVINO would otherwise compute in it whatever the file is certified for.
    precision = "bf16" if _record(metadata, path).get("precision") == "bf16" else "f32"
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }
    compiled = core.compile_model(model, "CPU", options)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(compiled([images.contiguous().numpy()])[0])

    return run, metadata


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """In the block PyTorch unpickles tensors only, where torch.export would try again with any object."""
    before = os.environ.get(_TENSORS_ALONE)
    os.environ[_TENSORS_ALONE] = "1"
    try:
        yield
    finally:
        os.environ.pop(_TENSORS_ALONE)
        if before is not None:
            os.environ[_TENSORS_ALONE] = before


def open_torch(path: Path) -> tuple[Run, str]:
    """Run an exported file in PyTorch on the CPU; also its metadata, as JSON."""
    extra = {f"{METADATA}.json": ""}
    check_program(path)
    try:
        with _tensors_alone():
            module = torch.export.load(path, extra_files=extra).module()
    except pickle.UnpicklingError:
        raise CrispsegError(f"{path} holds more than tensors, which might run code; export the model anew") from None
    return module.forward, extra[f"{METADATA}.json"] or NO_METADATA


OPENERS: dict[str, Callable[[Path], tuple[Run, str]]] = {
    "onnxruntime": open_onnx,
    "openvino": open_openvino,
    "torch": open_torch,
}
