"""Networks that are built without random weights."""

import torch
from torch import nn

from crispseg.nn.uninitialised import Uninitialised


def test_random_numbers_are_0() -> None:
    """Else drawing until all numbers are in a range might never end, for what the memory contained before."""
    state = torch.get_rng_state()
    weight, other = torch.full((2, 4, 4), 1e9)
    with Uninitialised():
        nn.init.normal_(weight)
        assert not weight.any()
        nn.init.trunc_normal_(other, std=0.02)
        assert not torch.cat([other, torch.randn(4, 4), torch.rand(4, 4)]).any()
    assert torch.equal(torch.get_rng_state(), state)
