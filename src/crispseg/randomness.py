"""Random numbers that follow from what they are for, not from what was drawn before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*parts: int) -> int:
    """A seed of 63 bits for `parts`, such as (seed, epoch, index); other parts give an unrelated one."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Inside, torch's global CPU generator starts from `parts`; outside, it goes on as if nothing had been drawn."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(derived_seed(*parts))
    try:
        yield
    finally:
        torch.set_rng_state(before)
