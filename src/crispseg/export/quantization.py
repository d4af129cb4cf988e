"""Post-training quantisation to int8, except for layers that boundaries need in float.

These layers are found in the ONNX graph, for both ONNX Runtime and OpenVINO.
"""

from __future__ import annotations

import contextlib
import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Subset

from crispseg.compat import one_openvino_core
from crispseg.data import SegmentationDataset
from crispseg.inference.device import instruction_sets
from crispseg.inference.runtime import pixels_of
from crispseg.inference.segmenter import as_batch
from crispseg.io.parallel import spread
from crispseg.models import ModelInfo

Input: TypeAlias = Literal["float", "uint8"]
Batches: TypeAlias = DataLoader[NDArray[Any]] | Sequence[NDArray[Any]]  # of one image each

PRODUCTS = {"Conv", "ConvTranspose", "MatMul", "Gemm"}
QUANTISED = [*sorted(PRODUCTS), "Add", "MaxPool"]  # operators that ONNX Runtime computes in 8 bits
SCOPES = "pkg.torch.onnx.name_scopes"  # metadata key of a node for the modules from which it comes
LARGEST = 1024
"""Calibration images are cropped to this many pixels per side, since all levels of a network are in memory at once."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Images for int8 ranges, and others for the evaluation of a file.

    Args:
        train: images whose features set the ranges.
        held_out: labelled images for the certificate.
        images: maximum number of each, evenly spread.
        name: name of the data in the certificate.
    """

    train: SegmentationDataset
    held_out: SegmentationDataset
    images: int = 100
    name: str = ""

    def batches(self, info: ModelInfo, input: Input = "float") -> Batches:
        """Return the images of `train`, or their middle, as input of a model's file; they are read on demand."""
        dataset = self.train.with_channels(info.in_chans, info.value_range)

        def batch(sample: Any) -> NDArray[Any]:
            images = as_batch(middle(sample.image), info, torch.device("cpu"))
            return (pixels_of(images, info) if input == "uint8" else images).contiguous().numpy()

        chosen: Any = Subset(dataset, spread(len(dataset), self.images))
        return DataLoader(chosen, batch_size=None, collate_fn=batch)


def middle(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Crop an image (H, W, C) to its middle of at most `LARGEST` pixels per side."""
    top, left = (max(0, side - LARGEST) // 2 for side in image.shape[:2])
    return image[top : top + LARGEST, left : left + LARGEST]


def in_float(graph: Any, decoder: bool) -> list[str]:
    """Return names of ONNX nodes that stay in float; `decoder` includes all nodes outside the backbone.

    They include the last products before sampling coordinates, softmax or logits, and all nodes in between: flows,
    offsets, attention and the classifier. Steps of 1 / 256 of their range would be visible.
    """
    producers: dict[str, Any] = {}
    for node in graph.node:
        producers |= dict.fromkeys(node.output, node)
    values = _values_in_float(graph, producers)
    names: set[str] = set()
    while values:
        node = producers.get(values.pop())
        if node is None or node.name in names or node.op_type == "Shape" or _samples(node, producers):
            continue
        names.add(node.name)
        if node.op_type not in PRODUCTS:
            values += node.input
    if decoder:
        names |= {node.name for node in graph.node if not _is_of_backbone(node)}
    return sorted(names)


def _is_of_backbone(node: Any) -> bool:
    return any(entry.key == SCOPES and "backbone" in entry.value for entry in node.metadata_props)


def _values_in_float(graph: Any, producers: Mapping[str, Any]) -> list[str]:
    """Return the names of coordinates, inputs of a softmax and outputs of the graph."""
    values = [output.name for output in graph.output]
    for node in graph.node:
        if _samples(node, producers):
            values.append(node.input[1])
        elif node.op_type == "Softmax":
            values.append(node.input[0])
    return values


def _samples(node: Any, producers: Mapping[str, Any]) -> bool:
    """Return whether an ONNX node samples features, by `GridSample` or by gathered rows."""
    if node.op_type == "Gather":  # an index of rows was flattened; other indices are constant, or sizes
        return node.input[1] in producers and producers[node.input[1]].op_type == "Reshape"
    return bool(node.op_type == "GridSample")


def sums_overflow() -> bool:
    """Return whether this processor adds two 8-bit products in 16 bits, which is enough only for weights of 7 bits."""
    vnni = torch.cpu._is_vnni_supported() or "avx_vnni" in instruction_sets()  # the first is for AVX-512 only
    return platform.machine() in ("x86_64", "AMD64") and not vnni


def quantize_onnx(source: Path, target: Path, batches: Batches, decoder: bool) -> None:
    """Quantise an ONNX file with ONNX Runtime: weights by channel, activations by the range of all batches."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = ({"images": batch} for batch in batches)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self.batches, None)

    quantize_static(
        source,
        target,
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,  # processors multiply it with signed weights
        weight_type=QuantType.QInt8,
        reduce_range=sums_overflow(),
        op_types_to_quantize=QUANTISED,
        nodes_to_exclude=in_float(onnx.load(source).graph, decoder),
    )


def quantize_openvino(source: Path, batches: Batches, decoder: bool) -> Any:
    """Quantise an ONNX file to an OpenVINO model with NNCF, which also corrects the biases."""
    import nncf
    import onnx
    from nncf.quantization.advanced_parameters import OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    names = in_float(onnx.load(source, load_external_data=False).graph, decoder)
    names += [f"{name}/WithoutBiases" for name in names]  # OpenVINO's name for a product with a bias
    with contextlib.redirect_stdout(io.StringIO()), one_openvino_core() as core:  # NNCF draws progress bars
        return nncf.quantize(
            core.read_model(source),
            nncf.Dataset(batches),
            target_device=nncf.TargetDevice.CPU,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # The default, the mean of image ranges, would clip images that are brighter than most.
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                # The default reduces the weights of the first layer alone, and other layers overflow too.
                overflow_fix=OverflowFix.ENABLE if sums_overflow() else OverflowFix.FIRST_LAYER,
            ),
            ignored_scope=nncf.IgnoredScope(names=names, validate=False),
        )
