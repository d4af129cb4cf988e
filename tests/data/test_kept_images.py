"""Training images that stay in memory once they were read."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from drawn import drawn

from crispseg.data import Augment, check_split, train_transform
from crispseg.data.dataset import Sample
from crispseg.data.loading import train_loader
from crispseg.training import TrainConfig
from crispseg.training.training_data import keeps_images

DRAWN = drawn(train=4, val=1, test=1, height=64, width=64)


class Counted:
    """A split that counts how often each of its samples is read."""

    def __init__(self) -> None:
        self.split = DRAWN.dataset("train")
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample:
        self.read.append(index)
        return self.split[index]


def two_epochs(dataset: Any, keep: bool) -> list[torch.Tensor]:
    augment = Augment(crop=(32, 48), scale=(1, 1), turn=True, photometric=True)
    loader = train_loader(dataset, train_transform(augment, (0.5,) * 3, (0.5,) * 3), 2, 0, seed=0, keep=keep)
    found = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        found += [part for batch in loader for part in batch]
    return found


def test_they_are_read_once_and_batches_are_the_same() -> None:
    kept, anew = Counted(), Counted()
    one, other = two_epochs(kept, True), two_epochs(anew, False)
    assert len(one) == len(other) == 8
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert sorted(kept.read) == [0, 1, 2, 3] and len(anew.read) == 8


@pytest.mark.parametrize(("workers", "factor"), [(0, 1), (1, 1), (2, 2)])
def test_only_where_all_have_room_in_each_worker(workers: int, factor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    report = check_split(DRAWN.dataset("train"), "train")
    needed = 4 * 64 * 64 * 4 * factor  # RGB and mask
    config = dataclasses.replace(TrainConfig(DRAWN), workers=workers)
    for free, keeps in ((4 * needed, True), (4 * needed - 4, False), (None, False)):
        monkeypatch.setattr("crispseg.training.training_data.free_bytes", lambda device, free=free: free)
        assert keeps_images(config, report) is keeps
