"""Random numbers that follow from what they are for, not from what was drawn before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived_seed(purpose: str, *parts: int) -> int:
    """A seed of 63 bits that follows from a purpose, such as "augment", and numbers, such as seed, epoch and index."""
    digest = hashlib.blake2b(repr((purpose, *parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def seeded(purpose: str, *parts: int) -> Iterator[None]:
    """Inside, torch's global CPU generator starts from a `derived_seed`; outside, it goes on as if nothing had been."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(derived_seed(purpose, *parts))
    try:
        yield
    finally:
        torch.set_rng_state(before)
