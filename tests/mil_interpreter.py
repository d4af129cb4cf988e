"""Core ML's ML programs computed by PyTorch, as the documentation of each operator defines it, since macOS is needed to
run them otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Program:
    """A saved `.mlpackage` with the `predict` of `coremltools.models.MLModel`."""

    def __init__(self, path: str | Path, **_: Any) -> None:
        from coremltools.converters.mil.frontend.milproto.load import load
        from coremltools.models import MLModel

        self.spec = MLModel(str(path), skip_model_load=True).get_spec()
        weights = Path(path) / "Data/com.apple.CoreML/weights"
        self.main = load(self.spec, self.spec.specificationVersion, str(weights)).functions["main"]

    def operators(self) -> set[str]:
        """The kinds of operators, without constants."""
        return {op.op_type for op in self.main.operations if op.op_type != "const"}

    def predict(self, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = {name: torch.from_numpy(value) for name, value in images.items()}

        def value_of(given: Any) -> Any:
            if isinstance(given, (list, tuple)):
                return [value_of(each) for each in given]
            if given is None or given.name in values:
                return given and values[given.name]
            constant = given.val
            many_floats = isinstance(constant, np.ndarray) and constant.dtype.kind == "f"
            return torch.from_numpy(constant.copy()) if many_floats else constant

        for op in self.main.operations:
            if op.op_type == "const":
                continue
            given = {name: value_of(each) for name, each in op.inputs.items()}
            results = OPERATORS[op.op_type](**{name: each for name, each in given.items() if each is not None})
            for output, result in zip(op.outputs, results if isinstance(results, tuple) else (results,), strict=True):
                assert tuple(result.shape) == tuple(output.shape), op
                values[output.name] = result
        return {each.name: values[each.name].numpy() for each in self.main.outputs}


def conv(
    x: Tensor,
    weight: Tensor,
    pad_type: str,
    strides: Any,
    dilations: Any,
    groups: Any,
    pad: Any = None,
    bias: Any = None,
) -> Tensor:
    top, bottom, left, right = pad if pad_type == "custom" else (0, 0, 0, 0)
    assert pad_type in ("custom", "valid")
    x = F.pad(x, (int(left), int(right), int(top), int(bottom)))
    return F.conv2d(x, weight, bias, tuple(map(int, strides)), 0, tuple(map(int, dilations)), int(groups))


def padded(x: Tensor, pad: Any, mode: str, constant_val: Any) -> Tensor:
    pairs = [(int(first), int(last)) for first, last in zip(pad[::2], pad[1::2], strict=True)]
    flat = [amount for pair in reversed(pairs) for amount in pair]
    return F.pad(x, flat, mode, float(constant_val)) if mode == "constant" else F.pad(x, flat, mode)


def slice_by_index(
    x: Tensor,
    begin: Any,
    end: Any,
    stride: Any = None,
    begin_mask: Any = None,
    end_mask: Any = None,
    squeeze_mask: Any = None,
) -> Tensor:
    count = x.ndim
    strides = [1] * count if stride is None else stride
    masks = [[False] * count if mask is None else mask for mask in (begin_mask, end_mask, squeeze_mask)]
    parts = (
        int(first) if alone else slice(None if from_start else int(first), None if to_end else int(last), int(step))
        for first, last, step, from_start, to_end, alone in zip(begin, end, strides, *masks, strict=True)
    )
    return x[tuple(parts)]


def upsample_bilinear(
    x: Tensor, scale_factor_height: Any, scale_factor_width: Any, align_corners: Any, half_pixel_centers: Any = None
) -> Tensor:
    assert half_pixel_centers is None or half_pixel_centers != align_corners
    size = [
        int(side * factor) for side, factor in zip(x.shape[2:], (scale_factor_height, scale_factor_width), strict=True)
    ]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=bool(align_corners))


def resample(
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    coordinates_mode: str,
    align_corners: Any,
    **_: Any,
) -> Tensor:
    assert coordinates_mode == "normalized_minus_one_to_one"
    padding = {"border": "border", "constant": "zeros"}[padding_mode]
    return F.grid_sample(x, coordinates, sampling_mode, padding, bool(align_corners))


OPERATORS: dict[str, Any] = {
    "conv": conv,
    "pad": padded,
    "slice_by_index": slice_by_index,
    "upsample_bilinear": upsample_bilinear,
    "resample": resample,
    "silu": lambda x: F.silu(x),
    "relu": lambda x: F.relu(x),
    "sigmoid": lambda x: torch.sigmoid(x),
    "clip": lambda x, alpha, beta: x.clamp(float(alpha), float(beta)),
    "mul": lambda x, y: x * y,
    "matmul": lambda x, y, transpose_x, transpose_y: (x.mT if transpose_x else x) @ (y.mT if transpose_y else y),
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "reduce_mean": lambda x, axes, keep_dims: x.mean(tuple(map(int, axes)), bool(keep_dims)),
    "reduce_max": lambda x, axes, keep_dims: x.amax(tuple(map(int, axes)), bool(keep_dims)),
    "reduce_argmax": lambda x, axis, keep_dims, **_: x.argmax(int(axis), bool(keep_dims)).int(),
    "reshape": lambda x, shape: x.reshape(tuple(map(int, shape))),
    "split": lambda x, axis, split_sizes, **_: x.split([int(size) for size in split_sizes], int(axis)),
    "squeeze": lambda x, axes: x.squeeze(tuple(map(int, axes))),
    "stack": lambda values, axis: torch.stack(values, int(axis)),
    "concat": lambda values, axis, **_: torch.cat(values, int(axis)),
    "batch_norm": lambda x, mean, variance, gamma, beta, epsilon: F.batch_norm(
        x, mean, variance, gamma, beta, eps=float(epsilon)
    ),
}
