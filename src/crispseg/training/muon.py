"""Muon: orthogonal updates for matrices, and AdamW for all other weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MIN_MATRIX, MAX_MATRIX = 16, 320  # shorter side of matrices with orthogonal updates; larger ones are slow on CPUs
LR_RATIO = 5.0  # learning rate of matrices over that of other weights
MOMENTUM = 0.95
BETAS, EPS = (0.9, 0.999), 1e-8  # of AdamW
QUINTIC = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
EVERY = 2  # steps for which an orthogonal update is used; weights are expected to have a gradient in each


class Muon(Optimizer):
    """Update matrices by their orthogonalized momentum, and all other weights by AdamW.

    Jordan et al., *Muon: An optimizer for hidden layers in neural networks* (2024), with Nesterov momentum. The weight
    of a convolution (O, I, k, k) is a matrix (O, I · k²), except for depthwise ones.

    Args:
        groups: parameters, or groups of them, with lr and weight_decay; weight decay is decoupled.
        lr: learning rate of the other weights; that of matrices is five times as large.
        weight_decay: of groups without their own.
        others: matrices that AdamW updates, such as that of a classifier.
    """

    def __init__(
        self,
        groups: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.01,
        others: Iterable[nn.Parameter] = (),
    ) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})
        self.others = {id(weight) for weight in others}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all weights that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                of_matrix = is_matrix(weight) and id(weight) not in self.others
                update = self._of_matrix if of_matrix else self._of_adamw
                change = update(weight.grad, self.state[weight])
                weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(change.view_as(weight), alpha=group["lr"])
        return loss

    @staticmethod
    def _of_matrix(gradient: Tensor, state: dict[str, Any]) -> Tensor:
        if not state:
            state |= {"step": 0, "momentum": torch.zeros_like(gradient)}
        momentum: Tensor = state["momentum"].mul_(MOMENTUM).add_(gradient)
        if state["step"] % EVERY == 0:
            matrix = gradient.add(momentum, alpha=MOMENTUM).flatten(1)  # (O, I · k²)
            ratio = LR_RATIO * math.sqrt(max(1, matrix.shape[0] / matrix.shape[1]))
            state["update"] = orthogonalized(matrix) * ratio
        state["step"] += 1
        update: Tensor = state["update"]
        return update

    @staticmethod
    def _of_adamw(gradient: Tensor, state: dict[str, Any]) -> Tensor:
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
        state["step"] += 1
        mean: Tensor = state["mean"].lerp_(gradient, 1 - BETAS[0])
        square: Tensor = state["square"].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        bias = [1 - beta ** state["step"] for beta in BETAS]
        update: Tensor = mean / bias[0] / (square / bias[1]).sqrt_().add_(EPS)
        return update


def is_matrix(weight: Tensor) -> bool:
    """Return whether a weight is a matrix with a shorter side of 16 to 320, other than of a depthwise convolution."""
    if weight.ndim < 2 or weight.shape[1] == 1:
        return False
    return MIN_MATRIX <= min(weight.flatten(1).shape) <= MAX_MATRIX


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return the matrix (R, C) with singular values near 1, by five steps of a quintic Newton-Schulz iteration.

    Its polynomials are those of the smaller Gram matrix, which takes half of the time for matrices of 192×1152.
    """
    matrix = matrix / (matrix.norm() + 1e-7)
    tall = matrix.shape[0] > matrix.shape[1]
    gram = matrix.T @ matrix if tall else matrix @ matrix.T
    factor = polynomial = quintic(gram)
    for _ in range(NEWTON_SCHULZ_STEPS - 1):
        gram = polynomial @ gram @ polynomial
        polynomial = quintic(gram)
        factor = polynomial @ factor
    return matrix @ factor if tall else factor @ matrix


def quintic(gram: Tensor) -> Tensor:
    """Return a · I + b · G + c · G² of a Gram matrix."""
    a, b, c = QUINTIC
    result = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    result.diagonal().add_(a)
    return result
