from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from crispseg.models import Outputs
from crispseg.training.losses import CrossEntropy, DeepSupervision

WEIGHTS = torch.tensor([0.5, 2.0, 0.0, 1.0, 3.0])


def batch(seed: int = 0, ignored: float = 0.3, size: tuple[int, int] = (9, 13)) -> tuple[Tensor, Tensor]:
    """Logits of 5 classes and labels, in double precision."""
    random = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 5, *size, generator=random, dtype=torch.float64)
    labels = torch.randint(5, (2, *size), generator=random)
    labels[torch.rand(labels.shape, generator=random) < ignored] = 255
    return logits.requires_grad_(), labels


def loss_and_gradient(loss: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize("weights", [None, WEIGHTS.double()])
def test_without_mining_it_is_torch_cross_entropy(weights: Tensor | None) -> None:
    logits, labels = batch()
    ours = loss_and_gradient(CrossEntropy(1.0, weights)(logits, labels), logits)
    reference = loss_and_gradient(F.cross_entropy(logits, labels, weights, ignore_index=255), logits)
    torch.testing.assert_close(ours, reference)


@given(
    seed=st.integers(0, 2**32),
    fraction=st.floats(0.01, 0.99),
    ignored=st.sampled_from([0.0, 0.3, 0.9]),
    weighted=st.booleans(),
)
def test_mining_is_a_sort(seed: int, fraction: float, ignored: float, weighted: bool) -> None:
    logits, labels = batch(seed, ignored, (5, 7))
    weights = WEIGHTS.double() + 0.25 if weighted else torch.ones(5, dtype=torch.float64)
    pixels = []
    for image, y, x in (labels != 255).nonzero().tolist():
        label = int(labels[image, y, x])
        nll = -logits.detach()[image, :, y, x].log_softmax(0)[label]
        pixels.append((float(weights[label] * nll), float(weights[label])))
    pixels.sort(reverse=True)
    hardest = pixels[: max(1, round(fraction * len(pixels)))]
    expected = sum(value for value, _ in hardest) / sum(weight for _, weight in hardest)
    ours = CrossEntropy(fraction, weights if weighted else None)(logits, labels)
    assert float(ours.detach()) == pytest.approx(expected, rel=1e-9)


def test_only_the_hardest_pixels_receive_a_gradient() -> None:
    logits, labels = batch(ignored=0.5)
    _, gradient = loss_and_gradient(CrossEntropy(0.1)(logits, labels), logits)
    touched = gradient.abs().sum(1) > 0
    assert int(touched.sum()) == round(0.1 * int((labels != 255).sum()))
    assert not touched[labels == 255].any()
    nll = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
    assert nll[touched].min() >= nll[~touched].max()


@pytest.mark.parametrize("fraction", [0.1, 1.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_nothing_labelled_costs_nothing(fraction: float, weights: Tensor | None) -> None:
    logits = torch.randn(2, 5, 4, 4, requires_grad=True)
    labels = torch.full((2, 4, 4), 255)
    loss, gradient = loss_and_gradient(CrossEntropy(fraction, weights)(logits, labels), logits)
    assert loss == 0
    assert not gradient.any()  # zero, not nan


@pytest.mark.parametrize("fraction", [0.1, 1.0])
def test_only_weightless_classes_cost_nothing(fraction: float) -> None:
    logits = torch.randn(1, 5, 4, 4, requires_grad=True)
    loss, gradient = loss_and_gradient(CrossEntropy(fraction, WEIGHTS)(logits, torch.full((1, 4, 4), 2)), logits)
    assert loss == 0
    assert not gradient.any()


def test_one_labelled_pixel_is_enough() -> None:
    logits, labels = batch(ignored=1.0)
    labels[1, 2, 3] = 4
    expected = -logits[1, :, 2, 3].log_softmax(0)[4]
    torch.testing.assert_close(CrossEntropy(0.1)(logits, labels), expected)


def test_weights_travel_with_the_module_but_not_into_checkpoints() -> None:
    loss = CrossEntropy(1.0, WEIGHTS)
    assert loss.state_dict() == {}
    assert loss.to(torch.float64).class_weights.dtype == torch.float64


def test_deep_supervision_is_a_weighted_sum() -> None:
    (logits, labels), (one, _), (two, _) = batch(0), batch(1), batch(2)
    plain = CrossEntropy(0.5)
    loss = DeepSupervision(plain, 0.4)(Outputs(logits, auxiliary=(one, two)), labels)
    torch.testing.assert_close(loss, plain(logits, labels) + 0.4 * (plain(one, labels) + plain(two, labels)))


def test_deep_supervision_without_auxiliary_logits() -> None:
    logits, labels = batch()
    plain = CrossEntropy(0.5)
    assert DeepSupervision(plain, 0.4)(Outputs(logits), labels) == plain(logits, labels)
