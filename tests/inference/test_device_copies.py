"""Bytes copied from a device, and kernels launched on it, counted on a simulated device."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from training_runs import varied

from crispseg import Segmenter
from crispseg.inference.segmenter import as_batch

CLASSES = 19
CPU = torch.device("cpu")
COPY = torch.ops.aten.copy_.default


class DeviceTensor(Tensor):
    """Tensor on the simulated device, with its values on the CPU."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> Any:
        layout = {"strides": values.stride(), "dtype": values.dtype, "device": "meta"}
        made = Tensor._make_wrapper_subclass(cls, values.shape, **layout)
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("a tensor of the simulated device is used without it")


class SimulatedDevice(TorchDispatchMode):
    """Device named `meta`, which computes on the CPU, and counts kernels and the bytes copied to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.copied = self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._has_compatible_shallow_copy_type.default:
            return False  # a module that is moved gets new parameters
        options = dict(kwargs or {})
        target = options.get("device")
        if target is not None:
            options["device"] = CPU
        on_device = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, DeviceTensor)]
        arguments, keywords = tree_map_only(DeviceTensor, lambda tensor: tensor.values, (args, options))
        result = func(*arguments, **keywords)
        if not on_device and target in (None, CPU):
            return result
        is_number = not isinstance(tree_leaves(result)[0], Tensor)
        if target == CPU or is_number or (func is COPY and not isinstance(args[0], DeviceTensor)):
            self.copied += sum(getattr(leaf, "nbytes", 8) for leaf in tree_leaves(result))
            return result
        self.kernels += not func.is_view
        known = {id(tensor.values): tensor for tensor in on_device}  # results of operations in place
        return tree_map_only(Tensor, lambda values: known.get(id(values), DeviceTensor(values)), result)

    def counts(self, call: Callable[[], object]) -> tuple[int, int]:
        """Return the bytes that a call copies to the host, and its kernels."""
        before = self.copied, self.kernels
        call()
        return self.copied - before[0], self.kernels - before[1]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedDevice]:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know the device
    with torch.inference_mode(), SimulatedDevice() as simulated:
        yield simulated


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


SIZES = [("sfnet", (20, 90)), ("crisp", (70, 90)), ("unept", (70, 90))]


@pytest.mark.parametrize(
    ("name", "size"), [*SIZES, pytest.param("crisp", (1024, 2048), marks=pytest.mark.slow, id="crisp-street")]
)
def test_only_labels_are_copied_until_probabilities_are_requested(
    name: str, size: tuple[int, int], device: SimulatedDevice
) -> None:
    model = varied(name, CLASSES, width=16)
    segmenter, on_cpu = Segmenter(model, "meta"), Segmenter(model, "cpu")
    image, pixels = photo(*size), size[0] * size[1]
    result = segmenter(image)
    assert device.counts(lambda: segmenter(image))[0] == pixels
    assert device.counts(lambda: segmenter.labels(image))[0] == pixels
    assert device.counts(result.confidence)[0] == pixels
    assert device.counts(result.probabilities)[0] == 4 * CLASSES * pixels
    assert (result.labels == on_cpu.labels(image)).mean() > 0.999  # the simulation computes the same
    np.testing.assert_allclose(result.probabilities(), on_cpu(image).probabilities(), atol=1e-4)


def test_results_of_a_stream_keep_logits_on_request(device: SimulatedDevice) -> None:
    segmenter, image = Segmenter(varied("crisp", CLASSES, width=16), "meta"), photo(96, 128)
    batch = as_batch(image, segmenter.info, segmenter.device)
    network = device.counts(lambda: segmenter._model.logits(batch))[1]
    expected = segmenter(image).probabilities()
    for keeps in (False, True):
        (result,) = segmenter.stream([image], probabilities=keeps)
        assert (device.counts(result.probabilities)[1] > network) != keeps
        np.testing.assert_array_equal(result.probabilities(), expected)
