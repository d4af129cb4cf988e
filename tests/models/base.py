"""What every model must do: a new one is a subclass of `ModelTester` of a few lines. test_registry.py has what models
have in common."""

import copy
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from crispseg import SegmentationModel, create_model, from_pretrained, record
from crispseg.data import SegmentationDataset
from crispseg.data.dataset import Sample
from crispseg.export.quantization import Calibration
from crispseg.io.arrays import Normalize
from crispseg.labels import LabelSet
from crispseg.nn import DeformableAttention

NUM_CLASSES = 5
TapShape = tuple[int, ...] | Callable[[int, int], tuple[int, ...]]


class ModelTester:
    name: ClassVar[str]
    backbone: ClassVar[str] = "test_efficientnet"  # 82 thousand parameters, batch norms, no zero at initialisation
    options: ClassVar[Mapping[str, Any]] = {"width": 16}
    stride: ClassVar[int] = 4
    """Stride of `logits`."""
    auxiliary_maps: ClassVar[int] = 3
    tapped_size: ClassVar = (96, 160)  # other sizes are padded
    taps: ClassVar[Mapping[str, TapShape]] = {}
    """What `record` sees: channels and stride, all of `(C, H, W)`, or a function of the image's height and width."""
    zero_gradients: ClassVar[frozenset[str]] = frozenset()
    """Parameters whose gradient is exactly zero at initialisation."""

    @classmethod
    def build(cls, **extra: Any) -> SegmentationModel:
        options: dict[str, Any] = {
            "num_classes": NUM_CLASSES,
            "backbone": cls.backbone,
            "inference_scale": 1.0,
            **cls.options,
            **extra,
        }
        return create_model(cls.name, **options)

    @classmethod
    def build_lively(cls, **extra: Any) -> SegmentationModel:
        """In eval mode, with batch statistics of data, so that features do not fade from layer to layer."""
        model = cls.build(**extra)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            model.train()(torch.randn(4, model.info.in_chans, 128, 128))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        nn.init.zeros_(model.classifier.bias)
        return enliven(model).eval()

    @classmethod
    def build_learned(cls, **extra: Any) -> SegmentationModel:
        """A lively one that has learned coloured squares for a second, so that its labels are no chance."""
        model, data = cls.build_lively(**extra).train(), Squares(16, 2)
        samples = [data[index] for index in range(len(data))]
        normalize = Normalize(model.info.mean, model.info.std)
        images = torch.stack([normalize(torch.from_numpy(sample.image).permute(2, 0, 1)) for sample in samples])
        labels = torch.stack([torch.from_numpy(sample.labels) for sample in samples]).long()
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for step in range(24):
            part = slice(8 * (step % 2), 8 * (step % 2) + 8)
            loss = nn.functional.cross_entropy(model(images[part]), labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.eval()

    @classmethod
    @cache
    def reference(cls) -> SegmentationModel:
        """One lively model for all tests that do not change it."""
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return cls.build_lively().requires_grad_(False)

    def test_logits_have_the_size_of_the_image(self) -> None:
        model = self.reference()
        for batch, height, width in ((1, 32, 32), (2, 33, 57), (1, 97, 160), (1, 64, 39), (1, 47, 128)):
            images = torch.randn(batch, 3, height, width)
            logits, outputs = model(images), model.outputs(images)
            assert logits.shape == (batch, NUM_CLASSES, height, width)
            assert logits.dtype == torch.float32 and logits.isfinite().all()
            assert torch.equal(outputs.logits, logits) and outputs.auxiliary is None
            coarse = model.logits(images)
            assert coarse.shape == (batch, NUM_CLASSES, -(-height // self.stride), -(-width // self.stride))

    def test_neither_other_images_nor_the_layout_change_logits(self) -> None:
        images = torch.randn(2, 3, 97, 64)
        alone = torch.cat([self.reference()(image[None]) for image in images])
        assert not torch.allclose(alone[0], alone[1], atol=1e-2), "a model that ignores its input would pass"
        torch.testing.assert_close(self.reference()(images), alone, atol=1e-4, rtol=0)
        model = copy.deepcopy(self.reference()).to(memory_format=torch.channels_last)
        logits = model(images.to(memory_format=torch.channels_last))
        torch.testing.assert_close(logits, alone, atol=1e-4, rtol=0)

    def test_bfloat16_is_close_to_float32(self) -> None:
        self.check_bfloat16(self.reference(), error=0.05, same_labels=0.97)

    def check_bfloat16(self, model: SegmentationModel, *, error: float, same_labels: float) -> None:
        """Logits on noise differ by less than this part of their spread; more than this part of the labels agree."""
        images = torch.randn(2, 3, 97, 160)
        with torch.no_grad():
            expected = model(images)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(images)
        assert logits.is_floating_point()
        assert (logits.float() - expected).square().mean().sqrt() / expected.std() < error
        assert (logits.argmax(1) == expected.argmax(1)).float().mean() > same_labels
        assert expected.argmax(1).unique().numel() > 1, "agreement on a single class would prove nothing"

    @pytest.mark.parametrize(("batch", "auxiliary", "autocast"), [(1, True, True), (2, False, False)])
    def test_every_parameter_receives_a_gradient(self, batch: int, auxiliary: bool, autocast: bool) -> None:
        model = self.build(auxiliary=auxiliary).train()
        auxiliary_logits = self.check_gradients(model, torch.randn(batch, 3, 65, 97), autocast, self.zero_gradients)
        assert auxiliary_logits == (self.auxiliary_maps if auxiliary else 0)

    def check_gradients(
        self, model: SegmentationModel, images: Tensor, autocast: bool, zero_gradients: frozenset[str]
    ) -> int:
        """Every parameter has a finite gradient, and these ones alone one of exactly zero; gives the auxiliary maps."""
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            outputs = model.outputs(images)
        maps = [outputs.logits, *(outputs.auxiliary or ())]
        assert {tuple(output.shape) for output in maps} == {(len(images), NUM_CLASSES, *images.shape[-2:])}
        maps += [output for output in (outputs.boundary, outputs.direction) if output is not None]
        torch.stack([(output.float() * torch.randn_like(output)).sum() for output in maps]).sum().backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        assert [name for name, gradient in gradients.items() if gradient is None] == []
        assert [name for name, gradient in gradients.items() if not gradient.isfinite().all()] == []
        assert {name for name, gradient in gradients.items() if not gradient.any()} == zero_gradients
        return len(outputs.auxiliary or ())

    def test_record_sees_the_taps(self) -> None:
        model = self.build()
        with record(model) as seen:
            model(torch.randn(2, 3, *self.tapped_size))
        assert not any(tensor.requires_grad for tensor in seen.values())
        check_taps(seen, self.taps, self.tapped_size)

    def test_a_saved_model_predicts_the_same(self, tmp_path: Path) -> None:
        model, images = self.build_lively(auxiliary=True), torch.randn(1, 3, 33, 57)
        check_saved(model, images, tmp_path)
        assert load_file(tmp_path / "model.safetensors").keys() == self.build().state_dict().keys()

    # Options ------------------------------------------------------------------------------------------------------

    def check_option(
        self, tmp_path: Path, *, zero_gradients: frozenset[str] = frozenset(), **options: Any
    ) -> dict[str, Tensor]:
        """What every value of an option must do: any size, every gradient, saving; gives what `record` sees."""
        model = self.build_lively(**options)
        assert model(torch.randn(1, 3, 95, 64)).shape == (1, NUM_CLASSES, 95, 64)
        images = torch.randn(2, 3, 65, 97)
        with record(model) as seen, torch.no_grad():
            logits = model(images)
        assert logits.shape == (2, NUM_CLASSES, 65, 97)
        assert logits.isfinite().all()
        loaded = check_saved(model, images, tmp_path)
        built = {"backbone": loaded.info.backbone, **loaded.info.options}
        assert {key: built[key] for key in options} == options
        self.check_gradients(self.build(**options, auxiliary=True).train(), images[:1], True, zero_gradients)
        return seen


ODD = ((1, 33, 57), (2, 97, 131), (1, 65, 47))


class Squares(SegmentationDataset):
    """Images of 64 pixels made of coloured squares, whose class is told by the colour."""

    labels = LabelSet.numbered(NUM_CLASSES)

    def __init__(self, count: int, seed: int) -> None:
        self.colors = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)

    def __len__(self) -> int:
        return len(self.colors)

    def __getitem__(self, index: int) -> Sample:
        image: NDArray[np.uint8] = self.colors[index].repeat(16, 0).repeat(16, 1)
        labels = (image[..., 0] > 127).astype(np.uint8) + 2 * (image[..., 1] > 127).astype(np.uint8)
        labels[image[..., 2] > 191] = 4  # all classes are seen: one that is not makes an IoU of a single pixel
        return Sample(image, labels, str(index))


SQUARES = Calibration(Squares(8, 0), Squares(16, 1), name="squares")


def enliven(model: SegmentationModel) -> SegmentationModel:
    """Make points and weights of attention depend on the image, which they do not yet at initialisation."""
    for part in model.modules():
        if isinstance(part, DeformableAttention):
            nn.init.normal_(part.sampling_offsets.weight, std=0.3)
            nn.init.normal_(part.attention_weights.weight, std=0.3)
    return model


def check_saved(model: SegmentationModel, images: Tensor, folder: Path) -> SegmentationModel:
    """What is loaded is the same but for training's heads."""
    model.save_pretrained(folder)
    loaded = from_pretrained(folder)
    assert not loaded.training and loaded.info == model.info
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
        assert loaded.outputs(images).auxiliary is None
    return loaded


def check_taps(seen: Mapping[str, Tensor], taps: Mapping[str, TapShape], size: tuple[int, int]) -> None:
    """Logits of two images of this size."""
    expected = {path: (2, *tap_shape(tap, *size)) for path, tap in taps.items()}
    assert {path: tuple(tensor.shape) for path, tensor in seen.items()} == expected


def patches(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two images of six coloured patches, (2, 3, *size), and their labels 0..3, which are told by the colour."""
    images = nn.functional.interpolate(torch.randn(2, 3, 2, 3), size=size, mode="nearest")
    return images, (images[:, 0] > 0).long() + 2 * (images[:, 1] > 0).long()


def tap_shape(tap: TapShape, height: int, width: int) -> tuple[int, ...]:
    """All but the first of a tap's sizes, given as `(C, H, W)`, as channels and stride, or as a function."""
    if callable(tap):
        return tap(height, width)
    if len(tap) == 3:
        return tap
    channels, stride = tap
    return channels, -(-height // stride), -(-width // stride)
