import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from crispseg.training import muon
from crispseg.training.muon import Muon, is_matrix, orthogonalized


def naive(matrix: Tensor) -> Tensor:
    """The iteration as its authors write it: X ← aX + (bA + cA²)X with A = XXᵀ."""
    x = matrix / matrix.norm()
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


@given(st.integers(0, 2**32 - 1), st.sampled_from([(16, 16), (20, 33), (33, 20), (64, 18)]))
def test_orthogonalized_is_the_iteration_and_keeps_singular_vectors(seed: int, shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ours = orthogonalized(matrix)
    torch.testing.assert_close(ours, naive(matrix), rtol=1e-6, atol=1e-8)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    core = left.T @ ours @ right.T
    assert (core - core.diagonal().diag()).abs().max() < 1e-6
    assert (core.diagonal()[values > 0.1 * values.max()] - 1).abs().max() < 0.4


def train(optimizer: Optimizer, weights: list[nn.Parameter], steps: int, start: int = 0) -> None:
    for step in range(start, start + steps):
        random = torch.Generator().manual_seed(step)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=random)
        optimizer.step()


def weights(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(9)
    return [nn.Parameter(torch.randn(shape, generator=random)) for shape in shapes]


def test_other_weights_are_updated_by_adamw() -> None:
    shapes = (7,), (32, 1, 5, 5), (11, 64, 1, 1), (1, 20, 30), (321, 400)
    assert not any(map(is_matrix, weights(*shapes)))
    shapes += ((20, 30),)  # a classifier
    ours, reference = weights(*shapes), weights(*shapes)
    train(Muon(ours, lr=0.01, weight_decay=0.1, others=ours[-1:]), ours, 5)
    train(AdamW(reference, lr=0.01, weight_decay=0.1), reference, 5)
    for weight, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(weight, other)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has it since 2.9")
def test_matrices_are_updated_as_by_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's optimizer takes matrices only, iterates in bfloat16, and decays by its learning rate."""
    monkeypatch.setattr(muon, "EVERY", 1)
    shapes = (40, 24), (16, 70)
    ours, reference = weights(*shapes), weights(*shapes)
    before = [weight.detach().clone() for weight in ours]
    assert all(map(is_matrix, ours))
    train(Muon(ours, lr=0.02, weight_decay=0.1), ours, 5)
    options = {"lr": 0.1, "weight_decay": 0.02, "momentum": 0.95, "adjust_lr_fn": "original"}
    train(torch.optim.Muon(reference, **options), reference, 5)  # type: ignore[arg-type]
    for weight, other, start in zip(ours, reference, before, strict=True):
        moved, expected = weight - start, other - start
        assert (moved - expected).norm() < 0.05 * expected.norm()


def test_convolutions_are_matrices() -> None:
    (conv,) = weights((16, 4, 3, 3))
    (matrix,) = weights((16, 36))
    matrix.data = conv.detach().flatten(1).clone()
    gradient = torch.randn(16, 4, 3, 3)
    conv.grad, matrix.grad = gradient.contiguous(memory_format=torch.channels_last), gradient.flatten(1)
    Muon([conv], lr=0.1).step()
    Muon([matrix], lr=0.1).step()
    torch.testing.assert_close(conv.detach().flatten(1), matrix.detach())


def test_an_orthogonal_update_is_used_for_two_steps() -> None:
    (weight,) = weights((20, 30))
    optimizer, positions = Muon([weight], lr=0.01, weight_decay=0), [weight.detach().clone()]
    for step, lr in enumerate((0.01, 0.005, 0.01, 0.01)):
        optimizer.param_groups[0]["lr"] = lr
        train(optimizer, [weight], 1, start=step)
        positions.append(weight.detach().clone())
    first, second, third, fourth = (after - before for before, after in itertools.pairwise(positions))
    torch.testing.assert_close(first, 2 * second)
    torch.testing.assert_close(third, fourth)
    assert (third - first).norm() > 0.1 * first.norm()


def test_it_resumes_from_its_state() -> None:
    shapes = (7,), (20, 30)
    whole, parts = weights(*shapes), weights(*shapes)
    train(Muon(whole, lr=0.01), whole, 6)
    first = Muon(parts, lr=0.01)
    train(first, parts, 3)
    second = Muon(parts, lr=0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(second, parts, 3, start=3)
    for weight, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(weight, other, rtol=0, atol=0)
