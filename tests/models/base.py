"""What every model must do. A new model is a subclass of `ModelTester` of a few lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from crispseg import CrispsegError, SegmentationModel, create_model, export, from_pretrained, list_models, record
from crispseg.counting import count_multiply_adds, count_parameters
from crispseg.models import Outputs
from crispseg.nn import BatchNorm2d

NUM_CLASSES = 5
TapShape = tuple[int, ...] | Callable[[int, int], tuple[int, ...]]
SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}


class ModelTester:
    name: ClassVar[str]
    backbone: ClassVar[str] = "test_efficientnet"  # 82 thousand parameters, batch norms, no zero at initialisation
    options: ClassVar[Mapping[str, Any]] = {"width": 16}
    stride: ClassVar[int] = 4
    """Of `coarse_logits`."""
    auxiliary_maps: ClassVar[int] = 3
    taps: ClassVar[Mapping[str, TapShape]] = {}
    """What `record` sees: channels and stride, all of `(C, H, W)`, or a function of the image's height and width."""
    single_value_norms: ClassVar[frozenset[str]] = frozenset()
    """Batch norms to which one image gives one value per channel, whatever its size."""
    zero_gradients: ClassVar[frozenset[str]] = frozenset()
    """Parameters whose gradient is exactly zero at initialisation."""
    not_exported: ClassVar[Mapping[str, str]] = {}
    """Formats of `crispseg export` that cannot hold this model, each with a phrase of the error; see docs/export.md."""
    export_options: ClassVar[Mapping[str, Any]] = {}
    """With which the model is exported, where the default would only repeat what is in its graph or another model's."""

    @classmethod
    def build(cls, **extra: Any) -> SegmentationModel:
        options = {"num_classes": NUM_CLASSES, "backbone": cls.backbone, **cls.options, **extra}
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
        return model.eval()

    @classmethod
    @cache
    def reference(cls) -> SegmentationModel:
        """One lively model for all tests that do not change it."""
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return cls.build_lively().requires_grad_(False)

    def test_is_listed(self) -> None:
        assert self.name in list_models()

    # Shapes -------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "size", [(1, 32, 32), (1, 33, 57), (1, 97, 160), (1, 471, 630), (1, 360, 480), (2, 65, 64)]
    )
    def test_logits_have_the_size_of_the_image(self, size: tuple[int, int, int]) -> None:
        self.check_logits(*size)

    @given(st.integers(1, 2), st.integers(32, 80), st.integers(32, 80))
    @settings(max_examples=12, suppress_health_check=[HealthCheck.differing_executors])
    def test_any_size_works(self, batch: int, height: int, width: int) -> None:
        self.check_logits(batch, height, width)

    def check_logits(self, batch: int, height: int, width: int) -> None:
        images = torch.randn(batch, 3, height, width)
        logits = self.reference()(images)
        assert logits.shape == (batch, NUM_CLASSES, height, width)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()
        coarse = self.reference().coarse_logits(images)
        assert coarse.shape == (batch, NUM_CLASSES, -(-height // self.stride), -(-width // self.stride))

    @pytest.mark.parametrize("size", [(31, 64), (64, 31), (1, 1)])
    @pytest.mark.parametrize("call", ["forward", "outputs", "coarse_logits"])
    def test_smaller_images_are_refused(self, call: str, size: tuple[int, int], refuses: Any) -> None:
        with refuses(f"{size[0]}×{size[1]}", "at least 32"):
            getattr(self.reference(), call)(torch.randn(1, 3, *size))

    @pytest.mark.parametrize("in_chans", [1, 4])
    def test_images_need_not_be_rgb(self, in_chans: int, tmp_path: Path) -> None:
        model = self.build(in_chans=in_chans).eval()
        assert len(model.info.mean) == len(model.info.std) == in_chans
        images = torch.randn(1, in_chans, 33, 57)
        logits = model(images)
        assert logits.shape == (1, NUM_CLASSES, 33, 57)
        model.save_pretrained(tmp_path / "model")
        assert torch.equal(from_pretrained(tmp_path / "model")(images), logits)

    # Outputs ------------------------------------------------------------------------------------------------------

    def test_outputs_hold_the_logits_of_forward(self) -> None:
        images = torch.randn(2, 3, 33, 57)
        outputs = self.reference().outputs(images)
        assert isinstance(outputs, Outputs)
        assert outputs._fields == ("logits", "unrefined", "auxiliary", "boundary", "direction")
        assert torch.equal(outputs.logits, self.reference()(images))
        assert outputs.auxiliary is None

    def test_auxiliary_logits_have_the_size_of_the_image(self) -> None:
        outputs = self.build(auxiliary=True).outputs(torch.randn(2, 3, 65, 97))
        assert isinstance(outputs.auxiliary, tuple)
        assert [logits.shape for logits in outputs.auxiliary] == [(2, NUM_CLASSES, 65, 97)] * self.auxiliary_maps

    def test_auxiliary_heads_are_for_training_only(self, tmp_path: Path) -> None:
        plain, model = self.build(), self.build(auxiliary=True).eval()
        more = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in plain.parameters())
        assert (more > 0) == (self.auxiliary_maps > 0)
        assert count_parameters(model) == count_parameters(plain)
        assert count_multiply_adds(model, 64, 64) == count_multiply_adds(plain, 64, 64)
        model.save_pretrained(tmp_path / "model")
        assert load_file(tmp_path / "model/model.safetensors").keys() == plain.state_dict().keys()
        images = torch.randn(1, 3, 64, 64)
        loaded = from_pretrained(tmp_path / "model")
        assert loaded.outputs(images).auxiliary is None
        assert torch.equal(loaded(images), model(images))

    # Numerics -----------------------------------------------------------------------------------------------------

    def test_eval_mode_is_deterministic(self) -> None:
        images = torch.randn(2, 3, 64, 96)
        assert torch.equal(self.reference()(images), self.reference()(images))

    def test_images_of_a_batch_do_not_touch_each_other(self) -> None:
        images = torch.randn(2, 3, 97, 64)
        alone = torch.cat([self.reference()(image[None]) for image in images])
        assert not torch.allclose(alone[0], alone[1], atol=1e-2), "a model that ignores its input would pass"
        torch.testing.assert_close(self.reference()(images), alone, atol=1e-4, rtol=0)

    def test_channels_last_changes_nothing(self) -> None:
        model = self.build_lively()
        images = torch.randn(2, 3, 97, 64)
        expected = model(images)
        model = model.to(memory_format=torch.channels_last)
        logits = model(images.to(memory_format=torch.channels_last))
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)

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

    # Training -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("batch", "auxiliary", "autocast"),
        [(1, False, False), (1, True, True), (2, False, True), (2, True, False)],  # every pair of the three
    )
    def test_every_parameter_receives_a_gradient(self, batch: int, auxiliary: bool, autocast: bool) -> None:
        model = self.build(auxiliary=auxiliary).train()
        self.check_gradients(model, torch.randn(batch, 3, 65, 97), autocast, self.zero_gradients)

    def test_a_pooled_single_image_leaves_the_statistics_alone(self) -> None:
        model = self.build().train()
        single: set[str] = set()
        norms = {name: module for name, module in model.named_modules() if isinstance(module, BatchNorm2d)}
        for name, norm in norms.items():

            def note(_module: nn.Module, args: tuple[Tensor], name: str = name) -> None:
                if args[0].numel() == args[0].shape[1]:
                    single.add(name)

            norm.register_forward_pre_hook(note)
        before = {name: state(norm) for name, norm in norms.items()}
        model(torch.randn(1, 3, 65, 97)).sum().backward()
        assert single == self.single_value_norms
        assert {name for name, norm in norms.items() if equal(state(norm), before[name])} == single

    def test_a_backbone_with_one_value_per_channel_says_what_to_do(self, refuses: Any) -> None:
        model = self.build().train()
        with refuses("32×32", "freeze the backbone"):
            model(torch.randn(1, 3, 32, 32))

    def test_a_frozen_backbone_stays_as_it_is(self) -> None:
        model = self.build().train()
        model.backbone.freeze()
        before, decoder_before = state(model.backbone), state(model.decoder)
        groups = model.parameter_groups()
        assert groups["backbone"] == []
        optimizer = torch.optim.SGD(groups["decoder"], lr=0.1)
        for _ in range(3):
            model.train()
            model(torch.randn(1, 3, 32, 32)).square().mean().backward()  # refused unless the backbone is frozen
            optimizer.step()
            model.eval()
        assert equal(state(model.backbone), before)
        assert not equal(state(model.decoder), decoder_before)

    def test_parameter_groups_hold_each_parameter_once(self) -> None:
        model = self.build(auxiliary=True)
        groups = model.parameter_groups()
        assert {id(p) for p in groups["backbone"]} == {id(p) for p in model.backbone.parameters()}
        together = [id(parameter) for group in groups.values() for parameter in group]
        assert sorted(together) == sorted(id(parameter) for parameter in model.parameters())

    # Looking inside and counting ----------------------------------------------------------------------------------

    def test_record_sees_the_taps(self) -> None:
        model = self.build()
        with record(model) as seen:
            model(torch.randn(2, 3, 97, 160))
        assert {path: tuple(tensor.shape) for path, tensor in seen.items()} == {
            path: (2, *tap_shape(tap, 97, 160)) for path, tap in self.taps.items()
        }
        assert not any(tensor.requires_grad for tensor in seen.values())

    def test_record_leaves_nothing_behind(self) -> None:
        model = self.build()
        with pytest.raises(CrispsegError), record(model):
            model(torch.randn(1, 3, 8, 8))
        with record(model) as seen:
            pass
        model(torch.randn(2, 3, 64, 64))
        assert seen == {}
        assert not any(module._forward_hooks for module in model.modules())

    def test_counting_leaves_the_model_as_it_is(self) -> None:
        model = self.build().train()
        before = state(model)
        assert count_multiply_adds(model, 128, 128) > 3.5 * count_multiply_adds(model, 64, 64)
        assert model.training
        assert equal(state(model), before)

    # Options ------------------------------------------------------------------------------------------------------

    def check_option(
        self,
        tmp_path: Path,
        *,
        taps: Mapping[str, TapShape] | None = None,
        zero_gradients: frozenset[str] = frozenset(),
        **options: Any,
    ) -> None:
        """What every value of an option must do: any size, every gradient, learning, saving. Lighter than all tests."""
        images = torch.randn(2, 3, 65, 97)
        for auxiliary, autocast in ((True, False), (False, True)):
            model = self.build(**options, auxiliary=auxiliary).train()
            self.check_gradients(model, images[:1], autocast, zero_gradients)
        self.check_learns(self.build(**options), (33, 57))
        model = self.build_lively(**options)
        assert model(torch.randn(1, 3, 95, 64)).shape == (1, NUM_CLASSES, 95, 64)
        with record(model) as seen:
            logits = model(images)
        assert logits.shape == (2, NUM_CLASSES, 65, 97)
        assert logits.isfinite().all()
        shapes = {path: tuple(tensor.shape[1:]) for path, tensor in seen.items()}
        expected = self.taps if taps is None else taps
        assert shapes == {path: tap_shape(tap, 65, 97) for path, tap in expected.items()}
        model.save_pretrained(tmp_path / "model")
        loaded = from_pretrained(tmp_path / "model")
        assert loaded.info == model.info
        built = {"backbone": loaded.info.backbone, **loaded.info.options}
        assert {key: built[key] for key in options} == options
        assert torch.equal(loaded(images), logits)

    def check_gradients(
        self, model: SegmentationModel, images: Tensor, autocast: bool, zero_gradients: frozenset[str]
    ) -> None:
        """Every parameter has a finite gradient, and these ones alone a gradient of exactly zero."""
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            outputs = model.outputs(images)
        maps = [outputs.logits, *(outputs.auxiliary or ())]
        assert {tuple(each.shape) for each in maps} == {(len(images), NUM_CLASSES, *images.shape[-2:])}
        maps += [each for each in (outputs.boundary, outputs.direction) if each is not None]
        torch.stack([(each.float() * torch.randn_like(each)).sum() for each in maps]).sum().backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        assert [name for name, gradient in gradients.items() if gradient is None] == []
        assert [name for name, gradient in gradients.items() if not gradient.isfinite().all()] == []
        assert {name for name, gradient in gradients.items() if not gradient.any()} == zero_gradients

    def check_learns(self, model: SegmentationModel, size: tuple[int, int], steps: int = 6) -> None:
        """A few steps on one batch of coloured patches lower the loss."""
        images, labels = patches(size)
        labels[:, :2] = 255
        optimizer = torch.optim.Adam(model.train().parameters(), lr=3e-3)
        losses = []
        for _ in range(steps):
            loss = nn.functional.cross_entropy(model(images), labels, ignore_index=255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert all(map(math.isfinite, losses))
        assert losses[-1] < 0.8 * losses[0]

    # Exporting ----------------------------------------------------------------------------------------------------

    @classmethod
    @cache
    def exported(cls) -> SegmentationModel:
        if not cls.export_options:
            return cls.reference()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return cls.build_lively(**cls.export_options).requires_grad_(False)

    @classmethod
    @cache
    def traced(cls) -> torch.export.ExportedProgram:
        return export.trace(cls.exported())

    @pytest.mark.parametrize("form", ["onnx", "torch_export"])
    def test_an_exported_file_computes_the_same_at_any_size(self, form: str, tmp_path: Path, refuses: Any) -> None:
        model, path = self.exported(), tmp_path / f"model{SUFFIXES[form]}"
        if form in self.not_exported:
            with refuses(self.not_exported[form]):
                export.EXPORTERS[form](model, path)
            return
        write, open_file = {
            "onnx": (export.write_onnx, export.open_onnx),
            "torch_export": (export.write_torch, export.open_torch),
        }[form]
        write(self.traced(), path, export.describe(model.info))
        run, _ = open_file(path)
        for size in ((1, 32, 32), (1, 33, 57), (2, 97, 160), (1, 231, 310)):
            comparison = export.compare(run, model, size)
            assert comparison.agrees, comparison
        labels = model(export.smooth_images((1, 97, 160), model.info.in_chans)).argmax(1)
        assert labels.unique().numel() > 1, "agreement on a single class would prove nothing"

    # Saving -------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    def test_a_loaded_model_predicts_the_same(self, memory_format: torch.memory_format, tmp_path: Path) -> None:
        model = self.build_lively()
        images = torch.randn(1, 3, 33, 57)
        expected = model(images)
        model.to(memory_format=memory_format).save_pretrained(tmp_path / "model")
        loaded = from_pretrained(tmp_path / "model")
        assert not loaded.training
        assert loaded.info == model.info
        assert torch.equal(loaded(images), expected)


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


def state(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
