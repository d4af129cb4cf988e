"""Models as ONNX and torch.export files that take batches and images of any size.

A file is put in place only after it ran and agreed with the model; see docs/export.md.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.fx.experimental._config as tracing
import torch.nn.functional as F
from timm.layers import padding
from torch import Tensor
from torch.export import Dim, ExportedProgram

from crispseg.errors import CrispsegError, one_line
from crispseg.files import atomic_path
from crispseg.inference.folding import fold_batch_norms
from crispseg.inference.protocols import MIN_SIDE
from crispseg.inference.segmenter import check_finite, smooth_outputs
from crispseg.models import ModelInfo, SegmentationModel

FORMAT_VERSION = 1
METADATA = "crispseg"
"""Key of the metadata in an ONNX file; with `.json`, name of the extra file in a torch.export file."""

OPSET = 19
EXAMPLE = (2, 97, 130)
"""Images, height and width that a model is traced with: no two sizes in it or in its features are equal by chance."""
CHECKED = ((1, 32, 57), (2, 97, 160), (1, 471, 630))
"""Images, height and width at which a file is compared with its model."""

TOLERANCE = 1e-3
"""Largest absolute difference of a logit; beyond logits of `LARGE`, relative to them, as float32 is no more exact."""
LARGE = 100.0
SAME_LABELS = 0.999
DECIDED_OTHERWISE = 0.001
"""Share of the pixels of a refined model whose logits need not agree: where two directions, or boundary and none, are
equal but for rounding, a pixel takes the logits of another one."""

Run = Callable[[Tensor], Tensor]
"""Images `(N, C, H, W)` → logits `(N, num_classes, H, W)`, on the CPU."""


class Comparison(NamedTuple):
    """A file's logits beside the model's, at one size."""

    size: tuple[int, int, int]
    """Images, height, width."""
    largest: float
    """The largest of the model's logits, absolute."""
    difference: float
    """The largest of any logit, absolute; of a refined model, without the pixels that are `DECIDED_OTHERWISE`."""
    same_labels: float
    """Share of pixels, 0 to 1."""

    @property
    def agrees(self) -> bool:
        """Whether difference and labels are within the tolerance; never with values that are not finite."""
        return self.difference <= TOLERANCE * max(1.0, self.largest / LARGE) and self.same_labels >= SAME_LABELS

    def __str__(self) -> str:
        size = "×".join(map(str, self.size))
        return (
            f"{size}: largest difference {self.difference:.1e} in logits of up to {self.largest:.3g}, "
            f"{100 * self.same_labels:.3f} % equal labels"
        )


def export_onnx(model: SegmentationModel, path: str | Path) -> list[Comparison]:
    """Write a single ONNX file: `images` (N, C, H, W), normalised float32 → `logits` (N, num_classes, H, W).

    Batch norms are folded into their convolutions. The model stays as it is.

    Returns:
        How the file, run by ONNX Runtime, compares with the model at each size of `CHECKED`.

    Raises:
        CrispsegError: `path` does not end in .onnx or cannot be written; a package of the extra `export` is missing;
            the model cannot be exported; or the file's logits are not the model's.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise CrispsegError(f"ONNX export needs {' and '.join(missing)}; pip install 'crispseg[export]'")
    return _export(model, Path(path), ".onnx", write_onnx, open_onnx)


def export_torch(model: SegmentationModel, path: str | Path) -> list[Comparison]:
    """Write a file for `torch.export.load`; else as `export_onnx`, with the suffix .pt2 and no further packages."""
    return _export(model, Path(path), ".pt2", write_torch, open_torch)


EXPORTERS: dict[str, Callable[[SegmentationModel, str | Path], list[Comparison]]] = {
    "onnx": export_onnx,
    "torch_export": export_torch,
}


def _export(
    model: SegmentationModel,
    path: Path,
    suffix: str,
    write: Callable[[ExportedProgram, Path, str], None],
    open_file: Callable[[Path], tuple[Run, str]],
) -> list[Comparison]:
    if path.suffix != suffix:
        name = path.with_suffix(suffix).name if path.name else f"model{suffix}"
        raise CrispsegError(f"{path} does not end in {suffix}; name it {name}")
    check_finite(model)
    title = f"{model.info.name} on {model.info.backbone}"
    with atomic_path(path) as temporary:
        try:
            write(trace(model), temporary, describe(model.info))
            run, _ = open_file(temporary)
            comparisons = [compare(run, model, size) for size in CHECKED]
        except Exception as error:  # the exporters, and what runs their files, raise almost anything
            reason = f"{type(error).__name__}: {one_line(error)}".replace(str(temporary), path.name)
            raise CrispsegError(f"{title} cannot be exported to {path}: {reason:.300}") from error
        for comparison in comparisons:
            if not comparison.agrees:
                raise CrispsegError(f"{title} exported to {path} computes something else and is removed; {comparison}")
    return comparisons


def trace(model: SegmentationModel) -> ExportedProgram:
    """The folded model's forward pass as a graph in which batch, height and width are symbols."""
    plain = _reference(model)
    plain.auxiliary_heads = None
    folded = fold_batch_norms(plain, smooth_images((1, 64, 64), model.info.in_chans), smooth_outputs)
    # A lower bound of 2 is PyTorch's way to say "one or more": it treats 0 and 1 apart, and checks neither.
    dynamic = {"images": {0: Dim("batch", min=2), 2: Dim("height", min=MIN_SIDE), 3: Dim("width", min=MIN_SIDE)}}
    images = smooth_images(EXAMPLE, model.info.in_chans)
    with _exporting():
        program = torch.export.export(folded, (images,), dynamic_shapes=dynamic, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def write_onnx(program: ExportedProgram, path: Path, metadata: str) -> None:
    """Write a graph of `trace`."""
    names = {"images": {0: "batch", 2: "height", 3: "width"}}
    io: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"], "dynamic_shapes": names}
    with _exporting():
        written = torch.onnx.export(program, (), dynamo=True, opset_version=OPSET, verbose=False, **io)
    assert written is not None
    written.model.metadata_props[METADATA] = metadata
    written.save(path, external_data=False)


def open_onnx(path: Path) -> tuple[Run, str]:
    """Run an exported file in ONNX Runtime on the CPU; also its metadata, as JSON."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised; do not print them too
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return run, session.get_modelmeta().custom_metadata_map[METADATA]


def write_torch(program: ExportedProgram, path: Path, metadata: str) -> None:
    """Write a graph of `trace`."""
    torch.export.save(program, path, extra_files={f"{METADATA}.json": metadata})


def open_torch(path: Path) -> tuple[Run, str]:
    """Run an exported file in PyTorch on the CPU; also its metadata, as JSON."""
    extra = {f"{METADATA}.json": ""}
    module = torch.export.load(path, extra_files=extra).module()
    return module, extra[f"{METADATA}.json"]


def describe(info: ModelInfo) -> str:
    """What is needed to use an exported file, as JSON: that of `config.json` without the recipe of the training."""
    from crispseg import __version__

    labels = info.label_set()
    channels = "RGB" if info.in_chans == 3 else f"{info.in_chans} channels"
    deep = f"; 16-bit values are clipped to {list(info.value_range)}, which is 0 to 1" if info.value_range else ""
    record: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "crispseg_version": __version__,
        **asdict(info),
        "class_names": labels.names,
        "palette": labels.palette,
        "images": f"float32 (N, {info.in_chans}, H, W), H and W at least {MIN_SIDE}: "
        f"({channels} in 0 to 1 - mean) / std{deep}",
        "logits": f"float32 (N, {info.num_classes}, H, W), the label of a pixel is the index of the largest",
    }
    del record["recipe"]
    return json.dumps(record)


@torch.inference_mode()
def compare(run: Run, model: SegmentationModel, size: tuple[int, int, int]) -> Comparison:
    """Compare what a file computes with what the model computes, in float32, on random smooth images."""
    images = smooth_images(size, model.info.in_chans)
    expected, logits = _reference(model)(images), run(images)
    same = (logits.argmax(1) == expected.argmax(1)).float().mean().item()
    differences = (logits - expected).abs().amax(1).flatten()  # (N · H · W,)
    left_out = int(DECIDED_OTHERWISE * differences.numel()) if model.refiner else 0
    difference = differences.kthvalue(differences.numel() - left_out).values.item()  # the largest of the rest
    return Comparison(size, expected.abs().max().item(), difference, same)


def smooth_images(size: tuple[int, int, int], in_chans: int) -> Tensor:
    """Blobs of some 16 pixels with a little noise, of the spread of normalised images, always the same."""
    count, height, width = size
    random = torch.Generator().manual_seed(0)
    blobs = torch.randn(count, in_chans, height // 16 + 2, width // 16 + 2, generator=random)
    blobs = F.interpolate(blobs, size=(height, width), mode="bicubic", align_corners=True)
    return blobs + 0.1 * torch.randn(blobs.shape, generator=random)


def _reference(model: SegmentationModel) -> SegmentationModel:
    """A copy in the plainest form: float32, on the CPU, in eval mode, without gradients."""
    plain = copy.deepcopy(model).eval().requires_grad_(False)
    return plain.to("cpu", torch.float32).to(memory_format=torch.contiguous_format)


@contextmanager
def _exporting() -> Iterator[None]:
    """PyTorch and timm as an export needs them, without chatter about the exporters' own insides."""
    before, silenced = padding.get_same_padding, logging.root.manager.disable
    padding.get_same_padding = _same_padding
    logging.disable(logging.WARNING)
    try:
        # Else the graph would refuse features of one pixel.
        with tracing.patch(backed_size_oblivious=True), warnings.catch_warnings():  # type: ignore[attr-defined]
            warnings.simplefilter("ignore")
            yield
    finally:
        padding.get_same_padding = before
        logging.disable(silenced)


def _same_padding(length: Any, kernel_size: int, stride: int, dilation: int) -> Any:
    """timm's "same" padding, of its tf_ networks, in whole numbers: `math.ceil` would ask for the example's size."""
    outputs, reach = (length + stride - 1) // stride, (kernel_size - 1) * dilation + 1
    missing = (outputs - 1) * stride + reach - length
    # With a maximum in them, sizes would grow into formulas that the tracer no longer understands.
    return missing if reach >= stride else torch.sym_max(missing, 0)
