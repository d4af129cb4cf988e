import importlib.util
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from crispseg.data.boundary_targets import NO_DIRECTION, boundary_targets
from crispseg.labels import IGNORE
from crispseg.models import Outputs
from crispseg.training.losses import BoundaryRefinementLoss, CrossEntropy, Loss, WeightedLoss

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
    scores, truth = logits.movedim(1, -1)[labels != 255], labels[labels != 255]  # (P, C) and (P,)
    values = -weights[truth] * scores.log_softmax(1)[range(len(truth)), truth]
    hardest = values.argsort(descending=True)[: max(1, round(fraction * len(truth)))]
    expected = values[hardest].sum() / weights[truth][hardest].sum()
    ours = CrossEntropy(fraction, weights if weighted else None)(logits, labels)
    torch.testing.assert_close(loss_and_gradient(ours, logits), loss_and_gradient(expected, logits))


@pytest.mark.parametrize("fraction", [0.1, 1.0])
@pytest.mark.parametrize(("weights", "label"), [(None, 255), (WEIGHTS, 255), (WEIGHTS, 2)])
def test_ignored_pixels_and_weightless_classes_cost_nothing(
    fraction: float, weights: Tensor | None, label: int
) -> None:
    logits = torch.randn(2, 5, 4, 4, requires_grad=True)
    labels = torch.full((2, 4, 4), label)
    loss, gradient = loss_and_gradient(CrossEntropy(fraction, weights)(logits, labels), logits)
    assert loss == 0
    assert not gradient.any()  # zero, not nan


def test_deep_supervision_is_a_weighted_sum() -> None:
    (logits, labels), (first, _), (second, _) = batch(0), batch(1), batch(2)
    plain = CrossEntropy(0.5)
    loss = WeightedLoss({"cross_entropy": 1.0}, 0.5, auxiliary_weight=0.4)
    expected = [plain(output.float(), labels) for output in (logits, first, second)]
    total = loss(Outputs(logits, auxiliary=(first, second)), labels)
    torch.testing.assert_close(total, expected[0] + 0.4 * (expected[1] + expected[2]))
    assert loss(Outputs(logits), labels) == expected[0]


needs_library = pytest.mark.skipif(
    importlib.util.find_spec("segmentation_models_pytorch") is None, reason="needs segmentation-models-pytorch"
)
LOSSES: tuple[Loss, ...] = get_args(Loss)
LIBRARY = LOSSES[1:]


def one_loss(name: Any) -> Callable[[Tensor, Tensor], Tensor]:
    loss = WeightedLoss({name: 1.0})
    return lambda logits, labels: loss(Outputs(logits), labels)


@needs_library
@pytest.mark.parametrize("name", LIBRARY)
def test_library_losses_are_of_the_pixels_that_count(name: str) -> None:
    logits, labels = batch()
    counted = labels != IGNORE
    loss, gradient = loss_and_gradient(one_loss(name)(logits, labels), logits)
    alone = logits.movedim(1, -1)[counted].T[None, :, None]  # (1, 5, 1, P)
    torch.testing.assert_close(loss, one_loss(name)(alone, labels[counted][None, None]).detach())
    assert gradient.any() and not gradient.movedim(1, -1)[~counted].any()


@needs_library
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_loss_of_ignored_pixels_is_zero(name: str, dtype: torch.dtype) -> None:
    logits = (1e30 * torch.randn(2, 5, 4, 4)).to(dtype).requires_grad_()
    loss, gradient = loss_and_gradient(one_loss(name)(logits, torch.full((2, 4, 4), 255)), logits)
    assert loss == 0 and loss.shape == ()
    assert not gradient.any()  # zero, not nan


@needs_library
@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_logits_are_computed_in_float32(name: str) -> None:
    logits, labels = batch()
    half = logits.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradient = loss_and_gradient(one_loss(name)(half, labels), half)
    assert loss.dtype == torch.float32 and gradient.isfinite().all()
    assert loss == one_loss(name)(half.detach().float(), labels)


@needs_library
def test_losses_are_a_weighted_sum() -> None:
    logits, labels = batch()
    total = WeightedLoss({"cross_entropy": 2.0, "dice": 0.5, "lovasz": 3.0}, 0.2, WEIGHTS)(Outputs(logits), labels)
    parts = [CrossEntropy(0.2, WEIGHTS)(logits.float(), labels), one_loss("dice")(logits, labels)]
    torch.testing.assert_close(total, 2 * parts[0] + 0.5 * parts[1] + 3 * one_loss("lovasz")(logits, labels))


@pytest.mark.parametrize("result", [None, 3.0, torch.tensor(1.0), torch.zeros(2, requires_grad=True)])
def test_wrong_results_of_a_custom_loss(result: Any, refuses: Any) -> None:
    logits, labels = batch()
    with refuses("loss returns"):
        WeightedLoss({}, custom=lambda logits, labels: result)(Outputs(logits), labels)


def test_cross_entropy_needs_no_library(monkeypatch: pytest.MonkeyPatch, refuses: Any) -> None:
    monkeypatch.setattr("crispseg.training.losses.LIBRARY", False)
    WeightedLoss({"cross_entropy": 1.0})
    for name in LIBRARY:
        with refuses(f"loss {name} needs a package", "segmentation-models-pytorch>=0.6"):
            WeightedLoss({"cross_entropy": 1.0, name: 1.0})


@pytest.mark.parametrize("mask", ["true", "predicted"])
def test_the_direction_is_learned_on_the_pixels_that_the_mask_says(mask: Any) -> None:
    """On true boundary pixels, or those of them that the boundary head marks; its own logits learn nothing from it."""
    targets = torch.tensor([[[0, 3, 8, 9, 255, 7]]], dtype=torch.uint8)
    boundary = torch.tensor([[[[1.0, -1.0, 2.0, 3.0, 4.0, 0.5]]]], requires_grad=True)
    direction = torch.randn(1, 8, 1, 6, requires_grad=True)
    logits = torch.randn(1, 5, 1, 6)
    only = {"unrefined": 0.0, "refined": 0.0, "boundary": 0.0, "direction": 1.0}
    loss = BoundaryRefinementLoss(WeightedLoss({"cross_entropy": 1.0}), only, mask)
    outputs = Outputs(logits, logits, None, boundary, direction)
    value = loss(outputs, torch.zeros(1, 1, 6, dtype=torch.long), targets)
    counted = (0, 1, 5) if mask == "true" else (0, 5)
    expected = [-direction[0, :, 0, x].log_softmax(0)[int(targets[0, 0, x])] for x in counted]
    torch.testing.assert_close(value, torch.stack(expected).mean())
    value.backward()
    assert direction.grad is not None and {x for x in range(6) if direction.grad[0, :, 0, x].any()} == {*counted}
    assert boundary.grad is None or not boundary.grad.any()


def test_eq_7_has_the_weights_of_the_paper() -> None:
    torch.manual_seed(0)
    labels = F.interpolate(torch.randint(0, 5, (1, 1, 3, 4)).float(), size=(20, 25))[:, 0].long()
    labels[:, :2] = IGNORE
    targets = torch.from_numpy(boundary_targets(labels[0].numpy().astype(np.uint8)))[None]
    targets[0, 15, :10] = NO_DIRECTION
    logits, unrefined, auxiliary = (torch.randn(1, 5, 20, 25) for _ in range(3))
    boundary, direction = torch.randn(1, 1, 20, 25), torch.randn(1, 8, 20, 25)
    loss = BoundaryRefinementLoss(WeightedLoss({"cross_entropy": 1.0}, auxiliary_weight=0.4))
    total = loss(Outputs(logits, unrefined, (auxiliary,), boundary, direction), labels, targets).item()

    def cross_entropy(scores: Tensor, truth: Tensor) -> Tensor:
        return -scores.log_softmax(0)[truth]

    segmentation = [[], [], []]  # type: list[list[Tensor]]
    edges, ways = [], []
    for y in range(20):
        for x in range(25):
            if labels[0, y, x] == 255:
                continue
            for terms, scores in zip(segmentation, (unrefined, logits, auxiliary), strict=True):
                terms.append(cross_entropy(scores[0, :, y, x], labels[0, y, x]))
            probability = boundary[0, 0, y, x].sigmoid()
            edges.append(-(probability if targets[0, y, x] != 8 else 1 - probability).log())
            if targets[0, y, x] < 8:
                ways.append(cross_entropy(direction[0, :, y, x], targets[0, y, x].long()))
    first, second, deep, third, fourth = (torch.stack(terms).mean().item() for terms in (*segmentation, edges, ways))
    expected = 1.0 * (first + 0.4 * deep) + 1.5 * second + 3.0 * third + 0.7 * fourth
    assert total == pytest.approx(expected, rel=1e-5)
